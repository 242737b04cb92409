"""The Bayesian model of a mixture of interventions: shares over candidate targets, the target summed out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray

from pymc_mte.bayes.layout import MAX_FULL_TABLE
from pymc_mte.bayes.priors import LogRatio, Prior, Tensor, add_parameter, merge_priors, prior_record, told
from pymc_mte.errors import DataError, ModelError
from pymc_mte.model import CausalModel
from pymc_mte.moments.interventions.exclusions import Choice, plausible_choices
from pymc_mte.moments.interventions.methods import smallest_weight
from pymc_mte.moments.interventions.network import UNTOUCHED, components, is_sample, table_counts
from pymc_mte.moments.interventions.rows import TargetProblem, target_problem

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

CONCENTRATION = 0.5
"""Dirichlet concentration of the shares: Jeffreys' prior, which lets targets be absent."""

SHARES = {"target_weight": f"Dirichlet({CONCENTRATION:g})"}
"""The shares' default prior, in words."""

UNSEEN = 1e-12
"""Probability given to a row that no candidate can produce."""


def check_counts(problem: TargetProblem) -> None:
    """Refuse shares where counts of rows are needed."""
    for what, counts in (("mixture", problem.counts), ("base", problem.base and problem.base[1])):
        if counts is not None and not is_sample(np.asarray(counts)):
            raise DataError(
                f"the posterior needs whole counts of the {what} rows; real-valued tables are for `estimate`"
            )


def candidate_sets(problem: TargetProblem, start: Any = None) -> list[tuple[Ints, float]]:
    """Candidate targets with the probability of each set: the listed ones, else the estimated ones.

    Parameters
    ----------
    problem : TargetProblem
        The data.
    start : DataTree, optional
        An answer of `estimate`, whose targets are then candidates if the choice of excluded values
        is clear. Where it is not, every plausible choice has its own set.
    """
    if problem.candidates is not None:
        return [(problem.candidates, 1.0)]
    found: list[Choice] = plausible_choices(
        problem.network, problem.rows, problem.counts, smallest_weight(problem.counts)
    )
    sets = [(choice.support.targets, choice.probability) for choice in found]
    if start is not None:
        point = start["estimate"].to_dataset()
        if "forced" not in point or set(point["variable"].values) != set(problem.order):
            raise ModelError(
                "start: this result holds no targets; pass an answer of `estimate` for this model"
            )
        if len(sets) == 1:
            forced = point["forced"].sel(variable=list(problem.order))
            sets = [(np.asarray(forced.values, dtype=np.int64), 1.0)]
    return [(_with_untouched(targets), probability) for targets, probability in sets]


def _with_untouched(targets: Ints) -> Ints:
    """Let the mixture contain untouched rows, whatever was found."""
    if (targets == UNTOUCHED).all(axis=1).any():
        return targets
    return np.vstack([targets, np.full((1, targets.shape[1]), UNTOUCHED)])


def build_targets(
    model: CausalModel,
    data: Any = None,
    *,
    base: Any = None,
    start: Any = None,
    priors: Mapping[str, Prior] | None = None,
) -> pm.Model:
    """Build the model of shares for the most probable set of candidates; see `pymc_mte.build_model`."""
    problem = target_problem(model, data, base)
    check_counts(problem)
    return build_shares(problem, candidate_sets(problem, start)[0][0], priors)


