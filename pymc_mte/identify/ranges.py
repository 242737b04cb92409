"""Bounds on what the likelihood leaves open: the ranges over all parameters that fit. NumPy and pandas."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.errors import ModelError
from pymc_mte.functionals import effects_from_classes, mean_among, potential_outcomes
from pymc_mte.identify.jacobian import Jacobian, n_free
from pymc_mte.identify.ridge import Sphere, walk
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.modelfile import need_model
from pymc_mte.moments.problem import Problem
from pymc_mte.network import cell_columns, log_joint, log_sum_classes
from pymc_mte.randomness import as_generator
from pymc_mte.results import class_order, labels

Array = NDArray[np.float64]

BOUNDED = ("ate", "att", "effect", "class_weight", "effect_sd")
"""Functionals that may be asked for."""

MAX_SIZE = 4_096
"""Most cells times classes; beyond, ranges would take minutes."""

MAX_QUICK = 150_000
"""Cells times squared parameters up to which `identify` computes ranges: a few seconds."""

LEVEL = 0.9
DROP = float(stats.chi2.ppf(LEVEL, 1)) / 2
"""Units of log-likelihood below its maximum that bound a profile likelihood interval."""

SAME_LAW = 1e-12
"""Divergence per row (Kullback-Leibler) up to which two laws count as the same."""

N_STARTS = 3
JITTER = 0.3
"""Starts per walk: the fit, and points this far away (radians) that have climbed back to the data."""

CLIMBS = 30
STEPS = 100
"""Limits on the steps of a climb back, and of a walk."""


def why_no_ranges(model: CausalModel) -> str:
    """Say in a sentence why no ranges are computed for such a model; empty if they are."""
    if model.continuous_variables:
        return "Bounds on what stays open are computed for discrete variables only."
    if model.n_cells * model.classes > MAX_SIZE:
        return (
            "Bounds on what stays open were not computed: "
            f"{model.n_cells:,} cells times {model.classes} classes are more than {MAX_SIZE:,}."
        )
    if model.interventions is not None or model.treatment is None:
        return "Bounds on what stays open are computed for models with a treatment and no targets only."
    return ""


def open_ranges(problem: Problem, likelihood: Jacobian, point: Parameters) -> tuple[pd.DataFrame | None, str]:
    """Ranges of what the likelihood of a data set leaves open, or a sentence on why there are none.

    Parameters
    ----------
    problem : Problem
        The data.
    likelihood : Jacobian
        What is open.
    point : mapping of str to ndarray
        Maximum-likelihood estimates, with a batch axis of length 1.
    """
    model = problem.model
    reason = why_no_ranges(model)
    if not reason and model.n_cells * n_free(model) ** 2 > MAX_QUICK:
        reason = "Bounds on what stays open would take long here; `functional_ranges` computes them."
    if reason:
        return None, reason
    names = [name for name in BOUNDED if not likelihood.identified[name]]
    fitted = {name: value[0] for name, value in point.items()}
    table = functional_ranges(model, fitted, problem.columns, problem.counts, names=names)
    table.attrs = {"simple": problem.sampling.simple}
    return table, ""


def range_lines(model: CausalModel, ranges: pd.DataFrame) -> list[str]:
    """Say in a sentence between which values the open answers lie."""
    said = [
        f"{_words(model, str(row.functional))} between {row.low:.2g} and {row.high:.2g} "
        f"({row.low_90:.2g} and {row.high_90:.2g} with sampling error)"
        for row in ranges.itertuples()
    ]
    if not said:
        return []
    simple = (
        "" if ranges.attrs.get("simple", True) else ", as if rows were drawn alone and with equal weights"
    )
    return [f"Not fixed, but bounded by the data: {'; '.join(said)}. Sampling error is at 90%{simple}."]


def _words(model: CausalModel, label: str) -> str:
    """Name an entry by the rank of its class: ``smallest class effect [t 1 - 0]``."""
    plain = {
        "ate": "average effect",
        "att": "average effect on the treated",
        "effect_sd": "SD of class effects",
    }
    name, _, inside = label.rstrip("]").partition("[")
    first, _, other = inside.partition(", ")
    if name in plain:
        return plain[name] + (f" [{inside}]" if inside else "")
    k = int(first.removeprefix("class "))
    rank = {0: "smallest", model.classes - 1: "largest"}.get(k, f"number {k + 1}")
    rest = f" [{other}]" if other else ""
    return f"{rank} class effect{rest}" if name == "effect" else f"weight of the class with the {rank} effect"


def functional_ranges(
    model: CausalModel,
    parameters: Parameters,
    columns: Mapping[str, NDArray[Any]] | None = None,
    counts: Array | None = None,
    *,
    names: Sequence[str] = BOUNDED,
    starts: int = N_STARTS,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Bound functionals by all parameters that fit: those with the same law, and those near the data.

    Parameters
    ----------
    model : CausalModel
        Discrete, with a treatment and an outcome; at most 4,096 cells times classes.
    parameters : mapping of str to ndarray
        With the axes of ``model.dims``: maximum-likelihood estimates, or a truth.
    columns : mapping of str to ndarray, optional
        Patterns of the data.
    counts : ndarray of shape (patterns,), optional
        Rows per pattern.
    names : sequence of str
        Of ``ate``, ``att``, ``effect``, ``class_weight``, ``effect_sd``.
    starts : int
        Starts of the search per bound.
    rng : int or numpy.random.Generator
        Source of the starts.

    Returns
    -------
    pandas.DataFrame
        One row per entry: ``functional``, ``low`` and ``high`` over all parameters with the law of
        ``parameters``, and ``low_90`` and ``high_90`` over those whose log-likelihood is at most 1.353
        below its maximum (NaN without counts). Classes are in the order of the first contrast's effect.

    Raises
    ------
    ModelError
        If the model is not of the kind above; the message says why.

    Notes
    -----
    The search is local from several starts, so a range may come out too narrow, never too wide. The
    ends with sampling error are those of a profile likelihood: 90% for the value of one functional, which
    lies inside; where several bounds on probabilities tie, both ends of its range are covered less often.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> model = load_model("gallery:level4")
    >>> table = functional_ranges(model, model.true_parameters(), names=("ate", "effect_sd"))
    >>> (table.loc[0, ["low", "high"]].astype(float).round(3).abs()).tolist()
    [0.0, 0.0]
    """
    need_model("functional_ranges", model)
    reason = why_no_ranges(model)
    unknown = sorted(set(names) - set(BOUNDED))
    if reason or unknown:
        raise ModelError(reason or f"names: {', '.join(unknown)} not among {', '.join(BOUNDED)}")
    rng = as_generator(rng)
    point = {name: np.asarray(parameters[name], dtype=float)[None] for name in model.dims}
    cells = cell_columns(model)
    law = np.exp(log_sum_classes(log_joint(model, point, cells))[0])
    same = _search(Sphere(model, cells, law / SAME_LAW, 1.0), point, names, starts, rng)
    near = np.full_like(same, np.nan)
    if columns is not None and counts is not None:
        near = _search(Sphere(model, columns, counts, DROP), point, names, starts, rng)
        near = np.stack([np.minimum(near[0], same[0]), np.maximum(near[1], same[1])])
    listed = [label for name in names for label, _ in labels(model, name)]
    found = np.concatenate([same, near]).T
    table = pd.DataFrame(found, columns=["low", "high", "low_90", "high_90"])
    table.insert(0, "functional", listed)
    return table


