"""The command line: the library, thinly. Heavy imports happen inside the commands."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from pymc_mte.fit import Fit
    from pymc_mte.identify.identification import Identification
    from pymc_mte.model import CausalModel
    from pymc_mte.status import Note

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Mixtures of treatment effects with a hidden class: what can be learnt, moments, posterior.",
)
console = Console(soft_wrap=False)

EQUAL_LEVEL = 0.05
"""Below this p-value the classes are said to differ in their effects."""

TINY = 1e-16
"""A p-value below this is noise of the arithmetic."""

PLURALS = {
    "class_weight": "class weights",
    "effect": "class effects",
    "potential_outcome": "class means",
    "arm_mean": "mean under each arm",
}
"""Names of whole functionals where no single class is meant."""

TUNE = 1_000
"""Warm-up draws: a first reader is better served by a slower, settled sampler."""

ModelArgument = Annotated[str, typer.Argument(help="Model file, or gallery:NAME.")]


@app.command()
def run(
    model: ModelArgument,
    data: Annotated[
        Path | None, typer.Option(help="CSV or Parquet file; the model's own by default.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Mixture of interventions: file with rows of the untouched network.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; results/NAME by default.")] = None,
    draws: Annotated[int, typer.Option(min=4, help="Kept draws per chain.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Identify, estimate, sample and compare; write the results into a folder."""
    from pymc_mte.data import resolve
    from pymc_mte.modelfile import load_model

    described = load_model(model)
    folder = out if out is not None else Path("results") / described.name
    console.rule(f"[bold]{described.name}")
    console.print(described.summary, markup=False)
    with console.status("Reading the data and checking what can be learnt"):
        from pymc_mte.identify.identification import identify

        resolved, table = resolve(described, data)
        _make_folder(folder)
        found = identify(resolved, table, base=base, rng=seed)
    lines = escape("\n".join(_in_words(line) for line in found.lines()))
    console.print(Panel(lines, title="1. What can be learnt", title_align="left"))
    if len(found.checks):
        console.print(_checks(found.checks))
    with console.status("Estimating by moments"):
        from pymc_mte.moments.estimate import estimate
        from pymc_mte.summary import moment_summary

        moments = estimate(resolved, table, base=base, rng=seed)
    by_class = resolved.why_no_posterior is None or "effect" in moments["estimate"]
    if resolved.classes > 1 and by_class and resolved.treatment is not None:
        console.print("Classes are numbered from the lowest effect: class 0 has the lowest.", markup=False)
    title = f"2. Moment estimate, method {moments.attrs['method']}"
    console.print(_answers(moment_summary(moments), title, _absent(moments)))
    _same_effects(moments)
    _finish(resolved, table, base, moments, found, folder, draws, seed)


def _finish(
    model: "CausalModel",
    table: "xr.Dataset",
    base: Path | None,
    moments: "xr.DataTree",
    found: "Identification",
    folder: Path,
    draws: int,
    seed: int,
) -> None:
    """Sample and compare where the model allows it; write the files; print what to doubt."""
    from pymc_mte.fit import finish

    if model.why_no_posterior is not None:
        console.print(Panel(escape(model.why_no_posterior), title="3. No posterior", title_align="left"))
    else:
        console.print(
            "Compiling the posterior (about a minute the first time, seconds later), then sampling ..."
        )
    fitted = finish(
        model,
        table,
        moments,
        found,
        base=base,
        draws=draws,
        tune=TUNE,
        random_seed=seed,
        progressbar=console.is_terminal,
    )
    summary = fitted.summary()
    if fitted.posterior is not None:
        console.print(_answers(summary, "3. Posterior (draws*: how many independent ones they are worth)"))
    if fitted.comparison is not None:
        _compared(fitted.comparison, summary)
    _published(model, summary)
    _doubts(fitted.notes, model.interventions is not None)
    files = _write(fitted, summary, folder)
    console.print("Written: " + ", ".join(str(file) for file in files), markup=False)


def _make_folder(folder: Path) -> None:
    """Create the folder of the results and write to it once, before anything is computed."""
    from tempfile import TemporaryFile

    from pymc_mte.errors import RefusedError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as err:
        reason = f"--out {folder}: this folder cannot be created or written ({err.strerror})"
        raise RefusedError(f"{reason}; name another one") from None


