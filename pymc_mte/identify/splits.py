"""How the average effect moves when the proxies change sides or one is left out."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from pymc_mte.data import resolve
from pymc_mte.errors import ModelError
from pymc_mte.hierarchy import hierarchy
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.features import build_features
from pymc_mte.moments.positivity import arm_support, failing_arms, refused_mask
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.splits import MAX_SPLITS, Form, Split, SplitEffect, list_splits, split_effects
from pymc_mte.status import Note, Status

OWN, OTHER, SHORTER = "model's roles", "other roles", "one left out"
COLUMNS = ["kind", "treatment_side", "outcome_side", "contrast", "ate", "se", "correlation", "p", "graph"]
ALLOWED = "allowed"

MAX_WORK = 10_000_000
"""`identify` makes the table unasked up to this many splits times distinct rows times covariates."""

LEVEL = 0.05
ROUNDING = 1e-9
WIDTH = 1.645
"""Standard errors on each side of a 90% interval."""


def role_splits(
    model: CausalModel, data: Any = None, *, form: Form = "bridge", interactions: bool = False
) -> pd.DataFrame:
    """Estimate the average effect for every way of giving the proxies their sides.

    Parameters
    ----------
    model : CausalModel
        A model with two classes or more and proxies on both sides.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    form : {"bridge", "two-stage"}
        The outcome bridge per arm at rank K, or two-stage least squares with every proxy linear and in
        all directions, as published analyses often have it.
    interactions : bool
        Whether products of the features of any two proxies of one side count too, as in `estimate`.

    Returns
    -------
    pandas.DataFrame
        One row per split and contrast: ``kind`` (the model's roles first, then other roles, then one
        proxy left out), ``treatment_side``, ``outcome_side``, ``ate`` and ``se`` (units of the
        outcome), ``correlation`` and ``p`` (weakest canonical correlation that the answer needs, over
        the arms, and its test), ``graph`` ("allowed", or which edge of the model's graph the roles
        contradict). ``attrs["capped"]`` says whether there were too many splits, so that
        only those near the model's roles were made.

    Raises
    ------
    ModelError
        If the model has one class or lacks proxies on a side.

    Notes
    -----
    Not all splits are valid: a proxy that causes the treatment may not stand on the outcome side. Roles with
    which the model's graph reaches no average effect by moments contradict it.
    Standard errors are those of the delta method; they and ``p`` are absent for shares, sampling weights
    and clusters. Averages that lack positivity are absent too.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> table = role_splits(model, simulate(model, 5_000, rng=1))
    >>> table[["treatment_side", "outcome_side"]].values.tolist()
    [['z', 'x'], ['x', 'z']]
    """
    need_model("role_splits", model)
    if (
        model.treatment is None
        or model.classes < 2
        or not (model.treatment_proxies and model.outcome_proxies)
    ):
        raise ModelError("role_splits needs two classes or more, a treatment, and proxies on both sides")
    if model.censored:
        raise ModelError("role_splits answers by means of the outcome, and censored times have none to see")
    if model.strata:
        raise ModelError(
            "role_splits does not look inside strata yet; leave them out or list them as covariates"
        )
    model, table = resolve(model, data)
    return splits_table(problem_of(model, table, interactions=interactions), form)


def n_splits(model: CausalModel) -> int:
    """Count the splits that the table would have."""
    return len(list_splits(model.treatment_proxies, model.outcome_proxies)[0])


def splits_table(problem: Problem, form: Form = "bridge") -> pd.DataFrame:
    """Lay out the table of `role_splits` for data that are laid out already."""
    model = problem.model
    linear = form == "two-stage"
    # Two-stage least squares contrasts with the arm numbered 0.
    arms = sorted(problem.arms, key=lambda arm: (arm != model.reference_arm, arm))
    numbered = np.array([arms.index(arm) for arm in problem.arms])[problem.arm_place]
    splits, capped = list_splits(model.treatment_proxies, model.outcome_proxies)
    names = (*model.treatment_proxies, *model.outcome_proxies)
    graph = [_standing(model, split) for split in splits]
    blocks = {
        n: build_features(model, problem.columns, problem.counts, [n], linear=linear).raw[:, 1:]
        for n in names
    }
    failing = failing_arms(model, arm_support(model, problem.columns, problem.counts))
    refused = np.atleast_1d(refused_mask(model, "ate", failing)) & np.ones(len(model.contrasts), dtype=bool)
    exact = problem.sampling.simple and bool((problem.counts == np.round(problem.counts)).all())
    parts = []
    for bare, (b, a) in zip(refused, model.contrasts, strict=True):
        if not {a, b} <= set(problem.arms):
            continue
        found = split_effects(
            problem.outcome,
            numbered,
            blocks,
            splits,
            covariates=problem.covariates,
            weights=problem.counts,
            rank=None if linear else model.classes,
            form=form,
            contrast=(arms.index(b), arms.index(a)),
            interactions=_multiplied(problem),
        )
        part = as_table(found, f"{model.arms[b]} - {model.arms[a]}", graph)
        blank = [name for name, gone in (("ate", bare), ("se", bare or not exact), ("p", not exact)) if gone]
        parts.append(part.assign(**dict.fromkeys(blank, np.nan)))
    table = pd.concat(parts, ignore_index=True) if parts else as_table((), "")
    table.attrs = {"capped": capped, "effect": f"effect of {model.treatment} on {model.outcome}"}
    return table


def _multiplied(problem: Problem) -> bool:
    """Whether the features hold products of two proxies."""
    sides = (problem.z, problem.x)
    return any(f.raw.shape[1] > 1 + sum(p.stop - p.start for p in f.places.values()) for f in sides)


def _standing(model: CausalModel, split: Split) -> str:
    """Whether the graph allows the roles, or the edges that it would have to do without."""
    z, x = split
    found = hierarchy(model.model_copy(update={"treatment_proxies": z, "outcome_proxies": x}))
    if found.level != "none":
        return ALLOWED
    edges = " and ".join(f"{a} -> {b}" for a, b in found.costing)
    return f"contradicts {edges}" if edges else "contradicts the graph"


def as_table(found: Sequence[SplitEffect], contrast: str, graph: Sequence[str] = ()) -> pd.DataFrame:
    """Lay the answers of one contrast out as `role_splits` does; the first one has the model's roles.

    ``graph`` says what the graph has against each split; nothing by default.
    """
    n = len(found[0].z) + len(found[0].x) if found else 0
    rows = []
    for i, (item, standing) in enumerate(zip(found, graph or [ALLOWED] * len(found), strict=True)):
        kind = OWN if i == 0 else SHORTER if len(item.z) + len(item.x) < n else OTHER
        sides = [", ".join(item.z), ", ".join(item.x)]
        answer = [item.effect, item.se, item.correlation, item.p_value]
        rows.append([kind, *sides, contrast, *answer, standing])
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs = {"capped": False, "effect": "average effect"}
    return table


def moves_far(table: pd.DataFrame) -> bool:
    """Whether the answers spread over more than the 90% interval of the model's own answer.

    Without a standard error: whether they spread over more than the size of that answer.
    """
    for _, part in table.groupby("contrast", sort=False):
        own, spread = part.iloc[0], part["ate"].max() - part["ate"].min()
        width = 2 * WIDTH * own["se"] if np.isfinite(own["se"]) else abs(own["ate"]) + ROUNDING
        if spread > width:
            return True
    return False


def different(part: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the splits of one contrast that differ from the model's roles by more than sampling error.

    Bonferroni's correction over the splits; the two answers are taken as uncorrelated, which errs
    towards calling them alike.
    """
    own, n = part.iloc[0], max(len(part) - 1, 1)
    error = np.sqrt(part["se"] ** 2 + own["se"] ** 2)
    found: pd.Series[bool] = (part["ate"] - own["ate"]).abs() > NormalDist().inv_cdf(
        1 - LEVEL / 2 / n
    ) * error
    found.iloc[0] = False
    return found


