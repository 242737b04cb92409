"""What a model description must satisfy; every refusal names the key and the mend."""

from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from pydantic import ValidationError

from pymc_mte.coefficients import TERM_AXIS, uncentred
from pymc_mte.errors import ModelError
from pymc_mte.families import LINKS
from pymc_mte.interventions import check_base, stated_parameters

if TYPE_CHECKING:
    from pymc_mte.model import CausalModel

MAX_CLASSES = 50
MAX_LEVELS = 1_000
MAX_TABLE = 1_000_000
"""Largest conditional probability table (cells per class) that a model may ask for."""

RESERVED = frozenset(
    [
        "class",
        "treatment",
        "contrast",
        "pattern",
        "count",
        "chain",
        "draw",
        "latent_class",
        "class_weight",
        "effect",
        "potential_outcome",
        "ate",
        "att",
        "ate_bridge",
        "att_bridge",
        "effect_sd",
        "effect_cdf",
        "weight_harmed",
        "arm_mean",
        "causal_groups",
        "bridge",
        "synthetic_moment",
        "effect_moment",
        "feature",
        "order",
        "effect_value",
        "outcome_cdf",
        "outcome_quantile",
        "outcome_value",
        "quantile",
        "covariate",
        "baseline_weight",
        "cell",
        "continuous",
        "row",
        "sampling_weight",
        "cluster",
        "stratum",
    ]
)

RESERVED_BY_TARGETS = frozenset(["target", "targets", "target_weight", "candidate", "variable"])
"""Names of results of models with interventions."""

CONTINUOUS_TREATMENT = (
    "roles.treatment: {!r} is continuous; a continuous treatment is not supported, so name a "
    "treatment with listed arms"
)

UNSUPPORTED = {
    "instruments": "Instruments are not supported: use a two-stage least squares package.",
    "time": "Time-varying treatments and panels are not supported: use a g-methods package.",
    "panel": "Time-varying treatments and panels are not supported: use a g-methods package.",
}


def explain(err: ValidationError) -> str:
    """Turn pydantic's report into our sentences."""
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


def append_treatment(fields: dict[str, Any]) -> dict[str, Any]:
    """Give the outcome the treatment as its last parent when it is missing."""
    outcome, treatment = fields.get("outcome"), fields.get("treatment")
    variables = fields.get("variables")
    if not isinstance(variables, dict) or treatment is None or outcome not in variables:
        return fields
    child = variables[outcome]
    raw = child if isinstance(child, dict) else child.model_dump() if hasattr(child, "model_dump") else None
    if raw is None:
        return fields
    parents = tuple(raw.get("parents", ()))
    if treatment not in (*parents, *raw.get("linear_parents", ())):
        raw = {**raw, "parents": (*parents, treatment)}
    return {**fields, "variables": {**variables, outcome: raw}}


def check_variables(model: "CausalModel") -> None:
    """Refuse impossible names, edges, cycles and tables."""
    if not model.variables:
        raise ValueError("variables: at least one variable is needed")
    _check_names(model)
    for name, var in model.variables.items():
        for parent in var.parents:
            if parent not in model.variables:
                raise ValueError(f"variables.{name}.parents: {parent!r} is not a variable of this model")
            if not model.variables[parent].discrete and parent == model.treatment:
                raise ValueError(CONTINUOUS_TREATMENT.format(parent))
            if not model.variables[parent].discrete and not model.linear:
                raise ValueError(
                    f"variables.{name}.parents: {parent!r} is continuous, and these parents have full "
                    "tables; list it in linear_parents, or cut it into levels"
                )
        if len(set(var.parents)) != len(var.parents):
            raise ValueError(f"variables.{name}.parents: a parent is listed twice")
        _check_linear_parents(model, name)
        cells = np.prod([float(len(model.variables[p].labels)) for p in (*var.parents, name)])
        if cells > MAX_TABLE and not model.linear:
            raise ValueError(
                f"variables.{name}: its table would have {cells:.0f} cells per class, more than {MAX_TABLE}; "
                "use fewer parents or levels"
            )
    if not nx.is_directed_acyclic_graph(model.graph):
        cycle = " -> ".join(edge[0] for edge in nx.find_cycle(model.graph))
        raise ValueError(f"variables: the parents form a cycle ({cycle}); remove one of its edges")


