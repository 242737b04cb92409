"""`fit` where no moment method takes the graph: the posterior answers, and the words say so."""

import numpy as np
import pytest

from pymc_mte import RefusedError, estimate, fit, load, load_model, simulate
from pymc_mte.errors import ModelError
from pymc_mte.moments.choice import why_no_moments

SAID = "No moment method takes this model, so the posterior stands alone"
WHY = "The graph reaches nothing. It lacks: t independent of y"


@pytest.fixture(scope="module")
def fitted():
    model = load_model("gallery:measured_confounder")
    options = {"sampler": "laplace", "draws": 50, "chains": 2, "progressbar": False}
    return fit(model, simulate(model, 1_000, rng=1), **options)


def test_the_posterior_stands_alone_and_the_words_say_so(fitted):
    assert (fitted.moments, fitted.comparison) == (None, None)
    assert fitted.result is fitted.posterior
    assert fitted.no_moments.startswith(WHY)
    for said in (str(fitted), fitted._repr_html_()):
        assert SAID in said
        assert WHY in said
    assert fitted.summary().loc["ate", "mean"] == pytest.approx(1.45, abs=0.4)
    assert [note.status.name for note in fitted.notes].count("NO_MOMENT_METHOD") == 1


def test_it_is_saved_and_reported(fitted, tmp_path):
    text = fitted.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert SAID in text
    assert "none, see above" in text
    again = load(fitted.save(tmp_path / "result.nc"))
    np.testing.assert_array_equal(again["posterior"]["ate"], fitted.posterior["posterior"]["ate"])
    assert not {"moments", "estimate", "comparison"} & set(again.children)
    with pytest.raises(RefusedError, match="no moment estimate to draw the posterior beside: The graph"):
        fitted.plot_effects()


def test_reasons_are_of_the_graph():
    model = load_model("gallery:measured_confounder")
    assert why_no_moments(load_model("gallery:level3")) is None
    assert why_no_moments(load_model("gallery:chain5")) is None
    assert why_no_moments(load_model("gallery:unknown_interventions")) is None
    without = model.with_fields(treatment_proxies=(), outcome_proxies=(), truth=None)
    assert "takes no linear parents yet" in str(why_no_moments(without))


def test_where_the_likelihood_fixes_nothing_either_it_is_refused(level3):
    variables = {**level3.variables, "x": {"family": "bernoulli", "parents": ["z"]}}
    variables["y"] = {"family": "bernoulli", "parents": ["x", "t"]}
    model = level3.with_fields(variables=variables, truth=None)
    with pytest.raises(RefusedError, match="is refused: the graph reaches nothing"):
        fit(model, simulate(level3, 100, rng=1), progressbar=False)


def test_without_a_posterior_either_it_is_refused():
    model = load_model("gallery:measured_confounder").with_fields(moments_only="not now")
    rows = simulate(model, 100, rng=1)
    with pytest.raises(RefusedError, match="the graph reaches nothing"):
        fit(model, rows, progressbar=False)
    with pytest.raises(RefusedError, match="the graph reaches nothing"):
        estimate(model, rows)


def test_measurement_first_is_not_compared_and_says_so(level3, tmp_path):
    rows, few = simulate(level3, 1_000, rng=1), {"draws": 50, "chains": 2, "progressbar": False}
    found = fit(level3, rows, n_boot=20, measurement_first=True, sampler="laplace", **few)
    assert "measurement" in found.posterior
    assert found.comparison is None
    said = "No test compares posterior and moments: the classes were learnt without y"
    assert said in str(found)
    assert said in found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert found.plot_effects().axes
    assert "moments" in load(found.save(tmp_path / "result.nc"))
    for wrong in (None, ""):
        with pytest.raises(ModelError, match=f"report: the path of a file is wanted, got {wrong!r}"):
            found.report(wrong)
