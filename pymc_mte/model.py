"""The description of a causal model: classes, variables, edges, roles."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pymc_mte.coefficients import TERM_AXIS, coefficient_axes, column_names, term_names, why_unbuilt
from pymc_mte.errors import ModelError
from pymc_mte.families import TABLE, Parameter
from pymc_mte.interventions import (
    PARENT_AXIS,
    Interventions,
    check_interventions,
    linear_dims,
    stated_parameters,
    tie_mechanisms,
)
from pymc_mte.validation import (
    MAX_CLASSES,
    UNSUPPORTED,
    append_treatment,
    check_roles,
    check_truth,
    check_variables,
    explain,
)
from pymc_mte.variable import DataSource, Level, Part, Published, Variable

Parameters = dict[str, NDArray[np.float64]]
"""Parameter arrays by result name (``class_weight``, ``p_z``, ``mean_y``): axes as `CausalModel.dims`."""


class CausalModel(Part):
    """A mixture of latent classes that share one causal graph over observed variables.

    Parameters
    ----------
    classes : int
        Number of latent classes, at least 1 (1 means: no latent confounding).
    variables : mapping of str to Variable
        Observed variables in the order in which tables show them.
    treatment, outcome : str, optional
        Names of the (discrete) treatment and of the outcome.
    treatment_proxies, outcome_proxies : sequence of str
        Proxies of the class on the treatment side (they may cause the treatment, never the
        outcome) and on the outcome side (never caused by the treatment).
    covariates : sequence of str
        Observed columns that everything is meant given of: conditioned on, not modelled, so they
        are not listed in ``variables``. Partialled out by moments, which then give averages only; in
        the posterior they shift class membership, treatment and outcome.
    covariate_levels : mapping of str to sequence of str, optional
        Values of the covariates that are text, filled in from the data where left out; every value but
        the first becomes an indicator.
    strata : sequence of str
        Discrete columns; everything is estimated inside each combination of their values and
        averaged over them.
    reference : level, optional
        Reference arm; the first level of the treatment by default.
    better : {"higher", "lower"}
        Which outcomes are good.
    practical : float
        Effect size, in outcome units, below which a class counts neither as helped nor harmed.
    interventions : Interventions, optional
        The classes share all mechanisms and differ by forced values only.

    Raises
    ------
    ModelError
        If the description contradicts itself; the message names the key and the mend.

    Examples
    --------
    >>> model = CausalModel(
    ...     classes=2,
    ...     variables={
    ...         "z": {"family": "bernoulli"},
    ...         "x": {"family": "bernoulli"},
    ...         "t": {"family": "bernoulli", "parents": ["z"]},
    ...         "y": {"family": "normal"},
    ...     },
    ...     treatment="t", outcome="y", treatment_proxies=["z"], outcome_proxies=["x"],
    ... )
    >>> model.variables["y"].parents
    ('t',)
    >>> model.dims["p_t"]
    ('class', 'z', 't')
    """

    name: str = "model"
    summary: str = ""
    source: str = ""
    classes: int = Field(ge=1, le=MAX_CLASSES)
    variables: dict[str, Variable]
    treatment: str | None = None
    outcome: str | None = None
    treatment_proxies: tuple[str, ...] = ()
    outcome_proxies: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    covariate_levels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    strata: tuple[str, ...] = ()
    reference: Level | None = None
    better: Literal["higher", "lower"] = "higher"
    practical: float = 0.0
    moments_only: str | None = None
    interventions: Interventions | None = None
    data: DataSource | None = None
    truth: dict[str, Any] | None = None
    priors: dict[str, Any] = Field(default_factory=dict)
    published: dict[str, Published] = Field(default_factory=dict)
    _folder: Path | None = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        for key, sentence in UNSUPPORTED.items():
            if key in fields:
                raise ModelError(f"{key}: {sentence}")
        try:
            super().__init__(**tie_mechanisms(fields))
        except ValidationError as err:
            raise ModelError(explain(err)) from None
        check_truth(self)

    @model_validator(mode="before")
    @classmethod
    def _append_treatment(cls, fields: Any) -> Any:
        return append_treatment(fields) if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_variables(self)
        check_roles(self)
        check_interventions(self)
        return self

    def __eq__(self, other: object) -> bool:
        """Compare descriptions; the folder a model was read from does not count."""
        if not isinstance(other, CausalModel):
            return NotImplemented
        return self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def graph(self) -> "nx.DiGraph[str]":
        """The observed graph (the latent class is left out)."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.variables)
        graph.add_edges_from((p, v) for v, var in self.variables.items() for p in var.all_parents)
        return graph

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Variables, parents first; ties in the order of the description."""
        rank = {name: i for i, name in enumerate(self.variables)}
        return tuple(nx.lexicographical_topological_sort(self.graph, key=lambda v: rank[v]))

    @property
    def arms(self) -> tuple[Level, ...]:
        """Levels of the treatment, the reference arm included."""
        if self.treatment is None:
            raise ModelError("roles.treatment: this model names no treatment; add one to ask for effects")
        return self.variables[self.treatment].labels

    @property
    def reference_arm(self) -> int:
        """Position of the reference arm among the treatment's levels."""
        return 0 if self.reference is None else self.arms.index(self.reference)

    @property
    def contrasts(self) -> tuple[tuple[int, int], ...]:
        """Pairs (arm, reference) of level numbers, one per non-reference arm."""
        ref = self.reference_arm
        return tuple((arm, ref) for arm in range(len(self.arms)) if arm != ref)

    @cached_property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of every parameter, by its name in results."""
        out: dict[str, tuple[str, ...]] = {"class_weight": ("class",)}
        if self.linear:
            return out | linear_dims(self)
        for name, var in self.variables.items():
            out |= {f"{parameter}_{name}": axes for parameter, axes in var.axes(name).items()}
        return out

    @cached_property
    def covariate_columns(self) -> tuple[str, ...]:
        """Names of the covariates as numbers: a text covariate gives an indicator of each later level."""
        return column_names(self.covariates, self.covariate_levels)

    @cached_property
    def coefficient_dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the coefficients of covariates and linear parents, by name; empty without any."""
        return coefficient_axes(self)

    @cached_property
    def posterior_dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of every parameter of the posterior: those of `dims` and what covariates add."""
        baseline = {"baseline_weight": ("class",)} if self.covariates else {}
        return {**self.dims, **baseline, **self.coefficient_dims}

    @property
    def regressed(self) -> tuple[str, ...]:
        """Variables with a linear part: treatment and outcome with covariates, children of linear parents."""
        named = (self.treatment, self.outcome) if self.covariates else ()
        linear = (name for name, var in self.variables.items() if var.linear_parents)
        return tuple(dict.fromkeys(name for name in (*named, *linear) if name is not None))

    @cached_property
    def terms(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns that shift a variable, of those with a linear part."""
        return {name: term_names(self, name) for name in self.regressed}

    @property
    def linear_edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs (linear parent, child)."""
        return tuple((p, name) for name, var in self.variables.items() for p in var.linear_parents)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter, by its name in results."""
        return {name: tuple(self.size(d) for d in dims) for name, dims in self.dims.items()}

    @cached_property
    def owners(self) -> dict[str, tuple[str, str]]:
        """Variable and parameter behind every parameter name except ``class_weight``."""
        if self.linear:
            return {key: (v, p) for key in linear_dims(self) for p, _, v in [key.partition("_")]}
        return {
            f"{parameter}_{name}": (name, parameter)
            for name, var in self.variables.items()
            for parameter in var.spec.parameters
        }

    def kind(self, name: str) -> Parameter:
        """Axes and values of a parameter; a ``table`` sums to 1 along its last axis."""
        if name == "class_weight":
            return TABLE
        variable, parameter = self.owners[name]
        own = self.variables[variable].spec.parameters
        return own["mean"] if self.linear and parameter != "sd" else own[parameter]

    def free_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter without what is fixed: tables lose their first level."""
        shape = self.shapes[name]
        return (*shape[:-1], shape[-1] - 1) if self.kind(name).scope == "table" else shape

    def size(self, dim: str) -> int:
        """Length of an axis: the number of classes, or of a variable's levels."""
        if self.linear and dim.startswith(PARENT_AXIS):
            return len(self.variables[dim.removeprefix(PARENT_AXIS)].parents)
        if dim == "covariate":
            return len(self.covariate_columns)
        if dim not in self.variables and dim.endswith(TERM_AXIS):
            return len(self.terms[dim.removesuffix(TERM_AXIS)])
        return self.classes if dim == "class" else len(self.variables[dim].labels)

    @property
    def coords(self) -> dict[str, list[Level]]:
        """Coordinate values of every axis that a parameter or functional may have."""
        coords: dict[str, list[Level]] = {"class": list(range(self.classes))}
        coords |= {name: list(v.labels) for name, v in self.variables.items() if v.discrete}
        if self.linear:
            coords |= {
                f"{PARENT_AXIS}{name}": list(v.parents) for name, v in self.variables.items() if v.parents
            }
        if self.treatment is not None:
            coords["treatment"] = list(self.arms)
            coords["contrast"] = [f"{self.arms[b]} - {self.arms[a]}" for b, a in self.contrasts]
        if self.covariates:
            coords["covariate"] = list(self.covariate_columns)
        return coords | {f"{v}{TERM_AXIS}": list(self.terms[v]) for _, v in self.linear_edges}

    @property
    def discrete_variables(self) -> tuple[str, ...]:
        """Names of the discrete variables, in the order of the description."""
        return tuple(name for name, var in self.variables.items() if var.discrete)

    @property
    def continuous_variables(self) -> tuple[str, ...]:
        """Names of the continuous variables, in the order of the description."""
        return tuple(name for name, var in self.variables.items() if not var.discrete)

    @property
    def censored(self) -> bool:
        """Whether some values of the outcome are known only to be larger than what was seen."""
        return self.outcome is not None and self.variables[self.outcome].event is not None

    @property
    def linear(self) -> bool:
        """Whether this is a linear Gaussian network under interventions: parents may be continuous."""
        return self.interventions is not None and bool(self.continuous_variables)

    @property
    def n_cells(self) -> int:
        """Number of cells of the table of all discrete variables."""
        return int(np.prod([float(self.size(v)) for v in self.discrete_variables]))

    def with_levels(
        self,
        levels: dict[str, tuple[Level, ...]],
        covariate_levels: dict[str, tuple[str, ...]] | None = None,
        centres: dict[str, float] | None = None,
    ) -> "CausalModel":
        """Return the model with bernoulli and covariate levels, and centres, as the data have them."""
        known = {k for k, var in self.variables.items() if var.levels is not None or var.trials is not None}
        missing: dict[str, dict[str, Any]] = {k: {"centre": v} for k, v in (centres or {}).items()}
        missing |= {k: {"levels": v} for k, v in levels.items() if k not in known and v != (0, 1)}
        known_text = self.covariate_levels if covariate_levels is None else covariate_levels
        if not missing and known_text == self.covariate_levels:
            return self
        variables = {
            name: var.model_copy(update=missing[name]) if name in missing else var
            for name, var in self.variables.items()
        }
        return self.with_fields(variables=variables, covariate_levels=known_text)

    def with_classes(self, classes: int) -> "CausalModel":
        """Return the same graph with another number of classes; a stated truth does not carry over."""
        if self.interventions is not None:
            raise ModelError(
                "the classes of a mixture of interventions are its targets; list the possible ones in "
                "interventions.targets, or leave the key out and `estimate` finds them"
            )
        return self.with_fields(classes=classes, truth=None)

    def with_fields(self, **changed: Any) -> "CausalModel":
        """Return the model with some fields changed; its data file stays where it is."""
        other = CausalModel(**{name: getattr(self, name) for name in type(self).model_fields} | changed)
        other._folder = self._folder
        return other

    def true_parameters(self) -> Parameters:
        """Parameters stated in the model's ``[truth]``, as arrays with the axes of `dims`.

        Raises
        ------
        ModelError
            If the model states no truth.
        """
        if self.truth is None:
            raise ModelError(
                f"model {self.name!r} has no [truth] table, so there is nothing to simulate from or "
                "to compare with; add the parameters to it"
            )
        out: Parameters = {}
        stated = stated_parameters(self)
        weights = stated.get("class_weight", [1.0] * self.classes)
        out["class_weight"] = np.asarray(weights, dtype=float)
        for name, (variable, parameter) in self.owners.items():
            value = np.asarray(stated[variable][parameter], dtype=float)
            if self.variables[variable].family == "bernoulli":
                value = np.stack([1 - value, value], axis=-1)
            out[name] = value
        return out | {f"coef_{v}": np.asarray(stated[v]["coef"], dtype=float) for v in self.regressed}

    @property
    def unbuilt(self) -> str | None:
        """Sentence that says why no posterior can be built for such a model yet; None if one can."""
        return why_unbuilt(self)

    @property
    def why_no_posterior(self) -> str | None:
        """Sentence that says why no posterior is drawn: not built yet, or the model file asks for none."""
        return self.unbuilt or self.moments_only

    @classmethod
    def from_toml(cls, text: str) -> "CausalModel":
        """Read a model from the text of a model file (see the README for its form)."""
        from pymc_mte.modelfile import parse_toml

        return parse_toml(text)

    def to_toml(self) -> str:
        """Write the model in the form that `from_toml` reads."""
        from pymc_mte.modelfile import format_toml

        return format_toml(self)

    def _repr_html_(self) -> str:
        from pymc_mte.richtext import model_html

        return model_html(self)

    @property
    def data_path(self) -> Path | None:
        """Path of the model's own data file, if it has one; always inside the model's folder."""
        if self.data is None or self.data.file is None:
            return None
        from pymc_mte.modelfile import resolve_beside

        return resolve_beside(self.data.file, self._folder)
