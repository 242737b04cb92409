"""What the commands print: tables and panels for a terminal."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from pymc_mte.identify.identification import Identification
    from pymc_mte.model import CausalModel
    from pymc_mte.status import Note

console = Console(soft_wrap=False)

TINY = 1e-16
"""A p-value below this is noise of the arithmetic."""


def print_panel(text: str, title: str) -> None:
    """Print text in a frame."""
    console.print(Panel(escape(text), title=title, title_align="left"))


def print_learnable(found: "Identification") -> None:
    """Print an identification report and its checks."""
    from pymc_mte.plainly import in_words

    print_panel("\n".join(in_words(line) for line in found.lines()), "1. What can be learnt")
    if len(found.checks):
        console.print(checks_table(found.checks))


def print_moments(model: "CausalModel", moments: "xr.DataTree") -> None:
    """Print a moment estimate and whether the classes differ in their effects."""
    from pymc_mte.plainly import equal_effects
    from pymc_mte.summary import moment_summary

    by_class = model.why_no_posterior is None or "effect" in moments["estimate"]
    if model.classes > 1 and by_class and model.treatment is not None:
        console.print("Classes are numbered from the lowest effect: class 0 has the lowest.", markup=False)
    title = f"2. Moment estimate, method {moments.attrs['method']}"
    console.print(answers_table(moment_summary(moments), title, absent_word(moments)))
    for line in equal_effects(moments):
        console.print(line, markup=False)


def shown_number(value: object) -> str:
    """Return a number as text, three digits, thousands with commas; text is escaped."""
    if not isinstance(value, float):
        return escape(str(value))
    return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def with_error(value: float, error: float) -> str:
    """Return a value with its standard error in parentheses."""
    return "" if value != value else f"{shown_number(value)} ({float(f'{error:.2g}'):,.10g})"


def laid_out(title: str, columns: list[str], rows: "list[list[object]]", *, wrap: bool = False) -> Table:
    """Lay rows out as a table: first column left, the others right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0 and not wrap)
    for row in rows:
        table.add_row(*(shown_number(value) for value in row))
    return table


def checks_table(checks: "pd.DataFrame") -> Table:
    """Lay the checks on the data out."""
    rows: list[list[object]] = []
    for check, where, *rest in checks[["check", "where", "value", "se", "p", "verdict"]].values.tolist():
        value, se, p, verdict = rest
        short = f"<{TINY:g}" if p < TINY else float(f"{p:.2g}")
        rows.append([f"{check}, {where}", value, se, short, verdict])
    return laid_out("Checks on the data", ["", "value", "std. error", "p", "verdict"], rows, wrap=True)


def without_means(table: "pd.DataFrame") -> "pd.DataFrame":
    """Leave out the long list of means."""
    return table[~table.index.str.startswith("potential_outcome")]


def absent_word(moments: "xr.DataTree") -> str:
    """Return the word for an answer that is not there: refused for positivity, or just none."""
    from pymc_mte.status import Status, load_notes

    found = [note.status for note in load_notes(str(moments.attrs["notes"]))]
    return "refused" if Status.POSITIVITY in found else "no answer"


def answers_table(summary: "pd.DataFrame", title: str, absent: str = "no answer") -> Table:
    """Lay answers out; what is not identified says so instead of looking like an estimate."""
    from pymc_mte.summary import words

    names = {"lower": "90% from", "upper": "to", "se": "std. error", "ess": "draws*"}
    names |= {"at_least": "at least", "at_most": "at most"}
    shown = without_means(summary)
    known = shown["identified"].tolist() if "identified" in shown else [True] * len(shown)
    unshown = ["identified", "contraction", "diagnosis"]  # too wide for a terminal; notes say what matters
    shown = shown.drop(columns=unshown, errors="ignore").rename(columns=names)
    rows: list[list[object]] = []
    for label, values, good in zip(shown.index, shown.values.tolist(), known, strict=True):
        first = absent if values[0] != values[0] else values[0]
        rows.append([words(label), first if good else f"{shown_number(first)} prior-driven", *values[1:]])
    return laid_out(title, ["", *shown.columns], rows)


def print_comparison(comparison: "pd.DataFrame", summary: "pd.DataFrame") -> None:
    """Print both answers, the test of their difference, and how far the prior moves the posterior."""
    from pymc_mte.summary import PRIOR_DRIVEN, words

    shown = without_means(comparison)
    answers: list[list[object]] = []
    tests: list[list[object]] = []
    for name in shown.index:
        label = str(name)
        row: dict[str, Any] = {str(column): shown.at[label, column] for column in shown.columns}
        pairs = [("mean", "sd"), ("spectral", "spectral_se"), ("bridge", "bridge_se")]
        cells = [with_error(row[a], row[b]) for a, b in pairs]
        if not row.get("identified", summary["identified"].get(label, True)):
            cells[0] += " prior-driven"
        answers.append([words(label), *cells])
        tests.append([words(label), row["ml"], row["z"], row["prior_pull"], row["verdict"]])
    title = "4. Posterior against moments (standard errors in parentheses)"
    console.print(laid_out(title, ["", "posterior", "spectral", "bridge"], answers))
    title = "5. Test of the difference, and the pull of the prior"
    console.print(laid_out(title, ["", "ml", "moments - ml, z", "posterior - ml, SDs", "verdict"], tests))
    console.print(
        "ml: maximum likelihood of the same graph, without a prior. z: the spectral estimate (else the "
        "bridge) minus ml, in standard errors of that difference.",
        markup=False,
    )
    if not all(summary["identified"]):
        console.print(
            f"prior-driven: {PRIOR_DRIVEN}; see 1.",
            markup=False,
        )
    for line in comparison.attrs.get("says", []):
        console.print(line, markup=False)
    _pulled(shown)


def _pulled(comparison: "pd.DataFrame") -> None:
    """Name the answers that the prior moves by more than one posterior SD."""
    from pymc_mte.summary import words

    moved = [words(str(n)) for n in comparison.index[comparison["prior_pull"].abs() > 1]]
    if moved:
        names = "; ".join(moved)
        console.print(f"The prior pulls these by more than one posterior SD: {names}.", markup=False)


def print_published(model: "CausalModel", summary: "pd.DataFrame") -> None:
    """Print answers from elsewhere beside ours."""
    for name, answer in model.published.items():
        ours = float(summary[summary.columns[0]].get(name, float("nan")))
        mine = "no answer" if ours != ours else shown_number(ours)
        if "identified" in summary and not summary["identified"].get(name, True):
            mine += " (prior-driven)"
        spread = f", interval {answer.interval[0]} to {answer.interval[1]}" if answer.interval else ""
        spread += f", standard error {answer.se:g}" if answer.se is not None else ""
        console.print(
            f"Published {name}: {answer.value:g}{spread} ({answer.source}). Ours: {mine}.",
            markup=False,
        )


def print_doubts(notes: "list[Note]", interventions: bool) -> None:
    """Print every warning, and what no data can confirm."""
    from pymc_mte.plainly import STANDING, STANDING_TARGETS

    standing = STANDING_TARGETS if interventions else STANDING
    lines = [f"- {note}" for note in notes] + [f"- {line}" for line in standing]
    print_panel("\n".join(lines), "What to doubt")
