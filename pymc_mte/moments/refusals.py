"""What the data refuse, and answers out of range: NaN and notes. NumPy only."""

import numpy as np
from numpy.typing import NDArray

from pymc_mte.model import CausalModel
from pymc_mte.moments.bootstrap import robust_se
from pymc_mte.moments.methods import Values
from pymc_mte.moments.positivity import PER_ARM, ArmSupport, empty_arms, failing_arms, refused_mask
from pymc_mte.moments.problem import Problem
from pymc_mte.results import dims_of
from pymc_mte.status import Note, Status

Array = NDArray[np.float64]

ROWS_PER_COLUMN = 5
"""An arm with fewer rows per covariate and proxy feature is said to have few."""


def refuse_unsupported(
    model: CausalModel, support: tuple[ArmSupport, ...], groups: list[Values]
) -> list[Note]:
    """Blank whatever extrapolates an arm to a class that (almost) never gets it."""
    failing, empty = failing_arms(model, support), empty_arms(support)
    notes: list[Note] = []
    for arm in support:
        label = f"{model.treatment} = {model.arms[arm.arm]}"
        if arm.arm in failing and arm.share > 0 and not arm.holds:
            detail = f"only {arm.lowest:.2%} of the rows with {arm.place} have it"
            notes.append(Note(Status.POSITIVITY, label, detail))
        elif arm.share == 0 and arm.stratum:
            notes.append(Note(Status.EMPTY_ARM_IN_STRATUM, f"{label}, {arm.stratum}", "0 rows"))
    if failing:
        for group in groups:
            for name in group:
                group[name] = _blanked(model, name, group[name], failing, empty)
    return notes


def _blanked(model: CausalModel, name: str, value: Array, failing: set[int], empty: frozenset[int]) -> Array:
    """Put NaN where `refused_mask` says so, along the axis that the mask belongs to."""
    mask, dims = refused_mask(model, name, failing, empty), dims_of(model)[name]
    axis = "treatment" if name in PER_ARM else "contrast"
    if mask.ndim and axis in dims:
        after = len(dims) - dims.index(axis) - 1
        mask = mask.reshape(-1, *(1,) * after)
    elif mask.ndim:
        mask = np.asarray(mask.any())
    return np.where(mask, np.nan, value)


def check_ranges(problem: Problem, values: Values, draws: Values) -> list[Note]:
    """Say which weights and means leave their range, and which classes are tied in their effects."""
    notes = []
    if "class_weight" in values:
        weight = values["class_weight"]
        if (weight < -1e-9).any() or (weight > 1 + 1e-9).any():
            notes.append(Note(Status.WEIGHT_OUTSIDE, "class_weight", f"{np.round(weight, 3).tolist()}"))
    if "potential_outcome" in values and not problem.model.censored:
        low, high = problem.outcome.min(), problem.outcome.max()
        mean = values["potential_outcome"]
        slack = 1e-9 * max(abs(low), abs(high), 1.0)
        if (mean < low - slack).any() or (mean > high + slack).any():
            detail = f"{np.round(mean, 3).tolist()} against [{low:.4g}, {high:.4g}]"
            notes.append(Note(Status.EFFECT_OUTSIDE, "potential_outcome", detail))
    if "effect" in draws and problem.model.classes > 1:
        effect = draws["effect"].reshape(len(draws["effect"]), problem.model.classes, -1)[:, :, 0]
        point = np.asarray(values["effect"]).reshape(problem.model.classes, -1)[:, 0]
        gaps, se = np.diff(point), robust_se(np.diff(effect, axis=1))
        if np.isfinite(gaps).all() and (gaps < 2 * se).any():
            pair = int(np.argmin(gaps / se))
            detail = f"gap {gaps[pair]:.3g}, standard error {se[pair]:.3g}"
            notes.append(Note(Status.CLASSES_TIED, f"classes {pair} and {pair + 1}", detail))
    return notes


def too_few_rows(problem: Problem, part: str = "") -> tuple[list[Note], bool]:
    """Say which arms have few rows for their covariates and features, and whether some have too few."""
    if problem.covariates is None or problem.sampling.exact:
        return [], False
    model = problem.model
    columns = problem.n_given + problem.z.values.shape[1] + problem.x.values.shape[1] - 2
    sizes = problem.arm_counts(problem.counts[None])[0]
    notes = []
    for arm, size in zip(problem.arms, sizes, strict=True):
        if size < ROWS_PER_COLUMN * columns:
            detail = f"{size:.0f} rows for {columns} columns"
            label = f"{model.treatment} = {model.arms[arm]}"
            notes.append(Note(Status.FEW_ROWS, label, detail).within(part))
    return notes, bool((sizes <= columns).any())
