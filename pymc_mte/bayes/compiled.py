"""`compile`: one compilation of a posterior serves every data set of the same form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pymc as pm
import xarray as xr

from pymc_mte.bayes.assemble import assemble
from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.bayes.gradient import Density, compile_density
from pymc_mte.bayes.pooling import group_labels
from pymc_mte.bayes.prepare import Prepared, prepare
from pymc_mte.bayes.priors import Prior, prior_record
from pymc_mte.bayes.rowdensity import density_of
from pymc_mte.bayes.sample import sampling_options
from pymc_mte.bayes.samplers import sample_density
from pymc_mte.bayes.settle import Settled, settle
from pymc_mte.data import GROUP, SAMPLING_WEIGHT, is_missing, resolve
from pymc_mte.errors import DataError, RefusedError, whole_number
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.regression import given_rows


@dataclass(frozen=True, kw_only=True, repr=False)
class CompiledPosterior:
    """A compiled posterior that takes one data set after the other.

    Attributes
    ----------
    model : CausalModel
        The graph, its levels resolved.
    built : pymc.Model
        The posterior that was compiled.
    density : Density
        Its log-density.
    priors : mapping or None
        As given to `compile`.
    form : mapping of str to list of str
        What the data that it was compiled with have beside the model's columns, and what they lack.
    at_points : list
        The density at parameters as results have them, compiled when modes are first weighed.
    """

    model: CausalModel
    built: pm.Model
    density: Density
    priors: Mapping[str, Prior] | None
    form: Mapping[str, list[str]]
    at_points: list[PosteriorDensity] = field(default_factory=list)

    def sample(
        self,
        data: Any = None,
        *,
        start: xr.DataTree | None = None,
        draws: int = 1_000,
        tune: int = 500,
        chains: int = 4,
        cores: int | None = None,
        target_accept: float = 0.9,
        random_seed: int = 0,
        progressbar: bool = False,
    ) -> xr.DataTree:
        """Sample the posterior of these data; arguments and result as of `pymc_mte.sample`."""
        options = _checked(random_seed, draws, tune, chains, cores, target_accept)
        search: dict[str, Any] = {"start": start, "chains": chains, "random_seed": random_seed}
        ready, density = self.prepare(data, **search, likelihood=True)
        options |= {"progressbar": progressbar}
        raw = sample_density(density, self._vectors(ready, density), random_seed, options)
        tree = assemble(ready, raw, sampler="nutpie", seed=random_seed, tune=tune)
        tree.attrs["priors"] = json.dumps(prior_record(self.model, self.priors))
        return tree

    def draws(
        self,
        data: Any = None,
        *,
        draws: int = 500,
        tune: int = 300,
        chains: int = 2,
        cores: int = 1,
        target_accept: float = 0.9,
        random_seed: int = 0,
    ) -> xr.Dataset:
        """Sample the aligned draws and functionals alone, for simulation studies.

        Neither identification nor what was learnt nor predictive data are computed.

        Parameters
        ----------
        data : see `pymc_mte.sample`
        draws, tune, chains, cores, target_accept, random_seed
            As of `pymc_mte.sample`, with smaller defaults.

        Returns
        -------
        Dataset
            The ``posterior`` group of `sample`. Attributes: ``divergences`` (how many draws) and
            ``switching_share``.
        """
        options = _checked(random_seed, draws, tune, chains, cores, target_accept) | {"progressbar": False}
        ready, density = self.prepare(data, chains=chains, random_seed=random_seed)
        raw = sample_density(density, self._vectors(ready, density), random_seed, options)
        settled = self.settled(ready, raw, random_seed)
        divergent = int(settled.stats["diverging"].sum())
        return settled.posterior.assign_attrs(divergences=divergent, switching_share=settled.switching)

    def prepare(
        self,
        data: Any,
        *,
        chains: int,
        random_seed: int,
        start: xr.DataTree | None = None,
        likelihood: bool = False,
    ) -> tuple[Prepared, Density]:
        """Find the chains' starts for other data, and put the data into the compiled density.

        ``likelihood`` asks for the optima of the likelihood too, which only a report needs.
        """
        model, table = resolve(self.model, data)
        if model != self.model:
            raise DataError(
                "the data have other levels than the compiled model's: compile the model again, or list "
                "the levels in the model"
            )
        if (found := _form(model, table)) != self.form:
            raise DataError(
                f"the compiled model takes data with {_told(self.form)}, and these have {_told(found)}: "
                "the likelihood has another form, so compile the model again"
            )
        wanted: dict[str, Any] = {"start": start, "priors": self.priors, "likelihood": likelihood}
        ready = prepare(self.model, table, chains=chains, seed=random_seed, **wanted)
        return ready, self.density.with_data(ready.built)

    def settled(self, ready: Prepared, raw: xr.DataTree, seed: int, keep: str = "\0") -> Settled:
        """Align draws and weigh modes, without a report; data named like ``keep`` stay those of compiling."""

        def density() -> PosteriorDensity:
            if not self.at_points:
                self.at_points.append(density_of(self.model, self.built))
            return self.at_points[0].with_data(ready.built, keep)

        given = given_rows(ready.model, ready.table)
        return settle(ready, raw, given, sampler="nutpie", seed=seed, density=density, report=False)

    def _vectors(self, ready: Prepared, density: Density) -> list[Any]:
        """Lay starts out as vectors; refuse rows whose terms have more or fewer directions."""
        for name in [v.name for v in self.built.data_vars if str(v.name).startswith("to_")]:
            told = [built[name].get_value().shape[1] for built in (self.built, ready.built)]
            if told[0] != told[1]:
                what = str(name).removeprefix("to_terms_").removeprefix("to_")
                raise DataError(
                    f"the columns that shift {what!r} vary in {told[1]} directions in these rows, and in "
                    f"{told[0]} where the model was compiled: a level may lack rows or a column be constant; "
                    "compile the model again"
                )
        return [density.maps.unconstrain(start) for start in ready.starts]

    def __repr__(self) -> str:
        """Return the model's name and the number of free parameters."""
        return f"CompiledPosterior of {self.model.name!r}, {self.density.maps.size} parameters"


