"""`choose_classes`: the same question under one to several classes, side by side, with a recommendation."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from pymc_mte.coefficients import refuse_linear
from pymc_mte.data import resolve
from pymc_mte.errors import ModelError, RefusedError, whole_number
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.class_number import ClassFit, fit_classes, fit_edges, with_classes
from pymc_mte.moments.problem import problem_of
from pymc_mte.moments.rank import measure_ranks
from pymc_mte.randomness import as_generator
from pymc_mte.validation import MAX_CLASSES

Array = NDArray[np.float64]

STACKED = "stacked"
"""Label of the last row of the table."""

N_BOOT = 200
"""Resamples behind the rank tests."""

CLOSE = 6.0
"""A BIC that is worse by less than this is called close: the odds are under 20 to 1."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ClassChoice:
    """What one to several classes say, and which number is recommended.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per number of classes, and ``stacked``, their weighted average: ``log_likelihood``,
        ``parameters``, ``bic``, ``weight`` (stacking weights where posteriors were drawn, else weights by
        BIC), ``rank_p`` (bootstrap test of at most so many classes in the proxies), ``dependence`` and
        ``dependence_p`` (the pair of variables that depends most within classes; p-value times the number
        of pairs), ``edge`` and ``bic_edge`` (the best added edge), ``ate``, ``effect[class k]`` and
        ``class_weight[class k]``.
    recommended : int or None
        Number of classes; None where rows are too few to recommend any, which ``says`` then begins with.
    dependence : (str, str) or None
        The pair that the recommended model lets depend on each other within classes.
    says : tuple of str
        The recommendation and its evidence in sentences.
    posteriors : mapping of int to DataTree
        Posteriors by number of classes; empty unless they were asked for.
    """

    table: pd.DataFrame
    recommended: int | None
    dependence: tuple[str, str] | None
    says: tuple[str, ...]
    posteriors: Mapping[int, xr.DataTree]

    def __str__(self) -> str:
        """Return the recommendation and the table as text."""
        return "\n".join([*self.says, "", self.table.to_string(float_format=_number, na_rep="")])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{html.escape(line)}</p>" for line in self.says)
        return f"<h3>How many classes</h3>{said}{self.table.to_html(float_format=_number, na_rep='')}"

    def plot(self) -> Any:
        """Draw the evidence and the class effects under each number of classes."""
        from pymc_mte.plots.classes_choice import plot_class_choice

        return plot_class_choice(self)


def choose_classes(
    model: CausalModel,
    frame: Any = None,
    max_classes: int = 5,
    *,
    sample: bool = False,
    rng: int | np.random.Generator = 0,
    **sampling: Any,
) -> ClassChoice:
    """Fit one to ``max_classes`` classes and say which number the rows support.

    Parameters
    ----------
    model : CausalModel
        The graph; its own number of classes does not matter.
    frame : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    max_classes : int
        Largest number of classes.
    sample : bool
        Whether posteriors are drawn too, for stacking weights; else everything rests on likelihood fits.
    rng : int or numpy.random.Generator
        Source of random starts and resamples.
    **sampling
        Options of `pymc_mte.sample`, with ``sample=True``.

    Returns
    -------
    ClassChoice

    Raises
    ------
    ModelError
        If ``max_classes`` is not a positive whole number.
    RefusedError
        If the model has covariates, linear parents, strata or interventions, or a limited form of rows.

    Notes
    -----
    The lowest BIC decides, over all numbers of classes and, wherever a pair of variables still depends
    on each other within classes, over the graph with the best one of these edges: an edge that is
    missing from the graph otherwise passes for one more class. A model with more parameters than there are
    rows, or than the table has free cells, cannot be chosen. The rank tests are shown beside it; a
    dependence between proxies of the two sides raises that rank too.
    With more than two arms the effects are those of the first contrast.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:paper_pair")
    >>> choose_classes(model, simulate(model, 5_000, rng=1), max_classes=3).recommended
    2
    """
    need_model("choose_classes", model)
    if (max_classes := whole_number("max_classes", max_classes)) > MAX_CLASSES:
        raise ModelError(f"max_classes must be at most {MAX_CLASSES}, got {max_classes}")
    if sampling and not sample:
        raise ModelError(f"{', '.join(sampling)}: options of the sampler need sample=True")
    model, table = resolve(model, frame)
    if model.covariates or model.strata or model.interventions is not None:
        raise RefusedError(
            "choose_classes fits the graph's likelihood, which takes no covariates, strata or interventions"
        )
    refuse_linear(model, "choose_classes")
    generator = as_generator(rng)
    plain, edged = _fits(model, table, max_classes, int(generator.integers(2**31)))
    posteriors = _posteriors(plain, table, sampling, int(generator.integers(2**31))) if sample else {}
    weight = _stacking(posteriors) if posteriors else _bic_weights(plain)
    ranks = _rank_p(model, table, max_classes, generator)
    shown = _table(plain, edged, weight, ranks)
    best = _choice(plain, edged)
    return ClassChoice(
        table=shown,
        recommended=best.model.classes if _countable(best) else None,
        dependence=best.edge,
        says=tuple(_sentences(plain, edged, best, ranks, bool(posteriors), weight)),
        posteriors=posteriors,
    )


