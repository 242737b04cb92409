"""`build_model`: a plain PyMC model over patterns, the latent class summed out."""

from collections.abc import Mapping
from typing import Any

import pymc as pm

from pymc_mte.bayes.attach import checked, need_double
from pymc_mte.bayes.compose import compose
from pymc_mte.bayes.grid import Grid
from pymc_mte.bayes.linear_targets import build_linear
from pymc_mte.bayes.priors import Prior, merge_priors
from pymc_mte.bayes.targets import build_targets
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model


def build_model(
    model: CausalModel,
    data: Any = None,
    *,
    base: Any = None,
    start: Any = None,
    priors: Mapping[str, Prior] | None = None,
    grid: Grid | None = None,
    group: str | None = None,
) -> pm.Model:
    """Build (do not sample) the Bayesian latent-class causal model.

    The discrete variables enter as one multinomial over cells, the continuous ones as a mixture
    given the cell; together that is the exact joint likelihood with the class summed out. With covariates,
    linear parents, missing values or sampling weights every row is its own term: covariates shift the
    log-odds of class membership and, additively on the scale of its link, treatment and outcome; linear
    parents shift their children; missing values are summed out; sampling weights are powers of a row's
    likelihood, scaled to the effective number of rows.

    Parameters
    ----------
    model : CausalModel
        The graph and families.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default. Counts must be whole numbers.
    base : the same, optional
        For a model with interventions: rows of the untouched network, whose tables are then learnt
        together with the shares. By default its ``base`` parameters (known) or ``base_file``.
    start : DataTree, optional
        For a model with interventions that lists no targets: the answer of `estimate` whose targets
        are the candidates. They are searched anew where none is given.
    priors : mapping, optional
        Replacements by parameter name, e.g. ``{"p_z": 1.0}`` (Dirichlet concentration),
        ``{"mean_y": {"dist": "normal", "mu": 0, "sigma": 10}}``, ``{"p_x": {"pooled": 0.5}}`` (classes
        vary around a shared value; half-normal scale of that spread, in log-odds or, for a mean, in pooled
        standard deviations) or ``{"sd_y": f}`` with
        ``f(name, dims)`` returning a random variable.
    grid : float, mapping or "auto", optional
        Round the continuous variables (normal or student_t) to bins of this width, in their units, and
        take the exact likelihood of the rounded values: the cost then depends on the number of bins,
        not of rows. ``{name: width}`` for several; ``"auto"`` is a tenth of the smallest standard
        deviation within a class, by maximum likelihood.
    group : str, optional
        Column that names each row's group (a site, a donor); tabulated data have it already. Every group
        then has class weights of its own, ``group_class_weight``, partially pooled: their logs vary
        around ``class_weight_shared`` with the standard deviation ``class_weight_spread`` ~
        HalfNormal(1). ``class_weight`` is their average over the rows. All else is shared, so classes
        mean the same in every group. With ``priors={"group_effect": {"pooled": s}}`` every group also adds
        something of its own to the outcome, and something more in each arm but the reference, alike in
        all classes and on the scale of the outcome's link: normal around the groups' mean with standard
        deviations ``group_level_spread`` and ``group_effect_spread`` ~ HalfNormal(s), in log-odds, logs, or
        for a mean in pooled standard deviations. The outcome's parameters are then those of the average
        group. Not for ordinal outcomes and those with a hurdle, nor with a grid on the outcome.

    Returns
    -------
    pymc.Model
        Free variables named as in results (``class_weight``, ``p_z``, ``mean_y``); the ``p`` of a
        bernoulli variable is the probability of its second level, without a level axis, that of a
        binomial one the probability of success in one trial. Observed
        variables: ``counts`` and, with continuous variables, ``rows``. All data are `pymc.Data`.
        Row by row, ``rows`` holds all variables. With covariates ``baseline_weight`` is P(class) at their
        means and ``raw_coef_...`` are coefficients along uncorrelated directions; ``coef_class``,
        ``coef_<treatment>`` and ``coef_<outcome>`` (per unit of a covariate) and ``class_weight`` (average
        over the rows) follow from them. Children of linear parents have coefficients of their own in the
        same form. Their prior, ``priors={"coef_y": 2.5}``, is the standard deviation of the joint
        contribution of all that shifts a variable, in log-odds, logs or pooled standard deviations.
        With interventions: ``target_weight`` (Dirichlet, concentration 0.5) and the tables of a learnt
        base; observed are ``counts`` and, per learnt table, ``base_a``, ...

    Raises
    ------
    DataError
        If counts are not whole numbers or an arm is empty of meaning.

    Notes
    -----
    Default priors are alike for all classes and arms. With m and s the mean and standard deviation of all
    rows (censored times as if they had ended; without zeros that have a probability of their own): class
    weights and tables Dirichlet(2), single probabilities (``p_zero`` too) Beta(2, 2); means that may be
    negative Normal(m, 2.5 s); positive means, rates and scales of times LogNormal with median m and, on
    the log scale, variance log(1 + (2.5 s / m)^2); standard deviations HalfNormal(2.5 s); without units:
    ``dispersion`` Gamma(2, rate 2), ``shape`` Gamma(2, rate 1), ``nu`` Gamma(2, rate 0.1).

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> level3 = load_model("gallery:level3")
    >>> [v.name for v in build_model(level3, simulate(level3, 100)).free_RVs]
    ['class_weight', 'p_z', 'p_x', 'p_t', 'p_y']
    """
    need_model("build_model", model)
    if model.unbuilt is not None:
        raise RefusedError(f"no posterior for {model.name!r}: {model.unbuilt}")
    if model.interventions is not None:
        need_double()
        if grid is not None or group is not None:
            raise ModelError("grid and group: a model with interventions takes none; leave them out")
        build = build_linear if model.linear else build_targets
        return build(model, data, base=base, start=start, priors=priors)
    if base is not None or start is not None:
        raise ModelError("base and start: only a model with interventions takes them here; leave them out")
    model, table = checked(model, data, grid, group)
    with pm.Model() as built:
        compose(model, table, merge_priors(model, priors))
    return built
