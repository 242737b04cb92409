"""Starting values of the chains."""

from pymc_mte import estimate, load_model, simulate
from pymc_mte.bayes.modes import given_start
from pymc_mte.data import resolve
from pymc_mte.moments.problem import problem_of


def test_an_estimate_of_another_graph_starts_what_fits():
    """Tied proxies have larger tables than the model that is sampled; those are left out."""
    pair = load_model("gallery:paper_pair")
    model, table = resolve(pair, simulate(pair, 2_000, rng=1))
    start = estimate(model, table, proxies="joint", n_boot=0)
    point = given_start(problem_of(model, table), start)
    assert {name: value.shape[1:] for name, value in point.items()} == model.shapes