def _write(fitted: "Fit", summary: "pd.DataFrame", folder: Path) -> list[Path]:
    files = [fitted.save(folder / "result.nc"), folder / "summary.csv"]
    summary.to_csv(folder / "summary.csv")
    if fitted.comparison is not None:
        fitted.comparison.to_csv(folder / "comparison.csv")
        fitted.plot_effects().savefig(folder / "comparison.png", dpi=130)
        files += [folder / "comparison.csv", folder / "comparison.png"]
    return files


@app.command()
def simulate(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="CSV or Parquet file to write.")],
    n: Annotated[int, typer.Option("--rows", min=1, help="Number of rows.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    latent: Annotated[bool, typer.Option(help="Keep the hidden class as a column.")] = False,
) -> None:
    """Draw rows from a model's stated truth."""
    from pymc_mte.errors import ModelError
    from pymc_mte.modelfile import load_model
    from pymc_mte.simulate import simulate as draw

    described = load_model(model)
    if out.suffix not in (".csv", ".parquet"):
        raise ModelError(f"--out {out}: end the name with .csv or .parquet")
    frame = draw(described, n, rng=seed).to_dataframe()
    if not latent:
        frame = frame.drop(columns="latent_class")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        frame.to_csv(out, index=False)
    else:
        frame.to_parquet(out, index=False)
    console.print(f"{n} rows of {', '.join(map(str, frame.columns))} written to {out}")


@app.command()
def models() -> None:
    """List the gallery."""
    from pymc_mte.modelfile import gallery_names, load_model

    table = Table(title="Gallery: use as gallery:NAME", title_justify="left")
    for column in ("name", "classes", "summary"):
        table.add_column(column)
    for name in gallery_names():
        found = load_model(f"gallery:{name}")
        table.add_row(name, str(found.classes), escape(found.summary))
    console.print(table)


def _number(value: object) -> str:
    if not isinstance(value, float):
        return escape(str(value))
    return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _with_error(value: float, error: float) -> str:
    return "" if value != value else f"{_number(value)} ({float(f'{error:.2g}'):,.10g})"


def _table(title: str, columns: list[str], rows: "list[list[object]]", *, wrap: bool = False) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0 and not wrap)
    for row in rows:
        table.add_row(*(_number(value) for value in row))
    return table


def _checks(checks: "pd.DataFrame") -> Table:
    rows: list[list[object]] = []
    for check, where, *rest in checks[["check", "where", "value", "se", "p", "verdict"]].values.tolist():
        value, se, p, verdict = rest
        short = f"<{TINY:g}" if p < TINY else float(f"{p:.2g}")
        rows.append([f"{check}, {where}", value, se, short, verdict])
    return _table("Checks on the data", ["", "value", "std. error", "p", "verdict"], rows, wrap=True)


def _in_words(line: str) -> str:
    """Put the names of functionals in a line of the report into words."""
    from pymc_mte.summary import words

    head, colon, names = line.partition(": ")
    if head not in ("Can be answered", "Cannot be answered"):
        return line
    said = [PLURALS.get(name, words(name)) for name in names.removesuffix(".").split(", ")]
    return f"{head}{colon}{', '.join(said)}."


def _shown(table: "pd.DataFrame") -> "pd.DataFrame":
    """Leave out the long list of means."""
    return table[~table.index.str.startswith("potential_outcome")]


def _absent(moments: "xr.DataTree") -> str:
    """Return the word for an answer that is not there: refused for positivity, or just none."""
    from pymc_mte.status import Status, load_notes

    found = [note.status for note in load_notes(str(moments.attrs["notes"]))]
    return "refused" if Status.POSITIVITY in found else "no answer"


def _answers(summary: "pd.DataFrame", title: str, absent: str = "no answer") -> Table:
    """Lay answers out; what is not identified says so instead of looking like an estimate."""
    from pymc_mte.summary import words

    names = {"lower": "90% from", "upper": "to", "se": "std. error", "ess": "draws*"}
    names |= {"at_least": "at least", "at_most": "at most"}
    shown = _shown(summary)
    known = shown["identified"].tolist() if "identified" in shown else [True] * len(shown)
    unshown = ["identified", "contraction", "diagnosis"]  # too wide for a terminal; notes say what matters
    shown = shown.drop(columns=unshown, errors="ignore").rename(columns=names)
    rows: list[list[object]] = []
    for label, values, good in zip(shown.index, shown.values.tolist(), known, strict=True):
        first = absent if values[0] != values[0] else values[0]
        rows.append([words(label), first if good else f"{_number(first)} prior-driven", *values[1:]])
    return _table(title, ["", *shown.columns], rows)


