"""The description of a mixture of interventions: one network, classes that differ by forced values."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pymc_mte.errors import ModelError

if TYPE_CHECKING:
    from pymc_mte.model import CausalModel

UNTOUCHED = -1
"""Stands for "not forced" where targets are arrays of level numbers."""

PARENT_AXIS = "parent_"
"""Begins the name of the axis of a variable's coefficients."""


class Interventions(BaseModel):
    """How the classes of a model differ: each forces some variables to a value (a "target").

    Attributes
    ----------
    kind : {"do", "shift"}
        Forced values, or a constant added to a linear equation. A model is either discrete (``do`` only) or
        linear Gaussian: all variables normal, each linear in its parents.
    targets : tuple, optional
        The only targets that are possible, any by default. Discrete: tables, ``{}`` for the untouched
        network. Linear: lists of the variables that are touched, ``[]`` for none; their values are learnt.
    base : mapping, optional
        Parameters of the untouched network, in the form of ``[truth]``, where they are known.
    base_file : str, optional
        CSV or Parquet file with rows of the untouched network, beside the model file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["do", "shift"] = "do"
    targets: tuple[dict[str, Any] | tuple[str, ...], ...] | None = None
    base: dict[str, Any] | None = None
    base_file: str | None = None


def tie_mechanisms(fields: dict[str, Any]) -> dict[str, Any]:
    """Take the class out of every mechanism, and count the classes where they are not counted."""
    stated = fields.get("interventions")
    variables = fields.get("variables")
    if stated is None or not isinstance(variables, dict):
        return fields
    tied: dict[str, Any] = {}
    for name, var in variables.items():
        if isinstance(var, dict):
            if var.get("latent", False):
                raise ModelError(
                    f"variables.{name}.latent: classes that differ by interventions share every mechanism; "
                    "remove the key"
                )
            tied[name] = {**var, "latent": False}
        else:
            tied[name] = var.model_copy(update={"latent": False}) if isinstance(var, BaseModel) else var
    truth = fields.get("truth")
    listed = truth.get("targets") if isinstance(truth, dict) else None
    if listed is None:
        listed = stated.get("targets") if isinstance(stated, dict) else getattr(stated, "targets", None)
    count = max(len(listed), 1) if isinstance(listed, list | tuple) else 1
    return {"classes": count, **fields, "variables": tied}


def stated_parameters(model: "CausalModel") -> dict[str, Any]:
    """Parameters of the truth; the network's from the known base where the truth leaves them out."""
    base = model.interventions.base if model.interventions is not None else None
    return {**(base or {}), **(model.truth or {})}


def check_interventions(model: "CausalModel") -> None:
    """Refuse roles, continuous variables, impossible targets and an impossible base."""
    stated = model.interventions
    if stated is None:
        if model.truth is not None and "targets" in model.truth:
            raise ValueError("truth.targets: only a model with an [interventions] table has targets; add one")
        return
    if model.treatment is not None or model.treatment_proxies or model.outcome_proxies:
        raise ValueError("roles: a mixture of interventions has no treatment or proxies; remove the roles")
    _check_families(model)
    if stated.base is not None and stated.base_file is not None:
        raise ValueError("interventions: name either base (known parameters) or base_file, not both")
    if stated.targets is not None:
        if not stated.targets:
            raise ValueError("interventions.targets: list at least one target, or leave the key out for any")
        (touched_array if model.linear else target_array)(model, stated.targets, "interventions.targets")
    if model.truth is None:
        return
    if "targets" not in model.truth:
        raise ValueError("truth.targets: missing; list what each class forces, {} for nothing")
    listed = (target_values if model.linear else target_array)(model, model.truth["targets"], "truth.targets")
    if len(listed) != model.classes:
        raise ValueError(
            f"truth.targets: {len(listed)} targets for {model.classes} classes; list one per class"
        )


def _check_families(model: "CausalModel") -> None:
    """Refuse a mixture of discrete and continuous variables, and shifts of discrete ones."""
    stated, continuous = model.interventions, model.continuous_variables
    assert stated is not None
    if not continuous:
        if stated.kind == "shift":
            raise ValueError("interventions.kind: only linear Gaussian networks are shifted; use 'do'")
        return
    for name, var in model.variables.items():
        if var.family != "normal":
            raise ValueError(
                f"variables.{name}: a mixture of interventions needs discrete variables only, or normal ones "
                f"only, and this one is {var.family}; cut the continuous ones into levels"
            )
        if var.scale_parents:
            raise ValueError(
                f"variables.{name}.scale_parents: errors of linear equations have one sd; remove it"
            )
        if name.startswith(PARENT_AXIS):
            raise ValueError(f"variables.{name}: names that begin with {PARENT_AXIS!r} are used for results")


def linear_dims(model: "CausalModel") -> dict[str, tuple[str, ...]]:
    """Axes of the parameters of all linear equations: intercepts, coefficients, sds of the errors."""
    out: dict[str, tuple[str, ...]] = {}
    for name, var in model.variables.items():
        out |= {f"intercept_{name}": ()}
        out |= {f"coefficient_{name}": (f"{PARENT_AXIS}{name}",)} if var.parents else {}
        out |= {f"sd_{name}": ()}
    return out


