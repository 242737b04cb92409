"""`fit`: the whole way of the data in one call."""

import html
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from pymc_mte.bayes.groups import identification_dataset
from pymc_mte.bayes.priors import merge_priors
from pymc_mte.bayes.sample import sample, sampling_options
from pymc_mte.compare import compare, why_not_comparable
from pymc_mte.data import complete_rows, resolve
from pymc_mte.errors import ModelError, RefusedError, truth_value, whole_number
from pymc_mte.identify.identification import Identification, identify
from pymc_mte.model import CausalModel
from pymc_mte.moments.choice import why_no_moments
from pymc_mte.moments.estimate import estimate
from pymc_mte.plainly import NO_MOMENTS, posterior_apart
from pymc_mte.plots.comparison import plot_comparison
from pymc_mte.results import save
from pymc_mte.sharing import safe_tree
from pymc_mte.status import Note, dump_notes, load_notes
from pymc_mte.summary import PRIOR_DRIVEN, moment_summary, posterior_summary

NOT_JOINT = (
    "No test compares posterior and moments: the classes were learnt without {outcome} (measurement_first), "
    "and the test rests on the likelihood of the whole graph."
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Fit:
    """Everything that was learnt from one data set; prints as a report.

    Attributes
    ----------
    model : CausalModel
        The model, its levels resolved.
    identification : Identification
        What can be answered.
    moments : DataTree or None
        From `estimate`; None where the posterior answers and no moment method takes the graph, which
        ``no_moments`` then says why.
    posterior : DataTree or None
        From `sample`; None when the model file asks for moments only.
    comparison : pandas.DataFrame or None
        From `compare`; None without a posterior, moments or a treatment, with covariates, where missing
        values were summed out (the moments then rest on the complete rows), or with ``measurement_first``,
        which ``no_comparison`` then says.
    random_seed : int or None
        The seed that everything random was drawn with.
    no_moments : str
        Why no moment method takes the graph; empty where one does.
    no_comparison : str
        Why the answers of ``measurement_first`` are not compared; empty elsewhere.
    """

    model: CausalModel
    identification: Identification
    moments: xr.DataTree | None
    posterior: xr.DataTree | None
    comparison: pd.DataFrame | None
    random_seed: int | None = None
    no_moments: str = ""
    no_comparison: str = ""

    @property
    def result(self) -> xr.DataTree:
        """The posterior, else the moment estimate."""
        found = self.moments if self.posterior is None else self.posterior
        assert found is not None
        return found

    @property
    def notes(self) -> list[Note]:
        """Every status, each said once."""
        found = list(self.identification.notes)
        for tree in (self.moments, self.posterior):
            found += [] if tree is None else load_notes(str(tree.attrs["notes"]))
        seen: dict[tuple[str, str], Note] = {}
        for note in found:
            seen.setdefault((note.status.name, note.where), note)
        return list(seen.values())

    def summary(self) -> pd.DataFrame:
        """Tabulate the answers, label-free ones first: estimates with 90% intervals.

        ``weight_harmed`` stays in the results and out of this table: without the test of equal effects
        it misleads.
        """
        return (moment_summary if self.posterior is None else posterior_summary)(self.result)

    def __str__(self) -> str:
        """Return what can be learnt, the answers and what to doubt, as text."""
        shown = self.summary()
        table = shown.to_string(float_format=_number, na_rep="")
        doubts = [f"- {note}" for note in self.notes]
        parts = [
            *self._learnable(),
            "",
            table,
            *_marked(shown),
            *(["", "To doubt:", *doubts] if doubts else []),
        ]
        return "\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{html.escape(line)}</p>" for line in self._learnable())
        doubts = "".join(f"<li>{html.escape(str(note))}</li>" for note in self.notes)
        shown = self.summary()
        table = shown.to_html(float_format=_number, na_rep="")
        table += "".join(f"<p>{html.escape(line)}</p>" for line in _marked(shown))
        return f"<h3>What can be learnt</h3>{said}<h3>Answers</h3>{table}<h3>To doubt</h3><ul>{doubts}</ul>"

    def _learnable(self) -> list[str]:
        """Say what can be learnt, and that moments or a comparison are lacking where they are."""
        lines = self.identification.lines()
        if self.posterior is not None:
            lines = [posterior_apart(line) for line in lines]
        lines = lines + ([f"{NO_MOMENTS} {self.no_moments}"] if self.moments is None else [])
        return lines + ([self.no_comparison] if self.no_comparison else [])

    def plot_effects(self) -> Any:
        """Draw the posterior beside the moment estimates."""
        if self.posterior is None:
            raise RefusedError(f"there is no posterior to draw: {self.model.why_no_posterior}")
        if self.moments is None:
            raise RefusedError(f"there is no moment estimate to draw the posterior beside: {self.no_moments}")
        if self.model.treatment is None:
            raise RefusedError("effects are drawn for a treatment, and this model names none")
        return plot_comparison(self.posterior, self.moments, table=self.comparison)

    def to_datatree(self) -> xr.DataTree:
        """Join all results in one tree: the posterior's groups, ``moments`` and ``comparison``."""
        tree = xr.DataTree() if self.posterior is None else self.posterior.copy()
        if self.moments is not None:
            tree["estimate"] = xr.DataTree(self.moments["estimate"].to_dataset())
            tree["moments"] = xr.DataTree(self.moments["posterior"].to_dataset())
        if self.posterior is None:
            tree.attrs = dict(self.result.attrs)
            tree["identification"] = xr.DataTree(identification_dataset(self.identification))
        if self.comparison is not None:
            table = self.comparison.reset_index()
            columns = {str(c): ("entry", table[c].to_numpy(dtype=_kind(table[c]))) for c in table.columns}
            said = {name: json.dumps(value) for name, value in self.comparison.attrs.items()}
            tree["comparison"] = xr.DataTree(xr.Dataset(columns, attrs=said))
        tree.attrs = {**tree.attrs, "notes": dump_notes(self.notes)}
        return tree

    def save(self, path: str | Path, *, share_safe: bool = False) -> Path:
        """Save everything as one NetCDF file; see `pymc_mte.load`.

        ``share_safe=True`` leaves out combinations of values that fewer than 5 rows have (in continuous
        data that is every row), which the attribute ``share_safe`` of the file says.
        """
        tree = self.to_datatree()
        return save(safe_tree(tree, self.model) if share_safe else tree, path)

    def report(self, path: str | Path, *, share_safe: bool = False) -> Path:
        """Write one self-contained HTML page: answers in plain words, tables, figures, every warning.

        ``share_safe=True`` leaves out combinations of values that fewer than 5 rows have, and says so.
        """
        from pymc_mte.report import write_report

        return write_report(self, path, share_safe=share_safe)