def _compared(comparison: "pd.DataFrame", summary: "pd.DataFrame") -> None:
    """Print both answers, the test of their difference, and how far the prior moves the posterior."""
    from pymc_mte.summary import PRIOR_DRIVEN, words

    shown = _shown(comparison)
    answers: list[list[object]] = []
    tests: list[list[object]] = []
    for name in shown.index:
        label = str(name)
        row: dict[str, Any] = {str(column): shown.at[label, column] for column in shown.columns}
        pairs = [("mean", "sd"), ("spectral", "spectral_se"), ("bridge", "bridge_se")]
        cells = [_with_error(row[a], row[b]) for a, b in pairs]
        if not row.get("identified", summary["identified"].get(label, True)):
            cells[0] += " prior-driven"
        answers.append([words(label), *cells])
        tests.append([words(label), row["ml"], row["z"], row["prior_pull"], row["verdict"]])
    title = "4. Posterior against moments (standard errors in parentheses)"
    console.print(_table(title, ["", "posterior", "spectral", "bridge"], answers))
    title = "5. Test of the difference, and the pull of the prior"
    console.print(_table(title, ["", "ml", "moments - ml, z", "posterior - ml, SDs", "verdict"], tests))
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
    _pulled(shown)


def _pulled(comparison: "pd.DataFrame") -> None:
    """Name the answers that the prior moves by more than one posterior SD."""
    from pymc_mte.summary import words

    moved = [words(str(n)) for n in comparison.index[comparison["prior_pull"].abs() > 1]]
    if moved:
        names = "; ".join(moved)
        console.print(f"The prior pulls these by more than one posterior SD: {names}.", markup=False)


def _same_effects(moments: "xr.DataTree") -> None:
    """Say whether the classes differ in their effects, in words."""
    p = moments.attrs.get("equal_effects_p")
    if p is None or p != p:
        return
    groups = int(moments["estimate"].to_dataset()["causal_groups"].max()) + 1
    merged = f"{groups} causal group{'s' * (groups > 1)}"
    said = "differ in their effects" if p < EQUAL_LEVEL else "may all have the same effect"
    shown = f"< {TINY:g}" if p < TINY else f"= {p:.2g}"
    console.print(f"Test of equal effects: p {shown}, so the classes {said}; {merged}.", markup=False)


def _published(model: "CausalModel", summary: "pd.DataFrame") -> None:
    for name, answer in model.published.items():
        ours = float(summary[summary.columns[0]].get(name, float("nan")))
        mine = "no answer" if ours != ours else _number(ours)
        if "identified" in summary and not summary["identified"].get(name, True):
            mine += " (prior-driven)"
        spread = f", interval {answer.interval[0]} to {answer.interval[1]}" if answer.interval else ""
        spread += f", standard error {answer.se:g}" if answer.se is not None else ""
        console.print(
            f"Published {name}: {answer.value:g}{spread} ({answer.source}). Ours: {mine}.",
            markup=False,
        )


def _doubts(notes: "list[Note]", interventions: bool) -> None:
    standing = [
        "The classes, the graph and their number are assumptions: no data can confirm all of them.",
        "A class effect is an average within a hidden group, not the effect on one person.",
    ]
    if interventions:
        standing = ["The network and the possible targets are assumptions: no data can confirm all of them."]
    lines = [f"- {note}" for note in notes] + [f"- {line}" for line in standing]
    console.print(Panel(escape("\n".join(lines)), title="What to doubt", title_align="left"))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, 1 (refused, reason printed) or 2 (usage)."""
    from pymc_mte.errors import MTEError

    try:
        code = app(args=argv, standalone_mode=False)
    except MTEError as err:
        Console(stderr=True).print(f"[bold red]Refused:[/] {escape(str(err))}", highlight=False)
        return 1
    except OSError as err:
        reason = f"{err.filename}: {err.strerror}" if err.filename and err.strerror else str(err)
        Console(stderr=True).print(f"[bold red]Refused:[/] {escape(reason)}", highlight=False)
        return 1
    except Exception as err:
        if type(err).__module__.partition(".")[0] in ("click", "typer"):
            err.show()  # type: ignore[attr-defined]
            return 2
        raise
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