def check_base(model: "CausalModel") -> None:
    """Refuse a known base that is no valid set of parameters."""
    if model.interventions is None or model.interventions.base is None:
        return
    try:
        base_model(model)
    except ModelError as err:
        raise ModelError(str(err).replace("truth", "interventions.base")) from None


def target_array(model: "CausalModel", targets: Any, key: str = "targets") -> NDArray[np.int64]:
    """Turn targets into level numbers: (targets, variables), `UNTOUCHED` where nothing is forced."""
    names = list(model.variables)
    out = np.full((len(targets), len(names)), UNTOUCHED, dtype=np.int64)
    for row, target in enumerate(targets):
        if not isinstance(target, dict):
            raise ValueError(f"{key}: a target is a table such as {{a = 0}}, got {target!r}")
        for name, level in target.items():
            if name not in model.variables:
                raise ValueError(f"{key}: {name!r} is not a variable of this model")
            labels = model.variables[name].labels
            if level not in labels:
                raise ValueError(f"{key}: {level!r} is no level of {name!r}; choose one of {list(labels)}")
            out[row, names.index(name)] = labels.index(level)
    if len(np.unique(out, axis=0)) < len(out):
        raise ValueError(f"{key}: a target is listed twice; list each once")
    return out


def target_values(model: "CausalModel", targets: Any, key: str = "targets") -> NDArray[np.float64]:
    """Turn targets of a linear network into numbers: (targets, variables), NaN where nothing is touched."""
    names = list(model.variables)
    out = np.full((len(targets), len(names)), np.nan)
    for row, target in enumerate(targets):
        if not isinstance(target, dict):
            raise ValueError(f"{key}: a target is a table such as {{a = 1.5}}, got {target!r}")
        for name, value in target.items():
            if name not in model.variables:
                raise ValueError(f"{key}: {name!r} is not a variable of this model")
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                raise ValueError(f"{key}: {name!r} needs a finite number, got {value!r}")
            out[row, names.index(name)] = value
    if len(np.unique(np.nan_to_num(out, nan=np.inf), axis=0)) < len(out):
        raise ValueError(f"{key}: a target is listed twice; list each once")
    return out


def touched_array(model: "CausalModel", targets: Any, key: str = "targets") -> NDArray[np.bool_]:
    """Turn lists of touched variables into flags: (targets, variables)."""
    names = list(model.variables)
    out = np.zeros((len(targets), len(names)), dtype=bool)
    for row, target in enumerate(targets):
        if isinstance(target, dict):
            raise ValueError(f"{key}: list the variables that are touched, such as ['a'], got {target!r}")
        for name in target:
            if name not in model.variables:
                raise ValueError(f"{key}: {name!r} is not a variable of this model")
            out[row, names.index(name)] = True
    if (~out.any(axis=1)).sum() > 1:
        raise ValueError(f"{key}: the empty target is listed twice; list it once")
    return out


def value_labels(model: "CausalModel", values: NDArray[np.float64]) -> list[str]:
    """Write targets of a linear network in words, all different: ``{}``, ``a+1.5`` (shift), ``a=0`` (do)."""
    assert model.interventions is not None
    form = "{}{:+.3g}" if model.interventions.kind == "shift" else "{}={:.3g}"
    out: list[str] = []
    for row in values:
        pairs = zip(model.variables, row, strict=True)
        label = ", ".join(form.format(name, value) for name, value in pairs if not np.isnan(value)) or "{}"
        same = sum(known.split(" (")[0] == label for known in out)
        out.append(f"{label} ({same + 1})" if same else label)
    return out


def target_label(model: "CausalModel", target: NDArray[np.int64]) -> str:
    """Write a target in words: ``{}``, ``a=0`` or ``a=0, b=1``."""
    forced = [
        f"{name}={var.labels[value]}"
        for (name, var), value in zip(model.variables.items(), target, strict=True)
        if value != UNTOUCHED
    ]
    return ", ".join(forced) or "{}"


def base_model(model: "CausalModel") -> "CausalModel":
    """Return the untouched network as a model with one class and its parameters as truth.

    Parameters
    ----------
    model : CausalModel
        A model with interventions; its known base, else the network of its truth, is used.

    Returns
    -------
    CausalModel
        Its rows, from `simulate`, are a base sample.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> base = base_model(load_model("gallery:violated_exclusion"))
    >>> simulate(base, 100, rng=1).sizes["row"]
    100
    """
    from pymc_mte.model import CausalModel

    stated = stated_parameters(model)
    parameters = {name: entry for name, entry in stated.items() if name not in ("class_weight", "targets")}
    if model.linear:  # only a model with interventions may have continuous parents
        assert model.interventions is not None
        return CausalModel(
            name=model.name,
            variables=dict(model.variables),
            interventions={"kind": model.interventions.kind},
            truth=parameters | {"targets": [{}]} if parameters else None,
        )
    return CausalModel(
        name=model.name,
        classes=1,
        variables=dict(model.variables),
        truth=parameters or None,
    )