def _marked(shown: pd.DataFrame) -> list[str]:
    """Explain the column ``identified`` where it holds a False, and why classes are missing."""
    lost = "identified" in shown and not shown["identified"].all()
    said = [f"identified = False: {PRIOR_DRIVEN}."] if lost else []
    weak = shown.attrs.get("weakly_identified")
    return [*said, f"Weakly identified: {weak}."] if weak else said


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _kind(column: "pd.Series[Any]") -> Any:
    """Type of a column in a saved file; NetCDF has no booleans."""
    return {"f": float, "b": "int8"}.get(column.dtype.kind, object)


def fit(
    model: CausalModel,
    data: Any = None,
    *,
    base: Any = None,
    n_boot: int = 400,
    random_seed: int = 0,
    progressbar: bool = True,
    **sampling: Any,
) -> Fit:
    """Identify, estimate, sample and compare.

    Parameters
    ----------
    model : CausalModel
        The model.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    base : the same, optional
        For a model with interventions: rows of the untouched network.
    n_boot : int
        Bootstrap replicates of the moment estimate.
    random_seed : int
        Seed of everything random.
    progressbar : bool
        Whether the sampler shows its progress.
    **sampling
        Further options of `sample` (draws, tune, chains, sampler, priors, target_accept,
        measurement_first).

    Returns
    -------
    Fit
        ``identification``, ``moments``, ``posterior``, ``comparison``; `summary`, `plot_effects`,
        `report` and `save`. Where no moment method takes the graph, the posterior answers alone and the
        report says so; where the likelihood fixes nothing either, that is a `RefusedError`.
    """
    model, table = resolve(model, data)
    known = [name for name in inspect.signature(sample).parameters if name not in ("model", "data", "start")]
    if unknown := sorted(set(sampling) - set(known)):
        raise ModelError(f"{', '.join(unknown)}: no options of `sample`; choose from {', '.join(known)}")
    random_seed = whole_number("random_seed", random_seed, 0)
    truth_value("measurement_first", sampling.get("measurement_first", False))
    sampling_options(**sampling)  # what cannot be is told before anything is computed
    if model.why_no_posterior is None:
        merge_priors(model, sampling.get("priors"))
    found = identify(model, table, base=base, rng=random_seed)
    moments = None
    if why_alone(model, found) is None:
        moments = estimate(model, complete_rows(model, table), base=base, n_boot=n_boot, rng=random_seed)
    sampling |= {"base": base, "progressbar": progressbar}
    return finish(model, table, moments, found, random_seed=random_seed, **sampling)


def why_alone(model: CausalModel, found: Identification) -> str | None:
    """Sentence that says why no moment method takes a graph that the likelihood answers; None elsewhere."""
    answered = model.why_no_posterior is None and any(found.identified.values())
    return why_no_moments(model) if answered else None


def finish(
    model: CausalModel,
    table: xr.Dataset,
    moments: xr.DataTree | None,
    found: Identification,
    *,
    random_seed: int,
    **sampling: Any,
) -> Fit:
    """Sample and compare, given the identification and the moment estimate, if there is one."""
    parts: dict[str, Any] = {"model": model, "identification": found, "moments": moments}
    parts["random_seed"] = random_seed
    if moments is None:
        parts["no_moments"] = why_alone(model, found)
    if model.why_no_posterior is not None:
        return Fit(posterior=None, comparison=None, **parts)
    if sampling.get("measurement_first"):  # it takes no start
        posterior = sample(model, table, random_seed=random_seed, **sampling)
        said = NOT_JOINT.format(outcome=model.outcome) if moments is not None else ""
        return Fit(posterior=posterior, comparison=None, no_comparison=said, **parts)
    posterior = sample(model, table, start=moments, random_seed=random_seed, **sampling)
    joined = None
    if moments is not None and model.treatment is not None and why_not_comparable(model, table) is None:
        joined = compare(posterior, moments, rng=random_seed)
    return Fit(posterior=posterior, comparison=joined, **parts)
