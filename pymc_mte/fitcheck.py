"""Does the model fit? Observed against predicted counts, and dependence left within classes."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from pymc_mte.coefficients import refuse_linear
from pymc_mte.data import SAMPLING_WEIGHT, has_missing, resolve
from pymc_mte.errors import RefusedError
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.class_number import fit_classes
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.residuals import pair_residuals
from pymc_mte.network import log_joint, log_sum_classes
from pymc_mte.randomness import as_generator
from pymc_mte.results import model_of

TAIL = 0.05
"""Share of predictive draws beyond each end of the interval."""


def pattern_residuals(
    model: CausalModel,
    data: Any = None,
    *,
    posterior: xr.DataTree | None = None,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Set the observed count of every pattern against what the model predicts.

    Parameters
    ----------
    model : CausalModel
        A model of discrete variables.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    posterior : DataTree, optional
        From `sample`: counts are predicted from its draws. Else by maximum likelihood, without sampling.
    rng : int or numpy.random.Generator
        Source of predictive draws and random starts.

    Returns
    -------
    pandas.DataFrame
        Indexed by the levels of the variables, largest residual first: ``observed``, ``expected``,
        ``residual`` (difference in standard deviations of the count) and ``p`` (two-sided, exact for a
        binomial count; with a posterior the mid-p-value over its draws, which is conservative), and with
        a posterior the 90% predictive interval ``lower`` to ``upper``.

    Raises
    ------
    RefusedError
        If a variable is continuous, values are missing, rows have sampling weights, or the model has
        covariates, strata or interventions.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> table = pattern_residuals(model, simulate(model, 2_000, rng=1))
    >>> int(table["observed"].sum()), round(table["expected"].sum())
    (2000, 2000)
    """
    model, table = _discrete(model, data, posterior)
    columns, observed = _patterns(model, table)
    n, generator = observed.sum(), as_generator(rng)
    out = pd.DataFrame({"observed": observed})
    if posterior is None:
        fit = fit_classes(_problem(model, table, generator))
        known = {name: value[None] for name, value in fit.parameters.items()}
        share = np.exp(log_sum_classes(log_joint(model, known, columns)))
        out["p"] = 2 * np.minimum(_upper(observed, n, share), _upper(observed, n, share, below=True))[0]
    else:
        draws = posterior["posterior"].to_dataset().stack(all=("chain", "draw"))
        known = {name: np.moveaxis(draws[name].values, -1, 0) for name in model.dims}
        share = np.exp(log_sum_classes(log_joint(model, known, columns)))
        predicted = generator.binomial(int(n), np.clip(share, 0, 1))
        out["lower"], out["upper"] = np.quantile(predicted, [TAIL, 1 - TAIL], axis=0)
        high = (predicted > observed).mean(axis=0) + (predicted == observed).mean(axis=0) / 2
        out["p"] = 2 * np.minimum(high, 1 - high)
    share = share.mean(axis=0)
    out["p"] = np.minimum(out["p"], 1.0)
    out["expected"] = n * share
    out["residual"] = (observed - n * share) / np.sqrt(np.maximum(n * share * (1 - share), 1e-12))
    names = {v: np.asarray(model.variables[v].labels)[columns[v]] for v in model.variables}
    out.index = pd.MultiIndex.from_arrays(list(names.values()), names=list(names))
    order = ["observed", "expected", "residual", *(c for c in ("lower", "upper") if c in out), "p"]
    return out[order].sort_values("residual", key=np.abs, ascending=False)