def _check_linear_parents(model: "CausalModel", name: str) -> None:
    """Refuse linear parents that are unknown, doubled or cannot shift a variable."""
    var, key = model.variables[name], f"variables.{name}.linear_parents"
    if not var.linear_parents:
        return
    if model.interventions is not None:
        raise ValueError(f"{key}: a model with interventions takes none; use parents")
    if var.family not in LINKS:
        raise ValueError(f"{key}: they shift {', '.join(LINKS)} variables only, and {name!r} is {var.family}")
    if f"{name}{TERM_AXIS}" in model.variables:
        raise ValueError(
            f"variables.{name}{TERM_AXIS}: this is the axis of the coefficients of {name!r}; rename"
        )
    for parent in var.linear_parents:
        if parent not in model.variables:
            raise ValueError(f"{key}: {parent!r} is not a variable of this model")
        if name == model.outcome and parent == model.treatment:
            raise ValueError(
                f"{key}: the treatment {parent!r} has full tables for the outcome; list it in parents"
            )
        if var.all_parents.count(parent) > 1:
            raise ValueError(f"{key}: {parent!r} is listed twice, here or in parents; keep one of them")
        above = model.variables[parent]
        if above.event is not None:
            raise ValueError(
                f"{key}: {parent!r} is a censored time, whose value is not always known; remove it"
            )
        if model.truth is not None and parent in uncentred(model):
            raise ValueError(
                f"variables.{parent}.centre: missing; with a [truth], say at which value of {parent!r} the "
                f"parameters of {name!r} are meant (0, say)"
            )


def _check_names(model: "CausalModel") -> None:
    """Refuse names that results or other columns have."""
    taken = RESERVED | (RESERVED_BY_TARGETS if model.interventions is not None else frozenset())
    for name, var in model.variables.items():
        if name in taken or name in model.owners or not name:
            raise ValueError(f"variables.{name}: this name is used for results; rename the variable")
        if "/" in name:
            raise ValueError(f"variables.{name}: a slash separates groups in results; rename the variable")
        if var.event is not None:
            _check_event(model, name, var.event)
    if len(model.owners) < sum(len(var.spec.parameters) for var in model.variables.values()):
        raise ValueError(
            "variables: two parameters would have one name in results (p_zero_a is the p of 'zero_a' or the "
            "p_zero of 'a'); rename a variable"
        )


def _check_event(model: "CausalModel", name: str, event: str) -> None:
    """Refuse an event column that is something else too, and censored proxies."""
    if event in RESERVED or event in (*model.variables, *model.covariates, *model.strata):
        raise ValueError(f"variables.{name}.event: {event!r} is used for something else; rename the column")
    if name in (*model.treatment_proxies, *model.outcome_proxies):
        raise ValueError(
            f"variables.{name}.event: {name!r} is a proxy, and censored times have no features; take it "
            "out of the roles (the posterior still uses it) or leave the key out"
        )


def check_roles(model: "CausalModel") -> None:
    """Refuse roles that are unknown, doubled, unsupported or contradicted by an edge."""
    t, y = model.treatment, model.outcome
    if (t is None) != (y is None):
        raise ValueError("roles: name both the treatment and the outcome, or neither")
    for key in ("treatment_proxies", "outcome_proxies"):
        for name in getattr(model, key):
            if name not in model.variables:
                raise ValueError(f"roles.{key}: {name!r} is not a variable of this model")
    _check_conditioned(model)
    if t is not None and y is not None:
        _check_causes(model, t, y)


def _check_conditioned(model: "CausalModel") -> None:
    """Refuse covariates and strata that are modelled too, doubled, or asked for without a treatment."""
    listed = [("covariates", name) for name in model.covariates]
    listed += [("strata", name) for name in model.strata]
    seen: set[str] = set()
    for key, name in listed:
        if name in model.variables:
            raise ValueError(
                f"roles.{key}: {name!r} is also a variable; covariates and strata are conditioned on, not "
                "modelled, so take it out of [variables] (or out of this list)"
            )
        if name in seen:
            raise ValueError(f"roles.{key}: {name!r} is listed twice")
        if name in RESERVED or not name:
            raise ValueError(f"roles.{key}: the name {name!r} is used for results; rename the column")
        seen.add(name)
    if unknown := model.covariate_levels.keys() - set(model.covariates):
        raise ValueError(f"roles.covariate_levels: {sorted(unknown)[0]!r} is not among the covariates")
    if listed and model.treatment is None:
        raise ValueError(f"roles.{listed[0][0]}: they need a treatment and an outcome; name both")
    if listed and model.truth is not None:
        raise ValueError(
            f"roles.{listed[0][0]}: a model with a [truth] is simulated, and these columns are not modelled; "
            "leave one of the two out"
        )


