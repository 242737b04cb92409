"""The description of a causal model: classes, variables, edges, roles."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pymc_mte.errors import ModelError
from pymc_mte.families import FAMILIES, Family

Level = bool | int | float | str
Parameters = dict[str, NDArray[np.float64]]
"""Parameter arrays by result name (``class_weight``, ``p_z``, ``mean_y``): axes as `CausalModel.dims`."""

MAX_CLASSES = 50
MAX_LEVELS = 1_000
MAX_TABLE = 1_000_000
"""Largest conditional probability table (cells per class) that a model may ask for."""

RESERVED = frozenset(
    ["class", "treatment", "contrast", "pattern", "count", "chain", "draw", "latent_class", "class_weight", "effect", "potential_outcome", "ate", "att", "ate_bridge", "att_bridge", "effect_sd", "effect_cdf", "weight_harmed", "arm_mean", "causal_groups", "bridge", "synthetic_moment", "effect_moment", "feature", "order"]
)

UNSUPPORTED = {
    "instruments": "Instruments are not supported: use a two-stage least squares package.",
    "time": "Time-varying treatments and panels are not supported: use a g-methods package.",
    "panel": "Time-varying treatments and panels are not supported: use a g-methods package.",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variable(_Part):
    """One observed variable.

    Attributes
    ----------
    family : str
        ``bernoulli``, ``categorical``, ``normal`` or ``student_t``.
    parents : tuple of str
        Observed parents, all discrete. The latent class is a parent too, unless ``latent`` is off.
    levels : tuple, optional
        Values of a discrete variable, in order. A bernoulli variable may leave them out: 0/1,
        booleans or two strings in the data are then recognised.
    latent : bool
        Whether the variable's mechanism varies with the latent class.
    scale_parents : bool
        Whether the scale of a continuous variable varies with its parents too.
    """

    family: str
    parents: tuple[str, ...] = ()
    levels: tuple[Level, ...] | None = Field(default=None)
    latent: bool = True
    scale_parents: bool = False

    @property
    def spec(self) -> Family:
        """The family's table row."""
        return FAMILIES[self.family]

    @property
    def discrete(self) -> bool:
        """Whether the variable takes listed levels."""
        return self.spec.discrete

    @property
    def labels(self) -> tuple[Level, ...]:
        """Levels with the default filled in."""
        return self.levels if self.levels is not None else (0, 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.family not in FAMILIES:
            raise ValueError(
                f"family {self.family!r} is unknown; choose one of {', '.join(FAMILIES)}"
            )
        if not self.discrete:
            if self.levels is not None:
                raise ValueError(f"levels: a {self.family} variable has none; remove the key")
            return self
        if self.levels is None:
            if self.family == "categorical":
                raise ValueError("levels: a categorical variable must list its levels")
            return self
        if not 2 <= len(self.levels) <= MAX_LEVELS:
            raise ValueError(
                f"levels: between 2 and {MAX_LEVELS} are allowed, got {len(self.levels)}"
            )
        if self.family == "bernoulli" and len(self.levels) != 2:
            raise ValueError(f"levels: a bernoulli variable has two, got {len(self.levels)}")
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("levels: every level must be listed once (note that True equals 1)")
        return self


class DataSource(_Part):
    """Where a model's rows are, relative to its file, and what to do with missing values."""

    file: str | None = None
    missing: Literal["error", "drop"] = "error"
    count: str | None = None


class Published(_Part):
    """An answer from elsewhere, shown beside ours and never used by an estimator."""

    value: float
    interval: tuple[float, float] | None = None
    se: float | None = None
    source: str


class CausalModel(_Part):
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
    reference : level, optional
        Reference arm; the first level of the treatment by default.
    better : {"higher", "lower"}
        Which outcomes are good.
    practical : float
        Effect size, in outcome units, below which a class counts neither as helped nor harmed.

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
    reference: Level | None = None
    better: Literal["higher", "lower"] = "higher"
    practical: float = 0.0
    moments_only: str | None = None
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
            super().__init__(**fields)
        except ValidationError as err:
            raise ModelError(_explain(err)) from None
        _check_truth(self)

    @model_validator(mode="before")
    @classmethod
    def _append_treatment(cls, fields: Any) -> Any:
        """Give the outcome the treatment as its last parent when it is missing."""
        if not isinstance(fields, dict):
            return fields
        outcome, treatment = fields.get("outcome"), fields.get("treatment")
        variables = fields.get("variables")
        if not isinstance(variables, dict) or treatment is None or outcome not in variables:
            return fields
        child = variables[outcome]
        raw = child.model_dump() if isinstance(child, Variable) else child
        if not isinstance(raw, dict):
            return fields
        parents = tuple(raw.get("parents", ()))
        if treatment not in parents:
            raw = {**raw, "parents": (*parents, treatment)}
        return {**fields, "variables": {**variables, outcome: raw}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_variables(self)
        _check_roles(self)
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
        graph.add_edges_from((p, v) for v, var in self.variables.items() for p in var.parents)
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
            raise ModelError(
                "roles.treatment: this model names no treatment; add one to ask for effects"
            )
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
        for name, var in self.variables.items():
            lead = ("class",) if var.latent else ()
            for parameter, scope in var.spec.parameters.items():
                axes: dict[str, tuple[str, ...]] = {
                    "table": (*lead, *var.parents, name),
                    "location": (*lead, *var.parents),
                    "scale": (*lead, *var.parents) if var.scale_parents else lead,
                    "shared": (),
                }
                out[f"{parameter}_{name}"] = axes[scope]
        return out

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter, by its name in results."""
        return {name: tuple(self.size(d) for d in dims) for name, dims in self.dims.items()}

    @cached_property
    def owners(self) -> dict[str, tuple[str, str]]:
        """Variable and parameter behind every parameter name except ``class_weight``."""
        return {
            f"{parameter}_{name}": (name, parameter)
            for name, var in self.variables.items()
            for parameter in var.spec.parameters
        }

    def size(self, dim: str) -> int:
        """Length of an axis: the number of classes, or of a variable's levels."""
        return self.classes if dim == "class" else len(self.variables[dim].labels)

    @property
    def coords(self) -> dict[str, list[Level]]:
        """Coordinate values of every axis that a parameter or functional may have."""
        coords: dict[str, list[Level]] = {"class": list(range(self.classes))}
        coords |= {name: list(v.labels) for name, v in self.variables.items() if v.discrete}
        if self.treatment is not None:
            coords["treatment"] = list(self.arms)
            coords["contrast"] = [f"{self.arms[b]} - {self.arms[a]}" for b, a in self.contrasts]
        return coords

    @property
    def discrete_variables(self) -> tuple[str, ...]:
        """Names of the discrete variables, in the order of the description."""
        return tuple(name for name, var in self.variables.items() if var.discrete)

    @property
    def continuous_variables(self) -> tuple[str, ...]:
        """Names of the continuous variables, in the order of the description."""
        return tuple(name for name, var in self.variables.items() if not var.discrete)

    @property
    def n_cells(self) -> int:
        """Number of cells of the table of all discrete variables."""
        return int(np.prod([float(self.size(v)) for v in self.discrete_variables]))

    def with_levels(self, levels: dict[str, tuple[Level, ...]]) -> "CausalModel":
        """Return the model with bernoulli levels filled in as the data have them."""
        missing = {
            k: v for k, v in levels.items() if self.variables[k].levels is None and v != (0, 1)
        }
        if not missing:
            return self
        variables = {
            name: var.model_copy(update={"levels": missing[name]}) if name in missing else var
            for name, var in self.variables.items()
        }
        fields = {name: getattr(self, name) for name in type(self).model_fields} | {
            "variables": variables
        }
        resolved = CausalModel(**fields)
        resolved._folder = self._folder
        return resolved

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
        weights = self.truth.get("class_weight", [1.0] * self.classes)
        out["class_weight"] = np.asarray(weights, dtype=float)
        for name, (variable, parameter) in self.owners.items():
            value = np.asarray(self.truth[variable][parameter], dtype=float)
            if self.variables[variable].family == "bernoulli":
                value = np.stack([1 - value, value], axis=-1)
            out[name] = value
        return out

    @classmethod
    def from_toml(cls, text: str) -> "CausalModel":
        """Read a model from the text of a model file (see the README for its form)."""
        from pymc_mte.modelfile import parse_toml

        return parse_toml(text)

    def to_toml(self) -> str:
        """Write the model in the form that `from_toml` reads."""
        from pymc_mte.modelfile import format_toml

        return format_toml(self)

    @property
    def data_path(self) -> Path | None:
        """Path of the model's own data file, if it has one; always inside the model's folder."""
        if self.data is None or self.data.file is None:
            return None
        from pymc_mte.modelfile import resolve_beside

        return resolve_beside(self.data.file, self._folder)


def _explain(err: ValidationError) -> str:
    lines = []
    for item in err.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            message = "unknown key; remove it or check its spelling"
        elif key == "classes":
            message = f"must be a whole number from 1 to {MAX_CLASSES}, got {item['input']!r}"
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] != "value_error":
                message += f", got {str(item['input'])[:60]!r}"
        lines.append(f"{key}: {message}" if key else message)
    return "; ".join(lines)


def _check_variables(model: CausalModel) -> None:
    if not model.variables:
        raise ValueError("variables: at least one variable is needed")
    for name, var in model.variables.items():
        if name in RESERVED or not name:
            raise ValueError(
                f"variables.{name}: this name is used for results; rename the variable"
            )
        for parent in var.parents:
            if parent not in model.variables:
                raise ValueError(
                    f"variables.{name}.parents: {parent!r} is not a variable of this model"
                )
            if not model.variables[parent].discrete:
                raise ValueError(
                    f"variables.{name}.parents: {parent!r} is continuous; continuous parents are not "
                    "supported, so cut it into levels or remove the edge"
                )
        if len(set(var.parents)) != len(var.parents):
            raise ValueError(f"variables.{name}.parents: a parent is listed twice")
        cells = np.prod([float(len(model.variables[p].labels)) for p in (*var.parents, name)])
        if cells > MAX_TABLE:
            raise ValueError(
                f"variables.{name}: its table would have {cells:.0f} cells per class, more than {MAX_TABLE}; "
                "use fewer parents or levels"
            )
    if not nx.is_directed_acyclic_graph(model.graph):
        cycle = " -> ".join(edge[0] for edge in nx.find_cycle(model.graph))
        raise ValueError(f"variables: the parents form a cycle ({cycle}); remove one of its edges")


def _check_roles(model: CausalModel) -> None:
    t, y = model.treatment, model.outcome
    if (t is None) != (y is None):
        raise ValueError("roles: name both the treatment and the outcome, or neither")
    for key in ("treatment_proxies", "outcome_proxies", "covariates"):
        for name in getattr(model, key):
            if name not in model.variables and key != "covariates":
                raise ValueError(f"roles.{key}: {name!r} is not a variable of this model")
    if model.covariates:
        raise ValueError(
            "roles.covariates: observed covariates are not supported yet; leave the list empty"
        )
    if t is None or y is None:
        return
    for key, name in (("treatment", t), ("outcome", y)):
        if name not in model.variables:
            raise ValueError(f"roles.{key}: {name!r} is not a variable of this model")
    if not model.variables[t].discrete:
        raise ValueError(
            f"roles.treatment: {t!r} is continuous; a continuous treatment is not supported, so name "
            "a treatment with listed arms"
        )
    if model.variables[y].family == "categorical":
        raise ValueError(
            f"roles.outcome: {y!r} is categorical and has no mean; use bernoulli or a continuous family"
        )
    roles = [t, y, *model.treatment_proxies, *model.outcome_proxies]
    for name in set(roles):
        if roles.count(name) > 1:
            raise ValueError(f"roles: {name!r} has two roles; give it one")
    if model.reference is not None and model.reference not in model.variables[t].labels:
        labels = list(model.variables[t].labels)
        raise ValueError(
            f"roles.reference: {model.reference!r} is no level of {t!r}; choose one of {labels}"
        )
    forbidden = [(z, y, "treatment proxy") for z in model.treatment_proxies]
    forbidden += [(y, z, "treatment proxy") for z in model.treatment_proxies]
    for x in model.outcome_proxies:
        forbidden += [(t, x, "outcome proxy"), (y, x, "outcome proxy"), (x, t, "outcome proxy")]
    for parent, child, role in forbidden:
        if model.graph.has_edge(parent, child):
            proxy = (
                parent if parent in (*model.treatment_proxies, *model.outcome_proxies) else child
            )
            raise ValueError(
                f"variables.{child}.parents: the edge {parent} -> {child} breaks the role of {proxy!r} as "
                f"{role}; remove the edge or take {proxy!r} out of the roles"
            )


def _check_truth(model: CausalModel) -> None:
    if model.truth is None:
        return
    known = {"class_weight", *model.variables}
    if unknown := set(model.truth) - known:
        raise ModelError(f"truth: unknown keys {sorted(unknown)}; allowed are {sorted(known)}")
    if model.classes > 1 and "class_weight" not in model.truth:
        raise ModelError(f"truth.class_weight: missing; list {model.classes} weights that sum to 1")
    for name, (variable, parameter) in model.owners.items():
        entry = model.truth.get(variable)
        if not isinstance(entry, dict) or parameter not in entry:
            raise ModelError(
                f"truth.{variable}.{parameter}: missing; it needs the shape {model.shapes[name]}"
            )
        allowed = set(model.variables[variable].spec.parameters)
        if extra := set(entry) - allowed:
            raise ModelError(
                f"truth.{variable}: unknown keys {sorted(extra)}; allowed are {sorted(allowed)}"
            )
    try:
        values = model.true_parameters()
    except (TypeError, ValueError) as err:
        raise ModelError(f"truth: the numbers do not form a regular table ({err})") from None
    for name, value in values.items():
        wanted = model.shapes[name]
        key = "truth." + ".".join(model.owners.get(name, (name,)))
        if value.shape != wanted:
            axes = ", ".join(model.dims[name]) or "no axes"
            raise ModelError(f"{key}: expected the shape {wanted} ({axes}), got {value.shape}")
        scope = "table" if name == "class_weight" else _scope(model, name)
        if scope == "table":
            if (value < 0).any() or not np.allclose(value.sum(axis=-1), 1):
                raise ModelError(f"{key}: probabilities must lie in [0, 1] and sum to 1")
        elif scope in ("scale", "shared") and not (value > 0).all():
            raise ModelError(f"{key}: must be positive")


def _scope(model: CausalModel, name: str) -> str:
    variable, parameter = model.owners[name]
    return model.variables[variable].spec.parameters[parameter]