def bivariate_residuals(
    model: CausalModel,
    data: Any = None,
    *,
    posterior: xr.DataTree | None = None,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Test every pair of variables without an edge for dependence within classes ("local dependence").

    Parameters
    ----------
    model : CausalModel
        The graph.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    posterior : DataTree, optional
        From `sample`: the maximum-likelihood fit behind the test then starts from its best draw.
    rng : int or numpy.random.Generator
        Source of random starts.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``first`` and ``second``, strongest dependence first: ``residual`` (Pearson's chi-squared
        of the two-way table against the fitted one, per degree of freedom), ``statistic``, ``df`` and
        ``p`` of the score test of an edge, and ``p_holm``, corrected for the number of pairs.

    Raises
    ------
    RefusedError
        If the model has covariates, linear parents, strata or interventions.

    Notes
    -----
    A missing edge bends the fit elsewhere too: draw the first one and look again.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:paper_pair")
    >>> table = bivariate_residuals(model, simulate(model, 2_000, rng=1))
    >>> list(table.columns)
    ['residual', 'statistic', 'df', 'p', 'p_holm']
    """
    model, table = _plain(model, data, posterior)
    problem = _problem(model, table, as_generator(rng))
    if posterior is None:
        found = fit_classes(problem).residuals
    else:
        from pymc_mte.model_comparison import best_fit

        found = pair_residuals(problem, best_fit(posterior).parameters)
    rows = [(*pair.edge, pair.residual, pair.statistic, pair.df, pair.p_value) for pair in found]
    columns = ["first", "second", "residual", "statistic", "df", "p"]
    out = pd.DataFrame(rows, columns=columns).set_index(["first", "second"])
    p = out["p"].to_numpy(dtype=float)
    out["p_holm"] = _holm(p)
    return out.sort_values(["p", "statistic"], ascending=[True, False], na_position="last")


def _holm(p: "np.ndarray[Any, np.dtype[np.float64]]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    """P-values corrected for their number, step by step; NaN stays."""
    out, known = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known])]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return out


def _patterns(model: CausalModel, table: xr.Dataset) -> tuple[dict[str, Any], Any]:
    """Levels and counts of the patterns; those that differ by group or cluster only are added up."""
    matrix = np.column_stack([table[name].values for name in model.variables])
    distinct, where = np.unique(matrix, axis=0, return_inverse=True)
    columns = {name: distinct[:, i] for i, name in enumerate(model.variables)}
    return columns, np.bincount(where.ravel(), table["count"].values.astype(float))


def _upper(
    count: "np.ndarray[Any, np.dtype[np.float64]]", n: float, share: Any, below: bool = False
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Probability of a count at least (or at most) as large as observed."""
    tail = stats.binom.cdf(count, n, share) if below else stats.binom.sf(count - 1, n, share)
    return np.asarray(tail)


def _problem(model: CausalModel, table: xr.Dataset, rng: np.random.Generator) -> Problem:
    return problem_of(model, table, int(rng.integers(2**31)))


def _plain(model: CausalModel, data: Any, posterior: xr.DataTree | None) -> tuple[CausalModel, xr.Dataset]:
    """Resolve model and rows; those of the posterior if it is given without rows."""
    if posterior is not None and "posterior" not in posterior:
        raise RefusedError("posterior: this result holds no draws; pass what `sample` gave")
    if posterior is not None and data is None:
        if "observed_data" not in posterior:
            raise RefusedError(
                "the posterior holds no observed rows (a share-safe file has none); pass the data"
            )
        model, table = model_of(posterior), posterior["observed_data"].to_dataset()
    else:
        need_model("a check of fit", model)
        model, table = resolve(model, data)
    if model.covariates or model.strata or model.interventions is not None:
        raise RefusedError("checks of fit take no covariates, strata or interventions")
    refuse_linear(model, "a check of fit")
    return model, table


def _discrete(model: CausalModel, data: Any, posterior: xr.DataTree | None) -> tuple[CausalModel, xr.Dataset]:
    model, table = _plain(model, data, posterior)
    if model.continuous_variables:
        raise RefusedError(
            f"{model.continuous_variables[0]!r} is continuous: its rows have no counts to predict; see "
            "`bivariate_residuals`"
        )
    if has_missing(model, table):
        raise RefusedError("counts of patterns need whole rows, and these have missing values")
    if SAMPLING_WEIGHT in table:
        raise RefusedError("counts of patterns are those of the sample, and sampling weights fit another law")
    return model, table