def _check_causes(model: "CausalModel", t: str, y: str) -> None:
    """Refuse impossible treatments and outcomes, and doubled roles."""
    for key, name in (("treatment", t), ("outcome", y)):
        if name not in model.variables:
            raise ValueError(f"roles.{key}: {name!r} is not a variable of this model")
    if not model.variables[t].discrete:
        raise ValueError(CONTINUOUS_TREATMENT.format(t))
    if (family := model.variables[y].family) in ("categorical", "ordinal"):
        raise ValueError(
            f"roles.outcome: {y!r} is {family} and has no mean; use bernoulli or a family of numbers"
        )
    roles = [t, y, *model.treatment_proxies, *model.outcome_proxies]
    for name in set(roles):
        if roles.count(name) > 1:
            raise ValueError(f"roles: {name!r} has two roles; give it one")
    if model.reference is not None and model.reference not in model.variables[t].labels:
        labels = list(model.variables[t].labels)
        raise ValueError(f"roles.reference: {model.reference!r} is no level of {t!r}; choose one of {labels}")
    _check_proxy_edges(model, t, y)


def _check_proxy_edges(model: "CausalModel", t: str, y: str) -> None:
    """Refuse observed edges that take a proxy out of its role."""
    forbidden = [(z, y, "treatment proxy") for z in model.treatment_proxies]
    forbidden += [(y, z, "treatment proxy") for z in model.treatment_proxies]
    for x in model.outcome_proxies:
        forbidden += [(t, x, "outcome proxy"), (y, x, "outcome proxy"), (x, t, "outcome proxy")]
    for parent, child, role in forbidden:
        if model.graph.has_edge(parent, child):
            proxy = parent if parent in (*model.treatment_proxies, *model.outcome_proxies) else child
            key = "linear_parents" if parent in model.variables[child].linear_parents else "parents"
            raise ValueError(
                f"variables.{child}.{key}: the edge {parent} -> {child} breaks the role of {proxy!r} as "
                f"{role}; remove the edge or take {proxy!r} out of the roles"
            )


def check_truth(model: "CausalModel") -> None:
    """Refuse a truth, or a known base network, that lacks parameters or has impossible ones."""
    check_base(model)
    if model.truth is None:
        return
    known = {"class_weight", *model.variables} | ({"targets"} if model.interventions else set())
    stated = stated_parameters(model)
    if unknown := set(model.truth) - known:
        raise ModelError(f"truth: unknown keys {sorted(unknown)}; allowed are {sorted(known)}")
    if model.classes > 1 and "class_weight" not in model.truth:
        raise ModelError(f"truth.class_weight: missing; list {model.classes} weights that sum to 1")
    for name, (variable, parameter) in model.owners.items():
        entry = stated.get(variable)
        if not isinstance(entry, dict) or parameter not in entry:
            raise ModelError(
                f"truth.{variable}.{parameter}: missing; it needs the shape {model.shapes[name]}"
            )
        allowed = {own for owner, own in model.owners.values() if owner == variable}
        if variable in model.regressed:
            allowed.add("coef")
            if "coef" not in entry:
                raise ModelError(
                    f"truth.{variable}.coef: missing; it needs one for {list(model.terms[variable])}"
                )
        if extra := set(entry) - allowed:
            raise ModelError(f"truth.{variable}: unknown keys {sorted(extra)}; allowed are {sorted(allowed)}")
    _check_truth_values(model)


def _check_truth_values(model: "CausalModel") -> None:
    try:
        values = model.true_parameters()
    except (TypeError, ValueError) as err:
        raise ModelError(f"truth: the numbers do not form a regular table ({err})") from None
    for name, value in values.items():
        dims = model.posterior_dims[name]
        wanted = tuple(model.size(d) for d in dims)
        coefficient = name in model.coefficient_dims
        place = (name.removeprefix("coef_"), "coef") if coefficient else model.owners.get(name, (name,))
        key = "truth." + ".".join(place)
        if value.shape != wanted:
            axes = ", ".join(dims) or "no axes"
            raise ModelError(f"{key}: expected the shape {wanted} ({axes}), got {value.shape}")
        if not np.isfinite(value).all():
            raise ModelError(f"{key}: every number must be finite")
        if coefficient:
            continue
        support = model.kind(name).support
        if support == "simplex":
            if (value < 0).any() or not np.allclose(value.sum(axis=-1), 1):
                raise ModelError(f"{key}: probabilities must lie in [0, 1] and sum to 1")
        elif support == "unit":
            if (value < 0).any() or (value > 1).any():
                raise ModelError(f"{key}: probabilities must lie in [0, 1]")
        elif support == "positive" and not (value > 0).all():
            raise ModelError(f"{key}: must be positive")