def split_lines(table: pd.DataFrame) -> list[str]:
    """Say in sentences how far the splits move the answer."""
    out = []
    for contrast, part in table.groupby("contrast", sort=False):
        part = part[part["ate"].notna()]
        if len(part) < 2 or part.iloc[0]["kind"] != OWN:
            continue
        own, allowed = part.iloc[0], part[part["graph"] == ALLOWED]
        where = f" ({contrast})" if table["contrast"].nunique() > 1 else ""
        error = f", standard error {own['se']:.2g}" if np.isfinite(own["se"]) else ""
        said = f"the model's roles give {own['ate']:.3g}{error}."
        if len(allowed) > 1:
            others = f"Other roles of the proxies, or one left out, give average effects{where}"
            said = f"{others} {_span(allowed)}; {said}"
        else:
            said = f"The graph allows no other roles of the proxies{where}; {said}"
        n_different, n_weak = int(different(allowed).sum()), int((part["p"] >= LEVEL).sum())
        if n_different:
            said += f" {n_different} of {len(allowed) - 1} differ from it by more than sampling error."
        elif len(allowed) > 1 and moves_far(allowed):
            said += " That is more than its own uncertainty, though each difference could be sampling error."
        if len(allowed) < len(part):
            against = part[part["graph"] != ALLOWED]
            said += f" Roles that contradict the graph ({_against(against)}) give {_span(against)}."
        if n_weak:
            said += f" {n_weak} of {len(part)} rest on a direction that is noise in some arm."
        out.append(said)
    if out and table.attrs["capped"]:
        out.append(f"There are more than {MAX_SPLITS} splits: only those near the model's roles were made.")
    return out


def _span(part: pd.DataFrame) -> str:
    low, high = f"{part['ate'].min():.3g}", f"{part['ate'].max():.3g}"
    return low if low == high else f"from {low} to {high}"


def _against(part: pd.DataFrame) -> str:
    found = dict.fromkeys(str(said).removeprefix("contradicts ") for said in part["graph"])
    return "; ".join(said for said in found if said != "the graph") or "several edges"


def split_notes(table: pd.DataFrame) -> list[Note]:
    """Raise the status of answers that hang on roles of the proxies which the graph allows."""
    out = []
    for contrast, part in table.groupby("contrast", sort=False):
        part = part[part["ate"].notna() & (part["graph"] == ALLOWED)]
        if len(part) > 1 and part.iloc[0]["kind"] == OWN and (n := int(different(part).sum())):
            where, detail = f"ate, {contrast}", f"{n} of {len(part) - 1} splits, {_span(part)}"
            out.append(Note(Status.SPLITS_DISAGREE, where, detail))
    return out
