"""`add_to_model`: class weights, tables, likelihood and effects as a part of a user's own PyMC model."""

from collections.abc import Mapping
from typing import Any

import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pytensor.configdefaults import config

from pymc_mte.bayes.compose import OutcomeDensity, compose
from pymc_mte.bayes.effects import symbolic_functionals
from pymc_mte.bayes.grid import Grid, on_grid
from pymc_mte.bayes.pooling import GROUP_EFFECT
from pymc_mte.bayes.priors import Prior, Tensor, merge_priors, shape_of
from pymc_mte.bayes.rowwise import needs_rows
from pymc_mte.data import GROUP, resolve
from pymc_mte.errors import DataError, ModelError, RefusedError
from pymc_mte.functionals import functional_dims
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model

ROW_BY_ROW = (
    "with covariates, linear parents, missing values or sampling weights the rows cannot be collapsed; "
    "leave it out"
)


def add_to_model(
    model: CausalModel,
    data: Any = None,
    prefix: str = "",
    priors: Mapping[str, Prior] | None = None,
    outcome: OutcomeDensity | None = None,
    *,
    grid: Grid | None = None,
    group: str | None = None,
) -> dict[str, Tensor]:
    """Add a causal model with its data to the PyMC model whose context is open.

    The hidden class is summed out: what is added can be sampled by any sampler, together with
    whatever else the PyMC model holds. `build_model` is this call in an empty model, without the
    effects, which `sample` computes afterwards.

    Parameters
    ----------
    model : CausalModel
        The graph and families.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default. Counts must be whole numbers.
    prefix : str
        Name of this part, needed where a PyMC model takes several: its variables are then called
        ``prefix::class_weight`` and so on. Axes are shared by all parts.
    priors : mapping, optional
        By parameter name, see `build_model`. A callable ``f(name, dims)`` may return a new random
        variable or any tensor of that shape: so parts share tables, or depend on other variables.
    outcome : callable, optional
        An own log-density of the outcome instead of its family's: ``f(u, t, row)`` is given the class
        numbers ``u`` of shape (1, classes), the treatment's level numbers ``t`` of shape (rows, 1) and
        ``row``, which maps every variable of the model to its column of shape (rows, 1): level numbers of
        discrete ones, values of continuous ones, the outcome among them. It returns the log-density
        (rows, classes). Rows are the distinct rows of the data, in any order. Declare the outcome with a
        continuous family in the model; its parameters are not created.
    grid : float, mapping or "auto", optional
        Round continuous variables to bins of this width, see `build_model`.
    group : str, optional
        Column of groups whose class weights are partially pooled, see `build_model`.

    Returns
    -------
    dict of str to tensor
        Parameters and, unless ``outcome`` is given or the model has a linear part, the functionals
        ``potential_outcome``, ``effect``, ``ate``, ``att``, ``effect_sd``, ``weight_harmed`` and
        ``arm_mean``, which are deterministic variables of the PyMC model, by their names without the
        prefix. A bernoulli ``p`` is the probability of the second level.

    Raises
    ------
    ModelError
        If no PyMC model is open, an axis means something else in it already, or the outcome cannot
        have an own density, or not the one that ``outcome`` gives.
    DataError
        If counts are not whole numbers.
    RefusedError
        If there is no posterior for such a model or such data.

    Examples
    --------
    A Weibull outcome of one's own:

    >>> import numpy as np, pymc as pm
    >>> from pymc_mte import CausalModel
    >>> b = {"family": "bernoulli"}
    >>> variables = {"z": b, "x": b, "t": {**b, "parents": ["z"]}, "y": {"family": "normal"}}
    >>> roles = dict(treatment="t", outcome="y", treatment_proxies=["z"], outcome_proxies=["x"])
    >>> model = CausalModel(classes=2, variables=variables, **roles)
    >>> rng = np.random.default_rng(1)
    >>> rows = {name: rng.integers(0, 2, 50) for name in "zxt"} | {"y": rng.weibull(1.5, 50)}
    >>> with pm.Model() as own:
    ...     shape = pm.Gamma("shape", 4, 2)
    ...     scale = pm.HalfNormal("scale", 2, shape=(2, 2))
    ...     part = add_to_model(
    ...         model, rows, outcome=lambda u, t, row: pm.logp(pm.Weibull.dist(shape, scale[u, t]), row["y"])
    ...     )
    >>> sorted(part), [v.name for v in own.observed_RVs]
    (['class_weight', 'p_t', 'p_x', 'p_z'], ['counts', 'rows'])
    """
    if pm.Model.get_context(error_if_none=False) is None:
        raise ModelError("add_to_model: no PyMC model is open; call it inside `with pm.Model():`")
    need_model("add_to_model", model)
    if not isinstance(prefix, str):
        raise ModelError(f"prefix: a name for this part is wanted, as text, got {prefix!r}")
    model, table = checked(model, data, grid, group)
    if outcome is not None and grid is not None:
        raise ModelError("grid: an own density of the outcome is not that of bins; leave one of them out")
    if outcome is not None:
        _check_own_outcome(model, table, outcome)
        outcome = _guarded(outcome, model.classes, table.sizes["pattern"])
    chosen = merge_priors(model, priors)
    try:
        if prefix:
            with pm.Model(name=prefix):
                return _added(model, table, chosen, outcome)
        return _added(model, table, chosen, outcome)
    except ValueError as err:
        if "already exists" in str(err):
            raise ModelError(f"add_to_model: {err} Give this part a `prefix` of its own") from None
        if "incompatible coordinate" not in str(err):
            raise
        raise ModelError(
            f"add_to_model: {err} Axes are shared in a PyMC model, so all parts need the same classes and "
            "levels under one name; rename the variable, or build two PyMC models"
        ) from None