def _fits(
    model: CausalModel, table: xr.Dataset, max_classes: int, seed: int
) -> tuple[list[ClassFit], list[ClassFit | None]]:
    """Fit every number of classes, as it is and with its best further edge."""
    plain: list[ClassFit] = []
    edged: list[ClassFit | None] = []
    for classes in range(1, max_classes + 1):
        problem = problem_of(with_classes(model, classes), table, seed)
        plain.append(fit_classes(problem, plain[-1] if plain else None))
        edged.append(fit_edges(problem, plain[-1]))
    return plain, edged


def _countable(fit: ClassFit) -> bool:
    """Whether there are more rows, and at least as many free cells of a table, than parameters."""
    free = bool(fit.model.continuous_variables) or fit.n_parameters < fit.model.n_cells
    return free and fit.n_parameters < fit.n_rows


def _choice(plain: list[ClassFit], edged: list[ClassFit | None]) -> ClassFit:
    """Return the fit of the lowest BIC, with or without an added edge."""
    fits = [fit for fit in (*plain, *edged) if fit is not None and _countable(fit)]
    return min(fits or plain[:1], key=lambda fit: fit.bic)


def _bic_weights(plain: list[ClassFit]) -> Array:
    bic = np.array([fit.bic if _countable(fit) else np.inf for fit in plain])
    if not np.isfinite(bic).any():
        bic[0] = 0.0
    weight: Array = special.softmax(-bic / 2)
    return weight


def _posteriors(
    plain: list[ClassFit], table: xr.Dataset, sampling: dict[str, Any], seed: int
) -> dict[int, xr.DataTree]:
    """Draw a posterior for every number of classes."""
    from pymc_mte.bayes.sample import sample as draw

    options = {"random_seed": seed, "progressbar": False, **sampling}
    return {fit.model.classes: draw(fit.model, table, **options) for fit in plain}


def _stacking(posteriors: Mapping[int, xr.DataTree]) -> Array:
    from pymc_mte.model_comparison import compare_models

    if len(posteriors) == 1:
        return np.ones(1)
    ranked = compare_models({str(k): tree for k, tree in posteriors.items()})
    return ranked["weight"].loc[[str(k) for k in posteriors]].to_numpy(dtype=float)


def _rank_p(
    model: CausalModel, table: xr.Dataset, max_classes: int, rng: np.random.Generator
) -> dict[int, float]:
    """Test in every arm with positivity "at most so many classes"; the largest p-value counts."""
    if model.treatment is None or not model.treatment_proxies or not model.outcome_proxies:
        return {}
    problem = problem_of(with_classes(model, 2), table)
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    if narrow < 2 or len(problem.arms) < 2:
        return {}
    ranks = measure_ranks(problem, N_BOOT, rng)
    arms = [ranks.arms[i].p_value for i in ranks.anchors]
    return {k: float(max(p[k - 1] for p in arms)) for k in range(1, min(max_classes + 1, narrow))}


def _answers(fit: ClassFit) -> dict[str, float]:
    """Average effect, class effects and weights of a fit."""
    model, known = fit.model, {name: value[None] for name, value in fit.parameters.items()}
    out: dict[str, float] = {}
    if model.treatment is not None:
        found = functionals(model, known)
        out["ate"] = float(found["ate"].reshape(-1)[0])
        effect = found["effect"].reshape(model.classes, -1)[:, 0]
        out |= {f"effect[class {k}]": float(effect[k]) for k in range(model.classes)}
    weight = fit.parameters["class_weight"]
    return out | {f"class_weight[class {k}]": float(weight[k]) for k in range(model.classes)}


