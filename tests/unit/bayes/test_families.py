"""Every family as proxy, as treatment and as outcome: log-density and gradient against sums over classes."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special, stats

from pymc_mte import CausalModel, build_model, simulate, tabulate
from pymc_mte.bayes.densities import LOG_DENSITY, MEAN
from pymc_mte.bayes.layout import pattern_layout
from pymc_mte.families import FAMILIES

NUMBERS = [name for name, family in FAMILIES.items() if not family.discrete]
TREATMENTS = {
    "b": {"family": "bernoulli"},
    "c": {"family": "categorical", "levels": ["u", "v", "w"], "parents": ["b"]},
    "o": {"family": "ordinal", "levels": [1, 2, 3], "parents": ["b"]},
    "s": {"family": "binomial", "trials": 2, "parents": ["b"]},
}
STEP = 1e-40


def model_of(families, **options):
    """One model with each family of numbers as a proxy and below one of the treatments."""
    variables = dict(TREATMENTS)
    for i, family in enumerate(families):
        own = {"family": family}
        if FAMILIES[family].censored:
            own |= {"event": f"seen_{family}", "censor_at": 2.0}
        variables[f"{family}_alone"] = {"family": family}
        variables[f"{family}_child"] = {**own, "parents": [list(TREATMENTS)[i % 4]], **options}
    return CausalModel(classes=2, variables=variables)


# The laws once more, by other formulas than the package's, for complex parameters too.


def gamma(x, mean, sd):
    shape = mean**2 / sd**2
    scale = sd**2 / mean
    return (shape - 1) * np.log(x) - x / scale - shape * np.log(scale) - special.loggamma(shape)


def lognormal(x, mean, sd):
    sigma = np.sqrt(np.log(1 + sd**2 / mean**2))
    z = (np.log(x) - np.log(mean**2 / np.sqrt(mean**2 + sd**2))) / sigma
    return -(z**2) / 2 - np.log(sigma * x * np.sqrt(2 * np.pi))


def poisson(x, rate):
    return x * np.log(rate) - rate - special.gammaln(x + 1)


def negative_binomial(x, mean, dispersion):
    n, p = 1 / dispersion, 1 / (1 + dispersion * mean)
    ways = special.loggamma(x + n) - special.loggamma(n) - special.gammaln(x + 1)
    return ways + n * np.log(p) + x * np.log(1 - p)


def weibull(x, scale, shape):
    last = -((np.abs(x) / scale) ** shape)
    return np.where(x < 0, last, last + np.log(shape * np.abs(x) ** (shape - 1) / scale**shape))


def hurdle(law):
    def density(x, *parameters):
        *own, zero = parameters
        none = np.exp(law(np.array(0.0), *own)) if law in (poisson, negative_binomial) else 0.0
        above = np.log(1 - zero) + law(np.where(x > 0, x, 1.0), *own) - np.log(1 - none)
        return np.where(x > 0, above, np.log(zero))

    return density


def student_t(x, mean, sd, nu):
    constant = special.loggamma((nu + 1) / 2) - special.loggamma(nu / 2)
    return (
        constant
        - np.log(np.pi * nu) / 2
        - np.log(sd)
        - (nu + 1) / 2 * np.log(1 + (x - mean) ** 2 / sd**2 / nu)
    )


LAWS = {
    "normal": lambda x, mean, sd: -((x - mean) ** 2) / (2 * sd**2) - np.log(sd * np.sqrt(2 * np.pi)),
    "student_t": student_t,
    "poisson": poisson,
    "negative_binomial": negative_binomial,
    "gamma": gamma,
    "lognormal": lognormal,
    "exponential": lambda x, scale: weibull(x, scale, 1.0),
    "weibull": weibull,
    **{f"hurdle_{law.__name__}": hurdle(law) for law in (poisson, negative_binomial, gamma, lognormal)},
}


def _scipy_lognormal(mean, sd):
    sigma = np.sqrt(np.log1p((sd / mean) ** 2))
    return stats.lognorm(sigma, scale=mean * np.exp(-(sigma**2) / 2))


SCIPY = {
    "normal": lambda p: stats.norm(*p),
    "student_t": lambda p: stats.t(p[2], p[0], p[1]),
    "poisson": lambda p: stats.poisson(p[0]),
    "negative_binomial": lambda p: stats.nbinom(1 / p[1], 1 / (1 + p[0] * p[1])),
    "gamma": lambda p: stats.gamma((p[0] / p[1]) ** 2, scale=p[1] ** 2 / p[0]),
    "lognormal": lambda p: _scipy_lognormal(*p[:2]),
    "exponential": lambda p: stats.expon(scale=p[0]),
    "weibull": lambda p: stats.weibull_min(p[1], scale=p[0]),
}


def scipy_log_density(family, x, p):
    """One value's log-density, by SciPy's distributions."""
    base = family.removeprefix("hurdle_")
    law = SCIPY[base](p)
    density = law.logpmf if FAMILIES[base].values == "counts" else law.logpdf
    if base == family:
        return density(x) if x >= 0 or family in ("normal", "student_t") else law.logsf(-x)
    if x == 0:
        return np.log(p[-1])
    return np.log1p(-p[-1]) + density(x) - np.log(law.sf(0))


def term(model, table, name, values):
    """Log-density of one variable: (class, pattern)."""
    var = model.variables[name]
    where = [table[p].values for p in var.parents]
    column = table[name].values
    if var.trials is not None:
        p = values[f"p_{name}"][:, *where]
        ways = special.comb(var.trials, column)
        return np.log(ways) + column * np.log(p) + (var.trials - column) * np.log(1 - p)
    if var.discrete:
        return np.log(values[f"p_{name}"])[:, *where, column]
    arguments = []
    for parameter in var.spec.parameters:
        value = np.asarray(values[f"{parameter}_{name}"])
        by_parents = value.ndim == 1 + len(where) and where
        arguments.append(value[:, *where] if by_parents else np.reshape(value, (-1, 1)))
    return LAWS[var.family](column.astype(float), *arguments)


def free_values(model, built, name, point):
    """Constrained values of a free vector of the PyMC model, by formulas written out."""
    rv = built[name]
    v = point[built.rvs_to_values[rv].name]
    transform = built.rvs_to_transforms[rv]
    if transform is None:
        return v
    if transform.name == "logratio":
        up = np.exp(v + v.sum(axis=-1, keepdims=True))
        return np.concatenate([up, np.ones((*v.shape[:-1], 1))], axis=-1) / (
            1 + up.sum(axis=-1, keepdims=True)
        )
    if transform.name == "logodds":
        p = 1 / (1 + np.exp(-v))
        bernoulli = model.variables[model.owners[name][0]].family == "bernoulli"
        return np.stack([1 - p, p], axis=-1) if bernoulli else p
    assert transform.name == "log"
    return np.exp(v)


CASES = {
    "three": (("hurdle_negative_binomial", "weibull"), {}),
    "all": (NUMBERS, {}),
    "all, scales by parents": (NUMBERS, {"scale_parents": True}),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, marks=[pytest.mark.slow] * (case != "three")) for case in CASES],
)
def built(request, tools):
    """Model, table, PyMC model and its compiled observed log-density with gradient."""
    rng = np.random.default_rng(5)
    families, options = CASES[request.param]
    model = model_of(families, **options)
    true = tools.with_truth(model, tools.random_truth(model, rng))
    table = tabulate(simulate(true, 40, rng=rng), model)
    made = build_model(model, table)
    density = made.logp(vars=made.observed_RVs)
    gradient = pt.grad(density, made.value_vars)
    return model, table, made, made.compile_fn([density, *gradient], mode="FAST_COMPILE")


def test_every_density_and_gradient_equals_the_sum_over_classes_and_rows(tools, rng, built):
    model, table, made, compiled = built
    assert (table["weibull_child"].values < 0).any()
    assert (table["weibull_child"].values > 0).any()
    start = made.initial_point()
    point = {
        v.name: np.array(start[v.name] + 0.3 * rng.normal(size=start[v.name].shape)) for v in made.value_vars
    }
    value, *gradient = compiled(point)
    values = {name: free_values(model, made, name, point) for name in model.dims}
    terms = {name: term(model, table, name, values) for name in model.variables}
    rest = np.log(values["class_weight"])[:, None] + sum(terms.values())
    counts = table["count"].values
    total = counts @ special.logsumexp(rest, axis=0)
    layout = pattern_layout(model, table)["count"].values
    coefficient = special.gammaln(layout.sum() + 1) - special.gammaln(layout + 1).sum()
    assert float(value) - coefficient == pytest.approx(total, rel=1e-10)

    weight = special.softmax(rest, axis=0) * counts  # rows' classes, for the size of a derivative's terms
    for value_var, got in zip(made.value_vars, gradient, strict=True):
        name = made.values_to_rvs[value_var].name
        for index in np.ndindex(got.shape):
            moved = {value_var.name: np.array(point[value_var.name], dtype=complex)}
            moved[value_var.name][index] += 1j * STEP
            new = {**values, name: free_values(model, made, name, {**point, **moved})}
            if name == "class_weight":
                change = np.log(new[name])[:, None] + 0 * terms["b"]
            else:
                change = term(model, table, model.owners[name][0], new)
            slopes = weight * change.imag / STEP
            assert float(got[index]) == pytest.approx(
                slopes.sum(), rel=1e-10, abs=1e-12 * np.abs(slopes).sum()
            ), (name, index)


def test_counts_are_looked_up_by_distinct_value(tools, rng):
    model = model_of(("hurdle_negative_binomial",))
    true = tools.with_truth(model, tools.random_truth(model, rng))
    table = tabulate(simulate(true, 5_000, rng=rng), model)
    made = build_model(model, table)
    data = {v.name: v.get_value() for v in made.data_vars}
    assert "value" not in data  # one copy: nothing can be changed without the densities
    for i, name in enumerate(model.continuous_variables):
        distinct, place = data[f"distinct_{name}"], data[f"distinct_of_row_{name}"]
        np.testing.assert_array_equal(distinct[place], table[name].values)
        assert len(distinct) < table.sizes["pattern"] / 2
        seen = made.rvs_to_values[made["rows"]].eval()
        np.testing.assert_array_equal(seen[:, i], table[name].values)


FEW = {
    "location": np.array([0.7, 2.3]),
    "scale": np.array([0.4, 1.9]),
    "shared": np.array([4.5, 4.5]),
    "unit": np.array([0.3, 0.6]),
}
"""Parameters of two classes."""


def values_of(family):
    """Values that a family has, and parameters in order."""
    spec, x = FAMILIES[family], np.array([0.2, 1.0, 3.7, 12.0])
    if spec.values == "real":
        x = np.concatenate([x, -x])
    if spec.values == "counts":
        x = np.array([0.0, 1.0, 4.0, 30.0])
    if spec.values == "nonnegative":
        x = np.append(x, 0.0)
    if spec.censored:
        x = np.concatenate([x, -x])  # negative: censored
    kinds = spec.parameters.values()
    return x[:, None], [FEW["unit" if kind.support == "unit" else kind.scope] for kind in kinds]


def test_every_family_has_a_density():
    assert set(NUMBERS) == set(LOG_DENSITY) == set(LAWS)


def test_symbolic_densities_and_their_gradients(rng):
    """All families in one function; gradients against complex steps of the formulas above."""
    inputs, outputs, numbers = [], [], []
    weight = rng.uniform(size=(8, 2))
    for family in NUMBERS:
        x, own = values_of(family)
        symbols = [pt.vector(f"{family}{i}") for i in range(len(own))]
        value = (weight[: len(x)] * LOG_DENSITY[family](pt.as_tensor(x), *symbols)).sum()
        outputs += [value, *pt.grad(value, symbols)]
        inputs += symbols
        numbers += own
    found = iter(pytensor.function(inputs, outputs, mode="FAST_COMPILE")(*numbers))
    for family in NUMBERS:
        x, own = values_of(family)
        share = weight[: len(x)]
        assert float(next(found)) == pytest.approx((share * LAWS[family](x, *own)).sum(), rel=1e-12)
        for i in range(len(own)):
            for j, got in enumerate(next(found)):
                moved = [v.astype(complex) for v in own]
                moved[i][j] += 1j * STEP
                wanted = (share * LAWS[family](x, *moved)).imag.sum() / STEP
                assert got == pytest.approx(wanted, rel=1e-10), (family, i)


@pytest.mark.parametrize("family", NUMBERS)
def test_densities_are_those_of_scipy(family):
    x, own = values_of(family)
    ours = FAMILIES[family].law.log_density(x, *own)
    again = LAWS[family](x, *own)
    for row, value in enumerate(x[:, 0]):
        for u in range(2):
            p = [float(v[min(u, len(v) - 1)]) for v in own]
            wanted = scipy_log_density(family, value, p)
            assert ours[row, u] == pytest.approx(wanted, rel=1e-10)
            assert again[row, u] == pytest.approx(wanted, rel=1e-10)


def test_symbolic_means_are_those_of_the_laws():
    for family in NUMBERS:
        own = values_of(family)[1]
        found = MEAN[family](*(pt.as_tensor(v) for v in own)).eval(mode="FAST_COMPILE")
        np.testing.assert_allclose(found, FAMILIES[family].law.mean(*own), rtol=1e-12)
