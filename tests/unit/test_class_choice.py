"""The number of classes: right on designs that leave no doubt, and never a class for a missing edge."""

import numpy as np
import pytest

from pymc_mte import CausalModel, DataError, ModelError, choose_classes, load_model, simulate, tabulate
from pymc_mte.class_choice import STACKED
from pymc_mte.moments.class_number import fit_classes, n_free, with_classes, with_edge
from pymc_mte.moments.problem import problem_of
from pymc_mte.moments.residuals import open_pairs, pair_residuals


def items(classes, truth, parents=None):
    """Six binary proxies, a treatment and an outcome."""
    names = ["z0", "z1", "z2", "x0", "x1", "x2", "t", "y"]
    given = {"y": ["t"]} | (parents or {})
    return CausalModel(
        classes=classes,
        variables={n: {"family": "bernoulli", "parents": given.get(n, [])} for n in names},
        treatment="t",
        outcome="y",
        treatment_proxies=["z0", "z1", "z2"],
        outcome_proxies=["x0", "x1", "x2"],
        truth={"class_weight": np.full(classes, 1 / classes).tolist()}
        | {n: {"p": p} for n, p in truth.items()},
    )


TWO = {n: [0.2, 0.75] for n in ("z0", "z1", "z2", "x0", "x2")} | {
    "t": [0.4, 0.6],
    "y": [[0.3, 0.2], [0.4, 0.8]],
}
ONE = {n: [0.4] for n in ("z0", "z1", "z2", "x0", "x1", "x2", "t")} | {"y": [[0.3, 0.5]]}
SHIFTED = 1 / (1 + np.exp(-(np.array([[-1.5], [0.7]]) + np.array([0.0, 1.0]))))  # log-odds 1 by x0


@pytest.fixture(scope="module")
def dependent():
    generator = items(2, TWO | {"x1": SHIFTED.tolist()}, {"x1": ["x0"]})
    graph = items(2, TWO | {"x1": [0.2, 0.75]})
    return graph, tabulate(simulate(generator, 5_000, rng=3), graph)


def test_missing_edge_is_named_before_a_third_class(dependent):
    choice = choose_classes(*dependent, max_classes=3)
    assert (choice.recommended, choice.dependence) == (2, ("x0", "x1"))
    assert "local dependence between x0 and x1" in choice.says[0]
    table = choice.table
    assert table.loc[2, "dependence"] == "x0 - x1"
    assert table.loc[2, "bic_edge"] < table.loc[3, "bic"] < table.loc[1, "bic"]
    assert table.loc[1, "rank_p"] < 0.05 < table.loc[2, "rank_p"]
    shares = table["weight"].drop(index=STACKED)
    assert shares.sum() == pytest.approx(1.0)
    assert table.loc[STACKED, "ate"] == pytest.approx((shares * table["ate"].drop(index=STACKED)).sum())
    for k in (1, 2, 3):
        weight = [table.loc[k, f"class_weight[class {u}]"] for u in range(k)]
        effect = [table.loc[k, f"effect[class {u}]"] for u in range(k)]
        assert np.dot(weight, effect) == pytest.approx(table.loc[k, "ate"])
        assert effect == sorted(effect)
    assert "<table" in choice._repr_html_()
    assert "Recommended: 2 classes" in str(choice)


def test_one_class_is_one_class():
    model = items(1, ONE)
    choice = choose_classes(items(2, TWO | {"x1": [0.2, 0.75]}), simulate(model, 1_500, rng=1), max_classes=2)
    assert (choice.recommended, choice.dependence) == (1, None)


def test_without_a_treatment():
    """Seven raters of carcinoma: three classes are the published answer."""
    choice = choose_classes(load_model("gallery:carcinoma"), max_classes=3)
    assert choice.recommended == 3
    assert "ate" not in choice.table


def test_more_parameters_than_cells_are_never_chosen(level3):
    choice = choose_classes(level3, simulate(level3, 4_000, rng=2), max_classes=3)
    assert choice.recommended == 2
    assert choice.table.loc[3, "weight"] == 0
    assert any("More parameters than free cells" in line for line in choice.says)


@pytest.mark.parametrize("n", [1, 3])
def test_too_few_rows_recommend_nothing(level3, n):
    """One row fits one and two classes alike, and its BIC has no penalty."""
    choice = choose_classes(level3, simulate(level3, n, rng=2), max_classes=2)
    assert choice.recommended is None
    assert choice.plot().axes[0].get_ylabel() == "number of classes (none recommended)"
    assert choice.says[0].startswith(f"No number of classes can be recommended: {n} rows are too few")
    assert choice.says[-1] == "More parameters than free cells or rows with 1, 2 classes: not to be chosen."


def test_fit_is_a_maximum_and_counts_its_parameters(dependent):
    graph, table = dependent
    problem = problem_of(with_classes(graph, 2), table)
    fit = fit_classes(problem)
    assert fit.n_parameters == n_free(graph) == 1 + 2 * (6 + 1 + 2)
    assert fit.bic == pytest.approx(-2 * fit.log_likelihood + 19 * np.log(5_000))
    wider = with_edge(graph, ("x0", "x1"))
    assert n_free(wider) == 21
    assert fit_classes(problem, n_starts=1).log_likelihood <= fit.log_likelihood + 1e-2


def test_pair_residuals_rise_with_what_is_left_out(dependent):
    graph, table = dependent
    problem = problem_of(graph, table)
    fit = fit_classes(problem)
    found = {
        pair.edge: pair for pair in pair_residuals(problem, {n: v[None] for n, v in fit.parameters.items()})
    }
    assert set(found) == set(open_pairs(graph))
    assert ("t", "y") not in found
    assert max(found.values(), key=lambda pair: pair.statistic / max(pair.df, 1)).edge == ("x0", "x1")
    assert max(found.values(), key=lambda pair: pair.residual).edge == ("x0", "x1")


def test_refusals(level3):
    with pytest.raises(ModelError, match="max_classes"):
        choose_classes(level3, simulate(level3, 100), max_classes=0)
    with pytest.raises(ModelError, match="need sample=True"):
        choose_classes(level3, simulate(level3, 100), draws=10)
    with pytest.raises(DataError):
        choose_classes(level3, {"z": [0, 1]})