def _table(
    plain: list[ClassFit], edged: list[ClassFit | None], weight: Array, ranks: Mapping[int, float]
) -> pd.DataFrame:
    rows: dict[int | str, dict[str, Any]] = {}
    for fit, other, share in zip(plain, edged, weight, strict=True):
        worst, n_pairs = fit.worst, sum(pair.df > 0 for pair in fit.residuals)
        rows[fit.model.classes] = {
            "log_likelihood": fit.log_likelihood,
            "parameters": fit.n_parameters,
            "bic": fit.bic,
            "weight": share,
            "rank_p": ranks.get(fit.model.classes, np.nan),
            "dependence": "" if worst is None else " - ".join(worst.edge),
            "dependence_p": np.nan if worst is None else min(1.0, worst.p_value * n_pairs),
            "edge": "" if other is None or other.edge is None else " -> ".join(other.edge),
            "bic_edge": np.nan if other is None else other.bic,
            **_answers(fit),
        }
    average = np.nansum([row.get("ate", np.nan) * row["weight"] for row in rows.values()])
    out = pd.DataFrame.from_dict(rows, orient="index")
    labels = sorted(c for c in out.columns if "[" in c)
    out = out[[c for c in out.columns if "[" not in c] + labels[len(plain) :] + labels[: len(plain)]]
    out.loc[STACKED, "weight"] = 1.0
    if "ate" in out:
        out.loc[STACKED, "ate"] = average
    out[["dependence", "edge"]] = out[["dependence", "edge"]].fillna("")
    out.index.name = "classes"
    return out


def _sentences(
    plain: list[ClassFit],
    edged: list[ClassFit | None],
    best: ClassFit,
    ranks: Mapping[int, float],
    sampled: bool,
    weight: Array,
) -> list[str]:
    k = best.model.classes
    said = [f"Recommended: {_classes(k)}."]
    if best.edge is not None:
        gain = plain[k - 1].bic - best.bic
        said[0] = (
            f"Recommended: {_classes(k)}, with local dependence between {best.edge[0]} and {best.edge[1]}: "
            f"draw an edge between them, or merge them, before a class is added."
        )
        said.append(f"With that edge the BIC of {_classes(k)} falls by {gain:.1f}.")
        if k < len(plain):
            said.append(f"One class more without it has a BIC that is {plain[k].bic - best.bic:.1f} higher.")
    others = [fit for fit in (*plain, *edged) if fit and _countable(fit) and fit.model.classes != k]
    rival = min(others, key=lambda fit: fit.bic, default=None)
    if rival is not None:
        gap = rival.bic - best.bic
        how = "close, so look at both" if gap < CLOSE else "clearly worse"
        said.append(f"The next best number, {rival.model.classes}, has a BIC {gap:.1f} higher: {how}.")
    left = plain[k - 1].worst if best.edge is None else None
    if left is not None and left.p_value * len(plain[k - 1].residuals) < 0.05:
        said.append(
            f"Some dependence is left between {left.edge[0]} and {left.edge[1]} within classes "
            f"(p = {left.p_value:.2g}), too little to draw an edge for."
        )
    if ranks:
        shown = next((r for r, p in ranks.items() if not p < 0.05), max(ranks) + 1)
        said.append(
            f"The proxies show at least {_classes(shown)} by the bootstrap rank test."
            if shown > 1
            else "The bootstrap rank test sees no more than one class in the proxies."
        )
        if shown != k:
            said.append(
                "Rank and likelihood differ: the rank counts what both sides of proxies share in every arm."
            )
    blocked = [fit.model.classes for fit in plain if not _countable(fit)]
    if blocked:
        said.append(f"More parameters than free cells or rows with {_classes_of(blocked)}: not to be chosen.")
    if k in blocked:
        said[0] = f"No number of classes can be recommended: {best.n_rows:g} rows are too few; collect more."
    if sampled and int(weight.argmax()) + 1 != k:
        said.append(f"Stacking of the posteriors gives most weight to {_classes(int(weight.argmax()) + 1)}.")
    return said


def _classes(k: int) -> str:
    return f"{k} class{'es' * (k != 1)}"


def _classes_of(numbers: list[int]) -> str:
    return f"{', '.join(map(str, numbers))} class{'es' * (numbers != [1])}"


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