def _search(
    sphere: Sphere, point: Parameters, names: Sequence[str], starts: int, rng: np.random.Generator
) -> Array:
    """Lowest and highest value of every functional over the set: (2, functional)."""
    model = sphere.model

    def answers(parameters: Parameters) -> Array:
        return answer_table(model, parameters, names)

    fit = sphere.coordinates(point)
    both = np.concatenate([fit, sphere.climbed(fit, JITTER, CLIMBS)])  # the fit may end short of the top
    reached = sphere.log_likelihood(both)
    fit, sphere.top = both[[reached.argmax()]], float(reached.max())
    n = answers(point).shape[1]
    away = sphere.normalised(fit + rng.normal(0.0, JITTER, size=(2 * n * (starts - 1), sphere.size)))
    away = sphere.climbed(away, JITTER, CLIMBS)
    fits = sphere.top - sphere.log_likelihood(away) <= sphere.drop
    away[~fits] = fit
    first = np.repeat(fit, 2 * n, axis=0)
    pick = np.tile(np.arange(n), 2 * starts)
    sign = np.repeat(np.tile([1.0, -1.0], starts), n)
    return walk(sphere, answers, np.concatenate([first, away]), pick, sign, STEPS)


def answer_table(model: CausalModel, parameters: Parameters, names: Sequence[str]) -> Array:
    """Functionals of a batch of parameters, classes in the order of answers: (batch, functional)."""
    weight, outcomes = parameters["class_weight"], potential_outcomes(model, parameters)
    value = effects_from_classes(model, weight, outcomes) | {"class_weight": weight}
    if "att" in names:  # the slowest of all
        treated = [
            mean_among(model, parameters, b, b) - mean_among(model, parameters, a, b)
            for b, a in model.contrasts
        ]
        value["att"] = np.stack(treated, axis=-1)
    order = class_order(model, value)
    parts = []
    for name in names:
        found = value[name]
        if name in ("effect", "class_weight"):
            index = order.reshape(*order.shape, *(1,) * (found.ndim - 2))
            found = np.take_along_axis(found, index, axis=1)
        parts.append(found.reshape(len(found), -1))
    return np.concatenate(parts, axis=1)
