"""Linear parts in a model's description: covariates and linear parents, their columns and coefficients."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pymc_mte.errors import RefusedError
from pymc_mte.families import LINKS

if TYPE_CHECKING:
    from pymc_mte.model import CausalModel


TERM_AXIS = "_term"
"""Ending of the axis of a variable's coefficients, where it has linear parents."""


def column_names(covariates: tuple[str, ...], levels: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Names of covariates as numbers: text gives an indicator of each level but the first."""
    out: list[str] = []
    for name in covariates:
        out += [f"{name} = {level}" for level in levels[name][1:]] if name in levels else [name]
    return tuple(out)


def takes_covariates(model: "CausalModel", name: str) -> bool:
    """Whether covariates shift a variable."""
    return bool(model.covariates) and name in (model.treatment, model.outcome)


def term_names(model: "CausalModel", name: str) -> tuple[str, ...]:
    """Names of the columns that shift a variable: covariates, then linear parents."""
    out = list(model.covariate_columns) if takes_covariates(model, name) else []
    for parent in model.variables[name].linear_parents:
        var = model.variables[parent]
        out += [f"{parent} = {level}" for level in var.labels[1:]] if var.discrete else [parent]
    return tuple(out)


def coefficient_axes(model: "CausalModel") -> dict[str, tuple[str, ...]]:
    """Axes of the coefficients by result name: of class membership and of variables with a linear part."""
    out: dict[str, tuple[str, ...]] = {}
    if model.covariates and model.classes > 1:
        out["coef_class"] = ("class", "covariate")
    for name in model.regressed:
        by_level = model.variables[name].family in ("categorical", "ordinal")
        axis = f"{name}{TERM_AXIS}" if model.variables[name].linear_parents else "covariate"
        out[f"coef_{name}"] = (name, axis) if by_level else (axis,)
    return out


def why_unbuilt(model: "CausalModel") -> str | None:
    """Sentence that says why no posterior can be built for such a model; None if one can."""
    if model.strata:
        return "The posterior takes no strata; list them as covariates, whose levels then become indicators."
    for name in model.regressed:
        if model.variables[name].family not in LINKS:
            return (
                f"Covariates shift {', '.join(LINKS)} variables only, and {name!r} is "
                f"{model.variables[name].family}."
            )
    return None


def with_linear_parents(model: "CausalModel") -> list[str]:
    """Names of the variables that have linear parents."""
    return [name for name, var in model.variables.items() if var.linear_parents]


def free_coefficients(model: "CausalModel", name: str) -> int:
    """Count the free coefficients of a variable: levels beyond the first have their own."""
    *level, axis = model.coefficient_dims[f"coef_{name}"]
    return model.size(axis) * ((model.size(level[0]) - 1) if level else 1)


def uncentred(model: "CausalModel") -> tuple[str, ...]:
    """Numbers that are linear parents and whose centre the data are still to give."""
    found = {parent: model.variables[parent] for parent, _ in model.linear_edges}
    return tuple(name for name, var in found.items() if not var.discrete and var.centre is None)


def without_linear(model: "CausalModel") -> "CausalModel":
    """Return a model without its linear parents; a stated truth does not carry over."""
    if not model.linear_edges:
        return model
    plain = {name: var.model_copy(update={"linear_parents": ()}) for name, var in model.variables.items()}
    return model.with_fields(variables=plain, truth=None)


def refuse_linear(model: "CausalModel", what: str) -> None:
    """Refuse a model with linear parents where they are not taken."""
    for parent, child in model.linear_edges:
        raise RefusedError(
            f"{what} takes no linear parents yet, and {parent!r} is one of {child!r}; list it in parents if "
            "it has levels, else read the effects off the result of `sample`"
        )
