"""`baselines`: what simpler methods answer on the same rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import columns_of, effective_weights, has_missing, resolve
from pymc_mte.errors import RefusedError
from pymc_mte.forest import causal_forest, forest_installed
from pymc_mte.model import CausalModel
from pymc_mte.moments.class_number import fit_classes
from pymc_mte.moments.em import responsibilities
from pymc_mte.moments.grouping import contrast, gaussian_mixture, k_means, regression
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import log_joint
from pymc_mte.randomness import as_generator

Array = NDArray[np.float64]

ASSUMES = {
    "naive difference": "nothing but the treatment sets the arms apart",
    "regression on all proxies": "the proxies are all confounders, measured without error; one effect",
    "k-means groups": "rows with similar proxies share their class",
    "Gaussian-mixture groups": "the proxies are normal given the class, and tell it without error",
    "latent classes of proxies": "within proxies' classes the arms are comparable",
    "causal forest": "the proxies are all the confounders, and both arms occur at all their values",
    "measured class (oracle)": "the class is seen, as in simulations only",
}
"""Each baseline, and what it would take for its answer to be right."""


def baselines(model: CausalModel, data: Any = None, *, rng: int | np.random.Generator = 0) -> pd.DataFrame:
    """Answer by simpler methods: none of them uses that the class acts on treatment and outcome too.

    Parameters
    ----------
    model : CausalModel
        Gives treatment, outcome, proxies and the number of groups.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default. Simulated rows that hold ``latent_class`` add the
        oracle, which knows the class.
    rng : int or numpy.random.Generator
        Source of random starts.

    Returns
    -------
    pandas.DataFrame
        Indexed by method: ``ate`` of the first contrast, in units of the outcome, and its ``se`` (of
        groups: taking them as known, hence too small; NaN where an arm of one has a single row), both over
        the groups in which both arms occur; ``effect[class k]`` and ``class_weight[class k]`` of
        the groups, from the lowest effect; ``assumes``. ``attrs["contrast"]`` says which arms are compared.

    Raises
    ------
    RefusedError
        If the model has no treatment or no proxies, or has covariates, strata, interventions or
        censored times, or values are missing, or one of the two arms has no rows.

    Notes
    -----
    Where EconML is installed (``pip install 'pymc-mte[forest]'``) a causal forest on the proxies comes too.
    Its average effect is doubly robust. Its groups are cut where its effects of single rows differ most, and
    a group's effect is the mean of doubly robust scores, of rows other than those that the forest was grown
    on. It is grown on at most 20,000 rows, drawn at random (about ten seconds); ``se`` is of these. Where an
    arm has fewer than 20 rows it answers NaN.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> table = baselines(model, simulate(model, 5_000, rng=1))
    >>> bool(table.loc["measured class (oracle)", "effect[class 0]"] < -0.6)
    True
    """
    rows = data
    model, table = resolve(model, data)
    proxies = [*model.treatment_proxies, *model.outcome_proxies]
    if model.treatment is None or not proxies:
        raise RefusedError("baselines need a treatment, an outcome and proxies to group by")
    if model.covariates or model.strata or model.interventions is not None:
        raise RefusedError("baselines take no covariates, strata or interventions")
    if any(var.linear_parents for var in model.variables.values()):
        raise RefusedError("baselines group by proxies and leave linear parents out; they take no such model")
    if model.censored:
        raise RefusedError(
            f"baselines compare means of {model.outcome!r}, and censored times have none to see"
        )
    if has_missing(model, table):
        raise RefusedError("baselines need whole rows, and these have missing values; leave such rows out")
    generator = as_generator(rng)
    columns, counts = columns_of(table, model), effective_weights(table)
    number = table["count"].values.astype(float)
    outcome = np.asarray(columns[str(model.outcome)], dtype=float)
    arm, pair = np.asarray(columns[model.treatment]), model.contrasts[0]
    if empty := [model.arms[t] for t in pair if not counts[arm == t].sum() > 0]:
        raise RefusedError(f"baselines contrast arms of {model.treatment!r}, and {empty[0]!r} has no rows")
    points = _points(model, proxies, columns, counts)
    seen = np.isin(arm, pair)
    found: dict[str, dict[str, Any]] = {}
    for name, (value, se) in {
        "naive difference": contrast(outcome, arm, counts, pair),
        "regression on all proxies": regression(
            outcome[seen], (arm[seen] == pair[0]).astype(float), points[seen], counts[seen]
        ),
    }.items():
        found[name] = {"ate": value, "se": se}
    groupings = {
        "k-means groups": k_means(points, counts, model.classes, generator),
        "Gaussian-mixture groups": gaussian_mixture(points, counts, model.classes, generator),
        "latent classes of proxies": _latent_classes(model, proxies, columns, counts, generator),
    }
    for name, member in groupings.items():
        found[name] = _grouped(outcome, arm, member * counts, pair)
    if forest_installed():
        found["causal forest"] = causal_forest(
            points[seen],
            arm[seen] == pair[0],
            outcome[seen],
            number[seen],
            (counts / number)[seen],
            model.classes,
            generator,
        )
    if (oracle := _oracle(model, rows)) is not None:
        found["measured class (oracle)"] = oracle
    out = pd.DataFrame.from_dict(found, orient="index")
    out["assumes"] = [ASSUMES[str(name)] for name in out.index]
    out.index.name = "method"
    to, reference = (model.arms[t] for t in pair)
    out.attrs["contrast"] = f"effect of {model.treatment} = {to} against {reference} on {model.outcome}"
    return out


def _points(
    model: CausalModel, proxies: list[str], columns: Mapping[str, NDArray[Any]], counts: Array
) -> Array:
    """Lay proxies out as standardised numbers, categorical ones as indicators: (patterns, features)."""
    parts = []
    for name in proxies:
        column, var = np.asarray(columns[name], dtype=float), model.variables[name]
        if var.family == "categorical":
            parts += [(column == level).astype(float) for level in range(1, model.size(name))]
        else:
            parts.append(column)
    raw, share = np.stack(parts, axis=1), counts / counts.sum()
    mean = share @ raw
    sd = np.sqrt(share @ (raw - mean) ** 2)
    return np.asarray((raw - mean) / np.where(sd > 0, sd, 1.0))


def _latent_classes(
    model: CausalModel,
    proxies: list[str],
    columns: Mapping[str, NDArray[Any]],
    counts: Array,
    rng: np.random.Generator,
) -> Array:
    """Class probabilities of a latent class model of the proxies alone: (classes, patterns)."""
    variables = {
        n: model.variables[n].model_copy(update={"parents": (), "linear_parents": ()}) for n in proxies
    }
    alone = CausalModel(classes=model.classes, variables=variables)
    fit = fit_classes(make_problem(alone, columns, counts, int(rng.integers(2**31))))
    known = {name: value[None] for name, value in fit.parameters.items()}
    return np.asarray(responsibilities(log_joint(alone, known, columns))[0])


def _grouped(outcome: Array, arm: NDArray[np.int64], mass: Array, pair: tuple[int, int]) -> dict[str, Any]:
    """Contrasts within groups, averaged over them; ``mass`` (groups, patterns) are rows per group."""
    weight = mass.sum(axis=1) / mass.sum()
    effect, se = np.array([contrast(outcome, arm, part, pair) for part in mass]).T
    used = np.isfinite(effect) & (weight > 0)
    order = np.argsort(np.where(used, effect, np.inf))
    out = {"ate": np.nan, "se": np.nan}
    if used.any():
        share = weight[used] / weight[used].sum()
        error = np.where(mass.sum(axis=1) < 1, np.nan_to_num(se), se)[used]  # less than a row adds nothing
        out = {"ate": float(share @ effect[used]), "se": float(np.sqrt(share**2 @ error**2))}
    out |= {f"effect[class {k}]": float(effect[u]) for k, u in enumerate(order)}
    return out | {f"class_weight[class {k}]": float(weight[u]) for k, u in enumerate(order)}


def _oracle(model: CausalModel, rows: Any) -> dict[str, Any] | None:
    """Contrasts within the true classes of simulated rows; None where they are not known."""
    if not isinstance(rows, Mapping | xr.Dataset | pd.DataFrame) or "latent_class" not in rows:
        return None
    latent = np.asarray(rows["latent_class"], dtype=int)
    code = {}
    for name in (str(model.treatment), str(model.outcome)):
        column, var = np.asarray(rows[name]), model.variables[name]
        places = {level: i for i, level in enumerate(var.labels)} if var.discrete else {}
        code[name] = np.array([places[v] for v in column.tolist()]) if var.discrete else column.astype(float)
    mass = (latent == np.arange(latent.max() + 1)[:, None]).astype(float)
    outcome = code[str(model.outcome)].astype(float)
    return _grouped(outcome, code[str(model.treatment)], mass, model.contrasts[0])
