"""The command line: the library, thinly. Heavy imports happen inside the commands."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pymc_mte import terminal

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from pymc_mte.fit import Fit
    from pymc_mte.identify.identification import Identification
    from pymc_mte.model import CausalModel

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Mixtures of treatment effects with a hidden class: what can be learnt, moments, posterior.",
)

TUNE = 1_000
"""Warm-up draws: a first reader is better served by a slower, settled sampler."""

ModelArgument = Annotated[str, typer.Argument(help="Model file, or gallery:NAME.")]
DataOption = Annotated[Path | None, typer.Option(help="CSV or Parquet file; the model's own by default.")]
BaseOption = Annotated[
    Path | None, typer.Option(help="Mixture of interventions: file with rows of the untouched network.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]


@app.command()
def run(
    model: ModelArgument,
    data: DataOption = None,
    base: BaseOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; results/NAME by default.")] = None,
    draws: Annotated[int, typer.Option(min=4, help="Kept draws per chain.")] = 1000,
    seed: SeedOption = 0,
) -> None:
    """Identify, estimate, sample and compare; write the results into a folder."""
    from pymc_mte.data import resolve
    from pymc_mte.modelfile import load_model

    described = load_model(model)
    folder = out if out is not None else Path("results") / described.name
    terminal.console.rule(f"[bold]{described.name}")
    terminal.console.print(described.summary, markup=False)
    with terminal.console.status("Reading the data and checking what can be learnt"):
        from pymc_mte.bayes.priors import merge_priors
        from pymc_mte.identify import identification

        resolved, table = resolve(described, data)
        if resolved.why_no_posterior is None:
            merge_priors(resolved, None)  # a prior that cannot be is told before anything is computed
        _make_folder(folder)
        found = identification.identify(resolved, table, base=base, rng=seed)
    terminal.print_learnable(found)
    with terminal.console.status("Estimating by moments"):
        from pymc_mte.fit import why_alone
        from pymc_mte.moments.estimate import estimate as solve

        reason = why_alone(resolved, found)
        moments = None if reason is not None else solve(resolved, table, base=base, rng=seed)
    if moments is None:
        terminal.print_panel(f"{reason}", "2. No moment estimate")
    else:
        terminal.print_moments(resolved, moments)
    _finish(resolved, table, base, moments, found, folder, draws, seed)


def _finish(
    model: "CausalModel",
    table: "xr.Dataset",
    base: Path | None,
    moments: "xr.DataTree | None",
    found: "Identification",
    folder: Path,
    draws: int,
    seed: int,
) -> None:
    """Sample and compare where the model allows it; write the files; print what to doubt."""
    from pymc_mte.fit import finish

    if model.why_no_posterior is not None:
        terminal.print_panel(model.why_no_posterior, "3. No posterior")
    else:
        terminal.console.print(
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
        progressbar=terminal.console.is_terminal,
    )
    summary = fitted.summary()
    if fitted.posterior is not None:
        title = "3. Posterior (draws*: how many independent ones they are worth)"
        terminal.console.print(terminal.answers_table(summary, title))
    if fitted.comparison is not None:
        terminal.print_comparison(fitted.comparison, summary)
    terminal.print_published(model, summary)
    terminal.print_doubts(fitted.notes, model.interventions is not None)
    files = _write(fitted, summary, folder)
    terminal.console.print("Written: " + ", ".join(str(file) for file in files), markup=False)


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
    return [*files, fitted.report(folder / "report.html")]


@app.command()
def identify(
    model: ModelArgument,
    data: DataOption = None,
    base: BaseOption = None,
    graph_only: Annotated[bool, typer.Option(help="Look at the graph alone, at no data.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Say what the graph and the data can answer, before any estimate."""
    from pymc_mte.data import resolve
    from pymc_mte.identify import identification
    from pymc_mte.modelfile import load_model

    described = load_model(model)
    with terminal.console.status("Checking what can be learnt"):
        if graph_only or (data is None and described.data_path is None):
            found = identification.identify(described, rng=seed)
        else:
            resolved, table = resolve(described, data)
            found = identification.identify(resolved, table, base=base, rng=seed)
    terminal.print_learnable(found)
    terminal.print_doubts(list(found.notes), described.interventions is not None)


@app.command()
def estimate(
    model: ModelArgument,
    data: DataOption = None,
    base: BaseOption = None,
    method: Annotated[str, typer.Option(help="auto, or a method of the table in the README.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="File of the result (.nc) or its table (.csv).")] = None,
    seed: SeedOption = 0,
) -> None:
    """Estimate by moments, without sampling."""
    from pymc_mte.data import resolve
    from pymc_mte.errors import ModelError
    from pymc_mte.modelfile import load_model
    from pymc_mte.moments.estimate import estimate as solve
    from pymc_mte.results import save
    from pymc_mte.status import load_notes
    from pymc_mte.summary import moment_summary

    if out is not None and out.suffix not in (".nc", ".csv"):
        raise ModelError(f"--out {out}: end the name with .nc or .csv")
    with terminal.console.status("Estimating by moments"):
        resolved, table = resolve(load_model(model), data)
        moments = solve(resolved, table, method=method, base=base, rng=seed)
    terminal.print_moments(resolved, moments)
    terminal.print_doubts(load_notes(str(moments.attrs["notes"])), resolved.interventions is not None)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".nc":
            save(moments, out)
        else:
            moment_summary(moments).to_csv(out)
        terminal.console.print(f"Written: {out}", markup=False)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file.")],
    out: Annotated[Path | None, typer.Option(help="Model file to write; beside the data by default.")] = None,
    classes: Annotated[int, typer.Option(min=1, help="Number of hidden classes to begin with.")] = 2,
    treatment: Annotated[str | None, typer.Option(help="Column of the treatment.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Column of the outcome.")] = None,
    treatment_proxy: Annotated[list[str] | None, typer.Option(help="May be given repeatedly.")] = None,
    outcome_proxy: Annotated[list[str] | None, typer.Option(help="May be given repeatedly.")] = None,
) -> None:
    """Write a first model file for a data file; you fill in and defend the roles."""
    from pymc_mte.draft import draft_model
    from pymc_mte.errors import ModelError

    target = out if out is not None else file.with_suffix(".toml")
    if target.suffix != ".toml":
        raise ModelError(f"--out {target}: end the name with .toml")
    if target.exists():
        raise ModelError(f"{target}: exists already; name another file with --out")
    roles: dict[str, str | list[str] | None] = {"treatment": treatment, "outcome": outcome}
    roles |= {"treatment_proxies": treatment_proxy, "outcome_proxies": outcome_proxy}
    text = draft_model(file, target, classes=classes, roles=roles)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    terminal.console.print(
        f"Written: {target}. Every line is a guess: read it before it is used.", markup=False
    )


@app.command()
def simulate(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="CSV or Parquet file to write.")],
    n: Annotated[int, typer.Option("--rows", min=1, help="Number of rows.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
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
    terminal.console.print(f"{n} rows of {', '.join(map(str, frame.columns))} written to {out}")


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
    terminal.console.print(table)


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
