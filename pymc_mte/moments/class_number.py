"""Maximum likelihood under each number of classes, and under one more edge. NumPy and SciPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.edges import Edge
from pymc_mte.moments.em import Maximiser, em, random_starts, responsibilities
from pymc_mte.moments.likelihood import climb
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.residuals import PairResidual, pair_residuals
from pymc_mte.network import log_joint
from pymc_mte.results import class_order

Array = NDArray[np.float64]

N_STARTS = 4
"""Random starts of a climb, beside the moment start and one from the fit with a class fewer."""

TOLERANCE, ROUGH = 1e-8, 1e-6
"""Gain per row at which the best climb stops, and at which starts are compared."""

MAX_ITERATIONS = 2_000

N_EDGES = 3
"""Edges of the largest score statistics that are fitted themselves."""

DOUBT = 0.05
"""Fits whose pairs, corrected for their number, are all above this p-value get no further edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFit:
    """The graph fitted with one number of classes.

    Attributes
    ----------
    model : CausalModel
        The graph.
    edge : (str, str), optional
        The edge that was added to it.
    parameters : mapping of str to ndarray
        Without a batch axis, classes in the order of answers.
    log_likelihood : float
        Of all rows.
    n_parameters : int
        Free parameters.
    n_rows : float
        Rows that were fitted.
    bic : float
        ``-2 log L + n_parameters log(rows)``; lower is better. An added edge pays twice the logarithm of the
        number of edges that it was chosen from (Chen and Chen 2008, Biometrika 95).
    residuals : tuple of PairResidual
        Dependence that is left within classes; empty for fits with an added edge.
    """

    model: CausalModel
    edge: Edge | None
    parameters: Parameters
    log_likelihood: float
    n_parameters: int
    n_rows: float
    bic: float
    residuals: tuple[PairResidual, ...] = ()

    @property
    def worst(self) -> PairResidual | None:
        """The pair with the smallest p-value, if any can be tested."""
        tested = [pair for pair in self.residuals if pair.df]
        return min(tested, key=lambda pair: (pair.p_value, -pair.statistic / pair.df), default=None)


def n_free(model: CausalModel) -> int:
    """Count the free parameters, weights included."""
    return sum(int(np.prod(model.free_shape(name))) for name in model.dims)


def fit_classes(problem: Problem, fewer: ClassFit | None = None, n_starts: int = N_STARTS) -> ClassFit:
    """Fit the graph with its number of classes, from moments, random starts and a split of a smaller fit.

    Parameters
    ----------
    problem : Problem
        The data under the graph.
    fewer : ClassFit, optional
        The fit with one class fewer.
    n_starts : int
        Random starts.
    """
    counts = problem.counts[None]
    best, _ = climb(problem, counts, n_random=n_starts, tolerance=ROUGH)
    starts = [best.parameters]
    if fewer is not None:
        starts += _split(problem, fewer)
    found = _best(problem, problem.model, starts)
    return _laid_out(problem, problem.model, None, *found, choices=1)


def fit_edges(problem: Problem, plain: ClassFit) -> ClassFit | None:
    """Fit the most suspicious edges, one at a time, and return the best; None where nothing is suspicious."""
    tested = [pair for pair in plain.residuals if pair.df]
    worst = plain.worst
    if worst is None or worst.p_value * len(tested) > DOUBT:
        return None
    tested.sort(key=lambda pair: pair.p_value if pair.p_value > 0 else -pair.statistic / pair.df)
    rng = np.random.default_rng(problem.seed)
    fits = []
    for pair in tested[:N_EDGES]:
        larger = with_edge(plain.model, pair.edge)
        known = {name: value[None] for name, value in plain.parameters.items()}
        mass = responsibilities(log_joint(plain.model, known, problem.columns)) * problem.counts
        starts = [Maximiser(larger, problem.columns, 0.5).step(mass, {})]
        starts += [random_starts(larger, problem.columns, problem.counts[None], rng) for _ in range(2)]
        found = _best(problem, larger, starts)
        fits.append(_laid_out(problem, larger, pair.edge, *found, choices=len(plain.residuals)))
    return min(fits, key=lambda fit: fit.bic)


def with_classes(model: CausalModel, classes: int) -> CausalModel:
    """Write the same graph down with another number of classes, without truth."""
    fields = {name: getattr(model, name) for name in CausalModel.model_fields}
    return CausalModel(**fields | {"classes": classes, "truth": None})


def with_edge(model: CausalModel, edge: Edge) -> CausalModel:
    """Add one edge; roles of proxies are promises about edges, and go."""
    parent, child = edge
    var = model.variables[child]
    wider = var.model_copy(update={"parents": (*var.parents, parent)})
    fields = {name: getattr(model, name) for name in CausalModel.model_fields}
    fields |= {"treatment_proxies": (), "outcome_proxies": (), "truth": None}
    return CausalModel(**fields | {"variables": dict(model.variables) | {child: wider}})


def _split(problem: Problem, fewer: ClassFit) -> list[Parameters]:
    """Start from a smaller fit, each of its classes split in two at random: one start per class."""
    known = {name: value[None] for name, value in fewer.parameters.items()}
    shares = responsibilities(log_joint(fewer.model, known, problem.columns))[0]
    rng = np.random.default_rng(problem.seed)
    maximiser, out = Maximiser(problem.model, problem.columns, 0.5), []
    for k in range(len(shares)):
        part = rng.beta(0.5, 0.5, size=shares.shape[1])
        mass = np.concatenate([shares, (shares[k] * part)[None]])
        mass[k] *= 1 - part
        out.append(maximiser.step(mass[None] * problem.counts, {}))
    return out


def _best(problem: Problem, model: CausalModel, starts: list[Parameters]) -> tuple[Parameters, float]:
    """Climb from every start roughly, and from the best one to the top."""
    joined = {name: np.concatenate([start[name] for start in starts]) for name in starts[0]}
    counts = np.tile(problem.counts, (len(starts), 1))
    rough = em(model, problem.columns, counts, joined, tolerance=ROUGH, max_iterations=MAX_ITERATIONS)
    place = int(np.nan_to_num(rough.log_likelihood, nan=-np.inf).argmax())
    start = {name: value[place : place + 1] for name, value in rough.parameters.items()}
    final = em(
        model,
        problem.columns,
        problem.counts[None],
        start,
        tolerance=TOLERANCE,
        max_iterations=MAX_ITERATIONS,
    )
    return final.parameters, float(final.log_likelihood[0])


def _laid_out(
    problem: Problem, model: CausalModel, edge: Edge | None, point: Parameters, reached: float, choices: int
) -> ClassFit:
    """Order the classes, count the parameters, and look at what is left over."""
    known = {name: value[0] for name, value in point.items()}
    if model.treatment is not None:
        known |= {"effect": functionals(model, point)["effect"][0]}
    order = class_order(model, known)
    point = {n: v[:, order] if model.dims[n][:1] == ("class",) else v for n, v in point.items()}
    size = n_free(model)
    price = size * np.log(problem.counts.sum()) + 2 * np.log(max(choices, 1)) * (edge is not None)
    return ClassFit(
        model=model,
        edge=edge,
        parameters={name: value[0] for name, value in point.items()},
        log_likelihood=reached,
        n_parameters=size,
        n_rows=float(problem.counts.sum()),
        bic=float(-2 * reached + price),
        residuals=pair_residuals(problem, point) if edge is None else (),
    )
