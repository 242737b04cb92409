"""One self-contained page that tells a fit: text in plain words, tables, figures, warnings, provenance."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pymc_mte.errors import ModelError, MTEError
from pymc_mte.ladder import Z_LIMIT
from pymc_mte.plainly import STANDING, STANDING_TARGETS, TINY, answers, certainty, in_words, number, question
from pymc_mte.plots.classes import plot_classes
from pymc_mte.plots.graph import plot_graph
from pymc_mte.plots.hierarchy import plot_hierarchy
from pymc_mte.plots.mixture import plot_effect_mixture
from pymc_mte.plots.plan import plot_plan
from pymc_mte.plots.predictive import plot_predictive, plot_prior
from pymc_mte.plots.proxies import plot_proxies
from pymc_mte.plots.splits import plot_role_splits
from pymc_mte.plots.units import plot_unit_effects
from pymc_mte.results import written_whole
from pymc_mte.sharing import STATEMENT, safe_note, safe_text
from pymc_mte.status import Status
from pymc_mte.summary import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pymc_mte.fit import Fit

HEADS = {
    "lower": "90% from",
    "upper": "to",
    "se": "std. error",
    "ess": "independent draws",
    "r_hat": "R-hat",
    "contraction": "learnt, 0 to 1",
    "prior_pull": "posterior − ml, SDs",
    "z": "moments − ml, z",
    "ml": "max. likelihood",
    "mean": "posterior mean",
    "spectral_se": "its error",
    "bridge_se": "its error ",
}
"""Column names in words; the others are words already."""

COMPARED = [
    "mean",
    "sd",
    "spectral",
    "spectral_se",
    "bridge",
    "bridge_se",
    "ml",
    "z",
    "prior_pull",
    "verdict",
]
CHECKED = ["check", "where", "value", "se", "p", "verdict"]

DIAGNOSIS = (
    "Learnt is the share of the prior's variance that the data removed. The diagnosis (power-scaling) says "
    "what moves an answer when its weight is changed a little: ok, the data alone; prior-data conflict, the "
    "prior too, so compare other priors; strong prior / weak likelihood, the prior alone; weak likelihood, "
    "neither."
)

LONG = 12
"""Tables with more rows are folded where a figure shows the same."""


@dataclass(kw_only=True)
class Section:
    """One part of the page; everything in it is text that the template escapes."""

    title: str
    lines: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    doubts: list[dict[str, str]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, str]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    texts: list[dict[str, str]] = field(default_factory=list)


def write_report(fit: "Fit", path: str | Path, *, share_safe: bool = False) -> Path:
    """Write a fit as one HTML file that needs nothing else and runs no script.

    Parameters
    ----------
    fit : Fit
        From `pymc_mte.fit`.
    path : str or Path
        File to write; an existing one is replaced, complete or not at all.
    share_safe : bool
        Leave out combinations of values that fewer than 5 rows have, and small numbers of rows in
        warnings; the page says so.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ModelError
        If the path names no file.
    DataError
        If the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if not isinstance(path, (str, Path)) or not Path(path).name:
        raise ModelError(f"report: the path of a file is wanted, got {path!r}")
    environment = Environment(
        loader=PackageLoader("pymc_mte"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
    )
    text = environment.get_template("report.html").render(
        title=fit.model.name,
        summary=fit.model.summary,
        statement=STATEMENT if share_safe else "",
        sections=_sections(fit, share_safe),
    )
    with written_whole(target := Path(path)) as part:
        part.write_text(text, encoding="utf-8")
    return target


def _sections(fit: "Fit", share_safe: bool) -> list[Section]:
    safe = safe_text if share_safe else str
    parts = [
        Section(title="In short", lines=[question(fit.model)], points=[*answers(fit), *certainty(fit)]),
        _learnable(fit, safe),
        _answered(fit, share_safe),
        _compared(fit),
        _fits(fit, share_safe),
        _doubted(fit, share_safe),
        _made(fit),
    ]
    return [part for part in parts if part is not None]


def _learnable(fit: "Fit", safe: Callable[[str], str]) -> Section:
    found, model = fit.identification, fit.model
    out = Section(title="What can be learnt", lines=[safe(in_words(line)) for line in found.lines()])
    if len(found.checks):
        out.tables.append(_table("Checks on the data", found.checks[CHECKED], safe))
        said = found.checks.loc[found.checks["verdict"].isin(["doubt", "fail"]), "advice"]
        if all(note.status is not Status.ASSUMPTION_REJECTED for note in found.notes):
            # doubts of single tests, which the number of tests explains
            said = said.str.removeprefix(Status.ASSUMPTION_REJECTED.value).str.strip()
        out.points += [safe(advice) for advice in said[said != ""].unique()]
    if found.splits is not None:
        out.tables.append(
            _table("Other roles of the proxies", found.splits, safe, folded=len(found.splits) > LONG)
        )
    if found.ranges is not None:
        out.tables.append(_table("Bounds on what stays open", found.ranges, safe))
    _draw(out, "The assumed causal graph. Orange edges cost the next level of answers.", plot_graph, found)
    if model.treatment is not None and model.interventions is None:
        _draw(out, "What the graph allows moments to answer.", plot_hierarchy, found)
    if model.treatment is None and model.interventions is None:
        _draw(out, "How moments take the mixture apart.", plot_plan, model)
    _draw(out, "Strength of the proxies in each arm, beside what noise would show.", plot_proxies, found)
    if found.splits is not None:
        _draw(out, "The average effect if the proxies had other roles.", plot_role_splits, found.splits)
    return out


def _answered(fit: "Fit", share_safe: bool) -> Section:
    summary = fit.summary()
    summary = summary[~summary.index.str.startswith("potential_outcome")]
    result = fit.result
    kind = "posterior" if fit.posterior is not None else f"moments, method {result.attrs['method']}"
    out = Section(title="Answers", tables=[_table(f"All answers ({kind})", _named(summary))])
    if "diagnosis" in summary:
        out.lines.append(DIAGNOSIS)
    if fit.comparison is not None:
        _draw(out, "Every answer by every method, 90% intervals.", fit.plot_effects)
    _draw(out, "The mixture of treatment effects: class sizes and effects.", plot_effect_mixture, result)
    _draw(out, "What the people of each class look like.", plot_classes, result)
    if not share_safe:  # its steps are as wide as combinations are frequent
        _draw(out, "Effect expected for single rows, given their classes.", plot_unit_effects, result)
    return out


def _compared(fit: "Fit") -> Section | None:
    if fit.comparison is None:
        said = fit.no_comparison
        return Section(title="Two methods compared", lines=[said]) if said else None
    table = fit.comparison[[c for c in COMPARED if c in fit.comparison]]
    table = table[~table.index.str.startswith("potential_outcome")]
    return Section(
        title="Two methods compared",
        lines=[
            "Moments and likelihood rest on different assumptions and use the same rows. z is their "
            "difference in standard errors of that difference. The pull of the prior is the posterior mean "
            "minus the best fit without a prior, in posterior SDs; it is no test. Single answers are said to "
            f"differ beyond {Z_LIMIT} standard errors, pairs of methods by their joint test."
        ],
        points=list(fit.comparison.attrs.get("says", [])),
        tables=[_table("Posterior beside moments", _named(table))],
    )


def _fits(fit: "Fit", share_safe: bool) -> Section | None:
    if fit.posterior is None or "posterior_predictive" not in fit.posterior:
        return None
    out = Section(
        title="Does the model fit?",
        lines=[
            "Data sets drawn from the fitted model should look like the data. About one point in ten lies "
            "outside its 90% bar by chance; several far outside speak against the graph or the number of "
            "classes. A good fit does not prove that the answers are right."
        ],
    )
    for plot, caption in (
        (plot_predictive, "Observed and predicted rows, combination by combination."),
        (
            plot_prior,
            "The same for the prior: what was expected before any data. The combinations are the most "
            "frequent ones, so points lie high; only those far beyond their bars speak against the prior.",
        ),
    ):
        _draw(out, caption, plot, fit.posterior, share_safe=share_safe)
    return out


def _doubted(fit: "Fit", share_safe: bool) -> Section:
    doubts = []
    for note in map(safe_note, fit.notes) if share_safe else fit.notes:
        head = note.status.name.replace("_", " ").lower()
        facts = " - ".join(part for part in (note.where, note.detail) if part)
        doubts.append({"head": head, "facts": facts, "advice": note.status.value})
    standing = STANDING if fit.model.interventions is None else STANDING_TARGETS
    return Section(title="What to doubt", doubts=doubts, points=list(standing))


def _made(fit: "Fit") -> Section:
    about = (fit.result if fit.moments is None else fit.moments).attrs
    moments = "none, see above"
    if fit.moments is not None:
        moments = f"method {about['method']}, {about['n_boot']} bootstrap replicates"
    pairs = [
        ("Rows", number(float(about["n"]))),
        ("Software", str(about["versions"])),
        ("Seed", "not recorded" if fit.random_seed is None else str(fit.random_seed)),
        ("Moments", moments),
    ]
    if fit.posterior is not None:
        sizes, attrs = fit.posterior["posterior"].sizes, fit.posterior.attrs
        said = f"{sizes['chain']} chains of {sizes['draw']} draws after {attrs.get('tune', '?')} of warm-up"
        pairs.append(("Posterior", f"sampler {attrs.get('sampler', '?')}, {said}"))
    body = str(about["model"])
    return Section(title="How this was made", pairs=pairs, texts=[{"title": "Model file", "body": body}])


def _draw(section: Section, caption: str, plot: Callable[..., "Figure"], *given: Any, **options: Any) -> None:
    """Add a figure to a section, if the result holds what it draws."""
    import matplotlib

    try:
        figure = plot(*given, **options)
    except MTEError:
        return  # the plot says by itself when a result holds nothing for it
    held = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pymc_mte"}):
        figure.savefig(held, format="svg", metadata={"Date": None})
    source = "data:image/svg+xml;base64," + base64.b64encode(held.getvalue()).decode("ascii")
    section.figures.append({"source": source, "caption": caption})


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Put the labels of the rows into words."""
    return table.set_axis([words(str(label)) for label in table.index]).rename_axis(None)


def _table(
    title: str, frame: pd.DataFrame, safe: Callable[[str], str] = str, *, folded: bool = False
) -> dict[str, Any]:
    """Text of every cell; numbers at three digits, nothing for what is missing."""
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names="")
    columns = [[_cell(str(name), value, safe) for value in frame[name]] for name in frame.columns]
    head = [
        {"shown": HEADS.get(str(name), str(name).replace("_", " ")), "text": any(c["text"] for c in column)}
        for name, column in zip(frame.columns, columns, strict=True)
    ]
    return {"title": title, "head": head, "rows": list(zip(*columns, strict=True)), "folded": folded}


def _cell(column: str, value: Any, safe: Callable[[str], str]) -> dict[str, Any]:
    if isinstance(value, (bool, np.bool_)):
        return {"shown": "yes" if value else "no", "text": False}
    if isinstance(value, (float, np.floating)):
        shown = number(float(value)) if np.isfinite(value) else ""
        return {"shown": f"< {TINY:g}" if column == "p" and value < TINY else shown, "text": False}
    return {"shown": safe(str(value)), "text": isinstance(value, str)}