def need_double() -> None:
    """Refuse single precision, in which the log-likelihood of a few thousand rows has no digits to spare."""
    if config.floatX != "float64":
        raise RefusedError(
            f"the posterior is computed in double precision, and PyTensor is set to floatX={config.floatX}: "
            "take that out of PYTENSOR_FLAGS or .pytensorrc, or set pytensor.config.floatX = 'float64'"
        )


def checked(
    model: CausalModel, data: Any, grid: Grid | None = None, group: str | None = None
) -> tuple[CausalModel, xr.Dataset]:
    """Tabulate, round where that is asked for, and refuse what has no posterior."""
    need_double()
    if model.unbuilt is not None:
        raise RefusedError(f"no posterior for {model.name!r}: {model.unbuilt}")
    if model.interventions is not None:
        raise ModelError("add_to_model: mixtures of interventions are built by `build_model` alone")
    model, table = resolve(model, data, group)
    if table["count"].dtype.kind != "i":
        raise DataError("the posterior needs whole counts; real-valued tables are for moment methods only")
    for name, asked in (("grid", grid is not None), ("group", GROUP in table)):
        if asked and needs_rows(model, table):
            raise ModelError(f"{name}: {ROW_BY_ROW}")
    return model, table if grid is None else on_grid(model, table, grid)


def _check_own_outcome(model: CausalModel, table: xr.Dataset, outcome: object) -> None:
    if not callable(outcome):
        raise ModelError(f"outcome: a function f(u, t, row) is wanted, got {type(outcome).__name__}")
    if needs_rows(model, table):
        raise ModelError(f"outcome: {ROW_BY_ROW}")
    if model.outcome is None:
        raise ModelError("outcome: this model names none, so it cannot have an own density; add the roles")
    if model.variables[model.outcome].discrete:
        raise ModelError(
            f"outcome: an own density needs {model.outcome!r} declared with a continuous family (such as "
            f"normal, which is then not used); it is {model.variables[model.outcome].family}"
        )


class _Columns(dict[str, Tensor]):
    """Columns of the rows, which say their names when another one is asked for."""

    def __missing__(self, name: object) -> Tensor:
        raise ModelError(f"outcome: row has no column {name!r}; its columns are {', '.join(self)}")


def _guarded(outcome: OutcomeDensity, classes: int, rows: int) -> OutcomeDensity:
    """Check what an own density reads and gives: another shape fails only when it is computed, if at all."""

    def checked_density(u: Any, t: Tensor, row: Mapping[str, Tensor]) -> Tensor:
        density = outcome(u, t, _Columns(row))
        if getattr(density, "ndim", None) != 2:
            return density  # refused where it is used
        came = shape_of(pt.as_tensor(density))
        if came[0] not in (1, rows) or came[1] not in (1, classes):
            raise ModelError(
                f"outcome: a log-density of shape (rows, classes) = {(rows, classes)} is wanted, got {came}; "
                "u is of shape (1, classes), t and columns are (rows, 1)"
            )
        return density

    return checked_density


def _added(
    model: CausalModel, table: xr.Dataset, priors: Mapping[str, Prior], outcome: OutcomeDensity | None
) -> dict[str, Tensor]:
    if GROUP_EFFECT in priors:
        raise ModelError(
            f"prior of {GROUP_EFFECT}: effects of groups are averaged by `sample` only; use `build_model`"
        )
    parameters = compose(model, table, priors, outcome)
    if outcome is not None or model.treatment is None or model.regressed:
        return parameters
    dims = functional_dims(model)
    pm.modelcontext(None).add_coords({d: model.coords[d] for d in ("treatment", "contrast")})
    found = symbolic_functionals(model, parameters)
    return parameters | {
        name: pm.Deterministic(name, value, dims=dims[name]) for name, value in found.items()
    }
