"""A result in plain sentences: the question, the answers, how sure they are."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.model import CausalModel
from pymc_mte.status import Status, load_notes
from pymc_mte.summary import PRIOR_DRIVEN, words

if TYPE_CHECKING:
    from pymc_mte.fit import Fit

STANDING = (
    "The classes, the graph and the number of classes are assumptions: no data can confirm all of them.",
    "A class effect is an average within a hidden group, not the effect on one person.",
)
STANDING_TARGETS = ("The network and the possible targets are assumptions: no data can confirm all of them.",)

NO_MOMENTS = (
    "No moment method takes this model, so the posterior stands alone: nothing that does without the "
    "likelihood speaks for or against it."
)

OF_MOMENTS = "The likelihood was not judged: covariates are conditioned on, not modelled."
"""How `identify` begins to say, for models with covariates, that the rest is about moment methods."""

APART = (
    "So what can and cannot be answered is said of moments here. A posterior is judged apart, by the graph "
    "without its covariates and by what the data refuse; its own table marks what it does not answer."
)

PLURALS = {
    "class_weight": "class weights",
    "effect": "class effects",
    "potential_outcome": "class means",
    "arm_mean": "mean under each arm",
}
"""Names of whole functionals where no single class is meant."""

EQUAL_LEVEL = 0.05
"""Below this p-value the classes are said to differ in their effects."""

UNSURE_CLASSES = (Status.WEAK_PROXIES, Status.AMBIGUOUS_CLASSES)
"""Where these are noted, resamples change what the classes are, and class effects test nothing."""

RARE = 0.01
"""Targets with a smaller share are counted, not listed."""

TINY = 1e-16
"""A p-value below this is noise of the arithmetic."""


def number(value: float) -> str:
    """Write a number as a reader wants it: three digits that matter, thousands with commas."""
    if not np.isfinite(value):
        return "no answer"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def posterior_apart(line: str) -> str:
    """Say beside a line about the moment methods alone that a posterior is judged apart."""
    return f"{line} {APART}" if line.startswith(OF_MOMENTS) else line


def in_words(line: str) -> str:
    """Put a line of the identification report into words, the names of functionals included."""
    line = posterior_apart(line)
    head, colon, names = line.partition(": ")
    if head not in ("Can be answered", "Cannot be answered"):
        return line
    said = []
    for entry in names.removesuffix(".").split(", "):
        name, space, more = entry.partition(" (")
        said.append(PLURALS.get(name, words(name)) + space + more)
    return f"{head}{colon}{', '.join(said)}."


def question(model: CausalModel) -> str:
    """Say what is asked of the data."""
    hidden = f"{model.classes} hidden class{'es' * (model.classes > 1)}"
    if model.interventions is not None:
        return "Which variables were forced to which values, and in what share of the rows?"
    if model.treatment is None:
        return f"How are {', '.join(model.variables)} distributed in {hidden}?"
    if model.classes == 1:
        return f"What does {model.treatment} do to {model.outcome}, if nothing hidden confounds them?"
    return (
        f"What does {model.treatment} do to {model.outcome}, on average and in each of {hidden} of people, "
        "when the class is what confounds them?"
    )


def answers(fit: "Fit") -> list[str]:
    """Say the averages first, then every class, each with its 90% interval."""
    table = fit.summary()
    model = fit.model
    out = []
    for name in table.index:
        kind = name.partition("[")[0]
        if kind in ("ate", "att", "effect_sd"):
            out.append(f"{_capital(words(name))}: {_answer(table.loc[name])}.")
    if model.interventions is not None:
        return out + _shares(table)
    for k in range(model.classes):
        weight = f"class_weight[class {k}]"
        if weight not in table.index:
            continue
        said = f"Class {k}: {_answer(table.loc[weight], share)} of all"
        effects = [n for n in table.index if n.startswith((f"effect[class {k}]", f"effect[class {k},"))]
        inside = [(n.partition(", contrast ")[2].removesuffix("]"), table.loc[n]) for n in effects]
        said += "".join(f"; effect{f' of {c}' if c else ''} {_answer(row)}" for c, row in inside)
        out.append(f"{said}.")
    return [*out, *_published(model, table)]


def _shares(table: pd.DataFrame) -> list[str]:
    """Share of every target that occurs, the largest first; how many more are hardly there."""
    table = table[table.index.str.startswith("target_weight[")]
    value = table.iloc[:, 0]
    shown = value[value >= RARE].sort_values(ascending=False).index
    out = [f"Forced {_target(str(name))}: {_answer(table.loc[name], share)} of the rows." for name in shown]
    rest = len(table) - len(shown)
    return [*out, f"{rest} more candidates have less than {RARE:.0%} each."] if rest else out


def _target(label: str) -> str:
    inside = label.partition("[")[2].removesuffix("]")
    return "nothing" if inside == "{}" else inside


def certainty(fit: "Fit") -> list[str]:
    """Say what speaks for and against the answers: the other method, the prior, the sampler, the rows."""
    out = _agreement(fit.comparison)
    out += [f"{NO_MOMENTS} {fit.no_moments}"] if fit.moments is None else equal_effects(fit.moments)
    table = fit.summary()
    if "identified" in table and not table["identified"].all():
        lost = ", ".join(words(str(n)) for n in _listed(table.index[~table["identified"].astype(bool)]))
        out.append(f"Not identified: {lost}. There {PRIOR_DRIVEN}.")
    if weak := table.attrs.get("weakly_identified"):
        out.append(f"Weakly identified: {weak}.")
    if "r_hat" in table and table["r_hat"].notna().any():
        worst, fewest = table["r_hat"].max(), table["ess"].min()
        bad = {Status.NOT_MIXED, Status.CHAINS_APART, Status.LABEL_SWITCHING, Status.DIVERGENCES}
        trouble = any(note.status in bad for note in fit.notes)
        ends = "what went wrong is said below" if trouble else "no trouble was met"
        out.append(
            f"The sampler's chains: largest R-hat {worst:.3f} (1 is best), at least {fewest:.0f} independent "
            f"draws for every answer; {ends}."
        )
    out.append(
        f"{len(fit.notes)} warning{'s' * (len(fit.notes) != 1)}, each with advice, under What to doubt."
    )
    return out


def _agreement(table: pd.DataFrame | None) -> list[str]:
    if table is None or "verdict" not in table:
        return []
    verdict = table["verdict"].astype(str)
    same = int(verdict.str.startswith("agree").sum())
    apart = [words(str(n)) for n in table.index[verdict.str.startswith("differ")]]
    if not same and not apart:
        return ["The two methods could not be tested against each other here."]
    if apart:
        return [
            f"Moments and likelihood differ in {', '.join(_listed(apart))} by more than chance, so an "
            f"assumption behind one of them fails; in {same} answers they agree."
        ]
    return [
        f"Moments agree with the likelihood, which they do not use, in all {same} answers that were tested. "
        "That does not prove the graph: both may rest on the same wrong edge."
    ]


def equal_effects(moments: xr.DataTree) -> list[str]:
    """Say whether the classes differ in their effects; nothing where that was not tested."""
    p = moments.attrs.get("equal_effects_p")
    if p is None or p != p:
        return []
    shown = f"< {TINY:g}" if p < TINY else f"= {p:.2g}"
    found = {note.status for note in load_notes(str(moments.attrs.get("notes", "[]")))}
    if unsure := [status for status in UNSURE_CLASSES if status in found]:
        why = " and ".join(status.name.replace("_", " ").lower() for status in unsure)
        return [f"Test of equal effects: p {shown}, not to be read here, for the classes are unsure ({why})."]
    groups = int(moments["estimate"].to_dataset()["causal_groups"].max()) + 1
    merged = f"{groups} causal group{'s' * (groups > 1)}"
    said = "differ in their effects" if p < EQUAL_LEVEL else "may all have the same effect"
    return [f"Test of equal effects: p {shown}, so the classes {said}; {merged}."]


def _published(model: CausalModel, table: pd.DataFrame) -> list[str]:
    out = []
    for name, answer in model.published.items():
        spread = f", interval {answer.interval[0]:g} to {answer.interval[1]:g}" if answer.interval else ""
        spread += f", standard error {answer.se:g}" if answer.se is not None else ""
        out.append(f"Published {words(name)}: {answer.value:g}{spread} ({answer.source}).")
    return out


def share(value: float) -> str:
    """Write a share as a percentage."""
    return f"{value:.0%}" if np.isfinite(value) else "no answer"


def _answer(row: Any, shown: Callable[[float], str] = number) -> str:
    """Value with its interval; without an answer, that."""
    value = float(row.iloc[0])
    if not np.isfinite(value):
        return "no answer (refused, or not reached by this method)"
    said = shown(value)
    if np.isfinite(row["lower"]) and np.isfinite(row["upper"]):
        said += f" (90% interval {shown(float(row['lower']))} to {shown(float(row['upper']))})"
    return said if bool(row.get("identified", True)) else f"{said}, prior-driven"


def _listed(names: Any, most: int = 6) -> list[str]:
    listed = [str(n) for n in names]
    return listed if len(listed) <= most else [*listed[:most], f"{len(listed) - most} more"]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
