"""Covariates in the description of a model: their columns, their coefficients, what they can shift."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pymc_mte.families import LINKS

if TYPE_CHECKING:
    from pymc_mte.model import CausalModel


def column_names(covariates: tuple[str, ...], levels: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Names of covariates as numbers: text gives an indicator of each level but the first."""
    out: list[str] = []
    for name in covariates:
        out += [f"{name} = {level}" for level in levels[name][1:]] if name in levels else [name]
    return tuple(out)


def coefficient_axes(model: "CausalModel") -> dict[str, tuple[str, ...]]:
    """Axes of the coefficients by result name: of class membership, treatment and outcome."""
    if not model.covariates:
        return {}
    out: dict[str, tuple[str, ...]] = {}
    if model.classes > 1:
        out["coef_class"] = ("class", "covariate")
    for name in model.regressed:
        by_level = model.variables[name].family in ("categorical", "ordinal")
        out[f"coef_{name}"] = (name, "covariate") if by_level else ("covariate",)
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
