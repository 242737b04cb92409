"""Which moment method a graph carries, and which one `auto` takes. NumPy only."""

from pymc_mte.coefficients import refuse_linear
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.hierarchy import MEANING, REACHED, hierarchy
from pymc_mte.model import CausalModel
from pymc_mte.moments.classes import choose_class_method, lacks_proxies
from pymc_mte.moments.methods import METHODS

MAX_POLISHED_CELLS = 100_000
"""`auto` polishes when all variables are discrete and their table is no larger."""


def choose_method(model: CausalModel, method: str, positive: bool = True) -> str:
    """Resolve ``auto`` and refuse what the graph does not carry."""
    if method not in ("auto", *METHODS):
        raise ModelError(f"method {method!r} is unknown; choose auto, {', '.join(METHODS)}")
    if model.censored:
        return _censored(model, method)
    found = hierarchy(model)
    if model.covariates:
        return _averages_only(method, found.level)
    if method == "polished" or found.level == "HTE":
        refuse_linear(model, "maximum likelihood (method='polished')")
    if found.level == "HTE":
        if method in ("auto", "polished"):
            return "polished"
        raise RefusedError(
            f"method {method!r} uses proxies of a latent class, and this model has classes = 1; "
            "use method='polished', which averages over the observed variables"
        )
    if method == "auto":
        if found.level == "ATE" or (found.level != "none" and not positive):
            return "bridge"
        tables = not model.continuous_variables and not model.linear_edges
        small = tables and model.n_cells <= MAX_POLISHED_CELLS
        method = "polished" if small and found.level != "none" else "spectral"
    if method == "polished" or (method == "bridge" and found.level != "none"):
        return method
    if not REACHED[found.level] >= {"effect"}:
        failing = "; ".join(str(item) for item in found.needed if not item.holds)
        edges = ", ".join(f"{a} -> {b}" for a, b in found.costing)
        raise RefusedError(
            f"method {method!r} is refused: the graph reaches {MEANING[found.level]}. "
            + (f"It lacks: {failing}. " if failing else "It lacks proxies on both sides of the class. ")
            + (f"Without the edge {edges} it would reach more. " if edges else "")
            + (
                "Use method='bridge' for averages."
                if found.level == "ATE"
                else "Change the roles or add proxies."
            )
        )
    return method


def why_no_moments(model: CausalModel) -> str | None:
    """Sentence that says why no moment method takes such a graph; None if one does."""
    if model.interventions is not None:
        return None
    try:
        (choose_class_method if lacks_proxies(model) else choose_method)(model, "auto")
    except RefusedError as err:
        said = str(err)
        reason = said.partition(" is refused: ")[2] or said  # which method was tried first says nothing here
        return reason[:1].upper() + reason[1:]
    return None


def _censored(model: CausalModel, method: str) -> str:
    """Methods for a censored outcome: its means are not seen, so only the likelihood answers."""
    if method in ("auto", "polished") and not model.covariates:
        refuse_linear(model, "maximum likelihood (method='polished')")
        return "polished"
    raise RefusedError(
        f"method {method!r} is refused: it needs means of {model.outcome!r}, and censored times have none to "
        "see; use method='polished' (without covariates) or `sample`, which take their likelihood"
    )


def _averages_only(method: str, level: str) -> str:
    """Methods for models with covariates: these are partialled out, which leaves averages only."""
    if level in ("HTE", "none"):
        raise RefusedError(
            "covariates are partialled out by the bridge, which needs proxies of a latent class on both "
            "sides; name them, or list the covariates as strata"
        )
    if method not in ("auto", "bridge"):
        raise RefusedError(
            f"method {method!r} is refused: classes given covariates cannot be told apart by moments; use "
            "method='bridge' for averages, or list discrete covariates as strata"
        )
    return "bridge"
