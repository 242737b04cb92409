"""`policy`: what treating all, none, or those who gain would be worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import ModelError
from pymc_mte.predict import (
    DRAWS,
    NO_INDIVIDUAL,
    blocks,
    covariate_means_of,
    distinct,
    doubts,
    extrapolation,
    outside,
    read_rows,
    thinned_draws,
)
from pymc_mte.results import INTERVAL

Array = NDArray[np.float64]

GAINERS = "those who gain"

OPTIMISM = (
    "The rule 'those who gain' is chosen and valued with the same draws. If the model and its prior hold, "
    "that is no bias on average, but where they fail the rule looks better than it is: value it on fresh "
    "data from a trial before relying on it."
)


def policy(post: xr.DataTree, new_rows: Any, cost: float = 0.0, *, draws: int = DRAWS) -> pd.DataFrame:
    """Value rules that say who is treated.

    Parameters
    ----------
    post : DataTree
        From `sample`, or from an `estimate` whose method gives the tables of the network (``polished``).
    new_rows : dataframe, mapping of arrays, xarray.Dataset, str or Path
        The people to decide on, see `predict`. Give what is known before the treatment; what else is
        there is used too.
    cost : float
        Cost of treating one person instead of giving the reference arm, in units of the outcome.
    draws : int
        At most so many draws are used, evenly thinned; chains are left out where there are more of them.

    Returns
    -------
    pandas.DataFrame
        One line per rule: ``none`` (the reference arm for everybody), ``all`` (with several arms one line
        each) and ``those who gain`` (each row gets the arm whose mean effect over the draws, less the
        cost, is best). Columns: ``value``, the mean outcome with the cost taken off (added, where lower
        outcomes are better), its ``sd`` and 90% interval ``low_90``, ``high_90`` over the draws; ``gain``,
        by how much the rule is better than ``none``, with ``gain_low_90`` and ``gain_high_90``;
        ``treated``, the share of the rows. ``attrs["text"]`` says what to keep in mind;
        ``attrs["identified"]`` is 0 where graph and rows leave open what the values rest on, and
        ``attrs["weakly_identified"]`` 1 where class labels switch.

    Raises
    ------
    ModelError
        If the model has no treatment, or the cost is not a number.
    RefusedError
        If the result holds no tables.

    Examples
    --------
    >>> from pymc_mte import estimate, load_model, population
    >>> model = load_model("gallery:level3")
    >>> table = policy(estimate(model, population(model)), {"z": [0, 1], "x": [0, 1]}, cost=0.1)
    >>> table["value"].round(2).to_dict()
    {'none': 0.5, 'all': 0.4, 'those who gain': 0.75}
    """
    model, _, parameters = thinned_draws(post, draws)
    if model.treatment is None:
        raise ModelError("policy: this model names no treatment and outcome; add the roles")
    given: Any = cost
    number = isinstance(given, (int, float, np.number)) and not isinstance(given, bool)
    if not (number and np.isfinite(given)):
        raise ModelError(f"cost must be a finite number in units of the outcome, got {cost!r}")
    columns, place = distinct(read_rows(new_rows, model, covariate_means_of(model, post)))
    count = np.bincount(place, minlength=len(next(iter(columns.values())))).astype(float)
    reference, arms = model.reference_arm, range(len(model.arms))
    sign = 1.0 if model.better == "higher" else -1.0
    charge = sign * cost * (np.arange(len(arms)) != reference)
    sums = np.zeros((len(parameters["class_weight"]), len(arms) + 1))
    treated = np.zeros(len(arms) + 1)
    for block in blocks(model, parameters, columns):
        assert block.outcome is not None
        value, weight = block.outcome - charge, count[block.rows]
        best = _best_arm(sign * value.mean(axis=0), reference)
        sums[:, :-1] += np.einsum("dra,r->da", value, weight)
        sums[:, -1] += value[:, np.arange(len(best)), best] @ weight
        treated[-1] += weight[best != reference].sum()
    treated[[arm for arm in arms if arm != reference]] = len(place)
    names = {reference: "none", len(arms): GAINERS}
    names |= {b: "all" if len(arms) == 2 else f"all: {model.arms[b]}" for b, _ in model.contrasts}
    order = [reference, *(b for b, _ in model.contrasts), len(arms)]
    values = sums / len(place)
    lines = {names[i]: _line(values[:, i], sign * (values[:, i] - values[:, reference])) for i in order}
    table = pd.DataFrame.from_dict(lines, orient="index")
    table["treated"] = treated[order] / len(place)
    flags, doubt = doubts(post, model)
    beyond = extrapolation(*outside(model, post, columns, place))
    text = " ".join(said for said in (NO_INDIVIDUAL, OPTIMISM, doubt, beyond) if said)
    table.attrs |= {"text": text, **flags}
    return table


def _best_arm(worth: Array, reference: int) -> NDArray[np.int64]:
    """Arm of every row (rows, arms) that is worth most; the reference arm unless another is better."""
    best = worth.argmax(axis=1)
    better = worth[np.arange(len(best)), best] > worth[:, reference]
    return np.where(better, best, reference)


def _line(value: Array, gain: Array) -> Mapping[str, float]:
    tails = [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]
    low, high = np.quantile(value, tails)
    gain_low, gain_high = np.quantile(gain, tails)
    return {
        "value": float(value.mean()),
        "sd": float(value.std(ddof=1)) if len(value) > 1 else np.nan,
        "low_90": float(low),
        "high_90": float(high),
        "gain": float(gain.mean()),
        "gain_low_90": float(gain_low),
        "gain_high_90": float(gain_high),
    }