def build_shares(
    problem: TargetProblem, targets: Ints, priors: Mapping[str, Prior] | None = None
) -> pm.Model:
    """Build the model of shares over given targets.

    Free variables: ``target_weight`` and, where the base is learnt, its tables (``p_a``, ...; a
    bernoulli's without the level axis). Observed: ``counts`` of the mixture, and for a learnt base one
    multinomial per table, which together are the exact likelihood of the base rows.
    """
    model = problem.model
    chosen = merge_priors(model, priors)
    cells, count = _cells(problem)
    coords = {name: list(values) for name, values in model.coords.items() if name != "class"}
    with pm.Model(coords={**coords, "target": problem.labels(targets)}) as built:
        weight = pm.Dirichlet(
            "target_weight",
            a=concentration(chosen.get("target_weight", CONCENTRATION), len(targets)),
            dims="target",
            **({"default_transform": LogRatio(len(targets))} if len(targets) > 1 else {}),
        )
        if problem.base is None:
            p = pm.Data("component", components(problem.network, cells, targets).toarray()) @ weight
        else:
            p = _mixed(_learnt(problem, cells, chosen), targets, cells) @ weight
        p = pt.maximum(p, UNSEEN)
        if len(count) > len(cells):
            p = pt.join(0, p, pt.maximum(1.0 - p.sum(), UNSEEN)[None])
        observed = pm.Data("count", count)
        pm.Multinomial("counts", n=pm.Data("n", np.int64(count.sum())), p=p / p.sum(), observed=observed)
    return built


def share_priors(
    model: CausalModel, given: Mapping[str, Prior] | None, built: pm.Model, defaults: Mapping[str, str]
) -> dict[str, Any]:
    """Say the prior of every free variable, as `prior_record` does, for a result's attributes.

    ``defaults`` are those that tables do not have, by name or by its first word.
    """
    chosen, known = merge_priors(model, given), prior_record(model, given)
    record = {}
    for rv in built.free_RVs:
        name, kind = rv.name, rv.name.split("_")[0]
        default = defaults[name] if name in defaults else defaults.get(kind, known.get(name))
        record[name] = told(chosen[name]) if name in chosen else default
    return record


def concentration(prior: object, size: int) -> Array:
    """Dirichlet concentration of the shares: one number for all targets, or one for each."""
    try:
        value = np.broadcast_to(np.asarray(prior, dtype=float), (size,)).copy()
    except (TypeError, ValueError):
        value = np.full(size, np.nan)
    if not (value > 0).all():
        raise ModelError(
            f"prior of target_weight: give a positive concentration, one number or one for each of the "
            f"{size} targets; got {prior!r}"
        )
    return value


def _cells(problem: TargetProblem) -> tuple[Ints, NDArray[np.int64]]:
    """Cells of the likelihood with their counts; with one more count where unseen cells are one rest."""
    sizes = problem.network.sizes
    if np.prod([float(size) for size in sizes]) > MAX_FULL_TABLE:
        return problem.rows, np.append(problem.counts, 0).astype("int64")
    cells = np.indices(sizes).reshape(len(sizes), -1).T
    count = np.zeros(len(cells), dtype="int64")
    np.add.at(count, np.ravel_multi_index(tuple(problem.rows.T), sizes), problem.counts.astype("int64"))
    return cells, count


def _learnt(problem: TargetProblem, cells: Ints, priors: Mapping[str, Prior]) -> Tensor:
    """Observe the base rows; return log P(value | parents) of every node in every cell: (cell, node)."""
    network, model = problem.network, problem.model
    assert problem.base is not None
    log_p = []
    for node, (name, seen) in enumerate(
        zip(problem.order, table_counts(network, *problem.base), strict=True)
    ):
        value = add_parameter(model, f"p_{name}", priors.get(f"p_{name}"), None, None)
        if model.variables[name].family == "bernoulli":
            value = pt.stack([1 - value, value], axis=-1)
        counts = pm.Data(f"base_count_{name}", seen.astype("int64"))
        pm.Multinomial(f"base_{name}", n=counts.sum(axis=-1), p=value, observed=counts)
        log_p.append(pt.log(value)[tuple(cells[:, j] for j in (*network.parents[node], node))])
    return pt.stack(log_p, axis=1)


def _mixed(log_p: Tensor, targets: Ints, cells: Ints) -> Tensor:
    """Probability of every cell under every target: (cell, target)."""
    untouched = (targets == UNTOUCHED).T.astype(float)
    agree = ((targets == UNTOUCHED) | (cells[:, None, :] == targets)).all(axis=-1)
    return pt.exp(log_p @ untouched) * agree