def compile(  # the public name of the house plan, used as mte.compile
    model: CausalModel, data: Any = None, *, priors: Mapping[str, Prior] | None = None
) -> CompiledPosterior:
    """Compile a posterior once, for many data sets of the same form.

    Compiling takes seconds, and sampling a table of patterns far less: a simulation study, a bootstrap
    or a nightly job should compile once.

    Parameters
    ----------
    model : CausalModel
        The graph and families.
    data : tabulated Dataset, dataframe, mapping or path, optional
        Any data set of the form to come: the same levels; the model's own data file by default.
    priors : mapping, optional
        See `pymc_mte.build_model`.

    Returns
    -------
    CompiledPosterior
        ``.sample(data)`` gives what `pymc_mte.sample` gives, ``.draws(data)`` the aligned draws alone.

    Raises
    ------
    RefusedError
        If the model has no posterior, or is a mixture of interventions (whose form changes with the data).

    Examples
    --------
    >>> import pymc_mte as mte
    >>> level3 = mte.load_model("gallery:level3")
    >>> compiled = mte.compile(level3, mte.simulate(level3, 500))
    >>> compiled
    CompiledPosterior of 'level3', 13 parameters
    >>> drawn = compiled.draws(mte.simulate(level3, 2_000, rng=1), draws=50, tune=100)
    >>> dict(drawn["effect"].sizes)
    {'chain': 2, 'draw': 50, 'class': 2}
    """
    need_model("compile", model)
    if model.why_no_posterior is not None:
        raise RefusedError(f"no posterior for {model.name!r}: {model.why_no_posterior}")
    if model.interventions is not None:
        raise RefusedError(
            "a mixture of interventions has no one form to compile: its targets depend on the data"
        )
    model, table = resolve(model, data)
    ready = prepare(model, table, start=None, priors=priors, chains=1, seed=0)
    density = compile_density(ready.built, ready.starts[0])
    form = _form(model, table)
    return CompiledPosterior(model=model, built=ready.built, density=density, priors=priors, form=form)


def _form(model: CausalModel, table: xr.Dataset) -> dict[str, list[str]]:
    """Say what decides the form of the likelihood: where values are missing, weights, groups."""
    missing = [name for name in model.variables if is_missing(table[name].values).any()]
    weighted = [SAMPLING_WEIGHT] if SAMPLING_WEIGHT in table else []
    groups = group_labels(table) if GROUP in table else []
    return {"missing values": missing, "weights": weighted, "groups": groups}


def _told(form: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{what} in {names or 'nothing'}" for what, names in form.items())


def _checked(
    random_seed: int, draws: int, tune: int, chains: int, cores: int | None, target_accept: float
) -> dict[str, Any]:
    """Check what steers the sampler; chains are given by their starts."""
    whole_number("random_seed", random_seed, 0)
    sizes: dict[str, Any] = {"draws": draws, "tune": tune, "chains": chains, "cores": cores}
    options = sampling_options(**sizes, target_accept=target_accept)
    options.pop("chains")
    return options
