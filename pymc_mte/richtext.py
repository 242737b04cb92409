"""How a model shows itself in a notebook: a table of its variables, everything escaped."""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymc_mte.model import CausalModel

MAX_LEVELS = 6
"""Levels that are listed."""


def model_html(model: "CausalModel") -> str:
    """Describe a model as HTML: its question, and every variable with role, family, parents and levels."""
    classes = f"{model.classes} latent class{'es' * (model.classes > 1)}"
    asked = f"effect of {model.treatment} on {model.outcome}" if model.treatment else "no effect is asked for"
    lines = [model.summary] * bool(model.summary) + [f"{classes}; {asked}"]
    given = (*model.covariates, *model.strata)
    if given:
        lines.append(f"given {', '.join(given)} (conditioned on, not modelled)")
    head = "".join(f"<th>{name}</th>" for name in ("variable", "role", "family", "parents", "levels"))
    rows = "".join(f"<tr>{_row(model, name)}</tr>" for name in model.variables)
    said = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h3>{html.escape(model.name)}</h3>{said}{table}"


def _row(model: "CausalModel", name: str) -> str:
    var = model.variables[name]
    parents = [*(["latent class"] if var.latent and model.classes > 1 else []), *var.parents]
    parents += [f"{parent} (linear)" for parent in var.linear_parents]
    levels = [str(level) for level in var.labels] if var.discrete else []
    if len(levels) > MAX_LEVELS:
        levels = [*levels[: MAX_LEVELS - 1], f"... ({len(levels)})"]
    cells = (name, _role(model, name), var.family, ", ".join(parents), ", ".join(levels))
    return "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)


def _role(model: "CausalModel", name: str) -> str:
    roles = {model.treatment: "treatment", model.outcome: "outcome"}
    roles |= dict.fromkeys(model.treatment_proxies, "treatment proxy")
    roles |= dict.fromkeys(model.outcome_proxies, "outcome proxy")
    return roles.get(name, "")
