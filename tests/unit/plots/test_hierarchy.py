"""The ladder of levels: words and looks."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pymc_mte import CausalModel, ModelError, identify, load_model, plot_hierarchy
from pymc_mte.plots.hierarchy import HERE

BIT = {"family": "bernoulli"}


def said(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def fails(figure):
    return [text for text in said(figure) if text.startswith("Fails")]


@pytest.mark.parametrize(
    ("name", "level", "reason"),
    [
        ("level1", "HTE", []),
        ("level2", "mixture", ["Fails: no hidden class (the model has 2)."]),
        ("level3", "MTE", ["Fails: z independent of t, y given latent class (because of z → t)."]),
        ("level4", "ATE", ["Fails: x independent of y given latent class (because of x → y)."]),
    ],
)
def test_the_model_is_marked_and_the_next_rung_says_what_fails(name, level, reason):
    model = load_model(f"gallery:{name}")
    for thing in (model, identify(model)):
        figure = plot_hierarchy(thing)
        names = [text.split("\n")[0] for text in said(figure)]
        assert [n for n in names if n in ("HTE", "mixture", "MTE", "ATE")] == ["HTE", "mixture", "MTE", "ATE"]
        assert [t for t in said(figure) if "this model" in t] == [f"{level}\nthis model"]
        assert fails(figure) == reason
        assert len(figure.axes[0].patches) == 4


def test_only_one_rung_is_filled():
    figure = plot_hierarchy(load_model("gallery:level3"))
    whites = [t for t in figure.axes[0].texts if t.get_color() == "white"]
    assert whites[0].get_text() == "MTE\nthis model"
    assert any(t.get_text().startswith("Rests on: x independent of t, y, z given") for t in whites)
    assert HERE["facecolor"] != "white"


def model_of(**changes):
    variables = {"z": BIT, "x": BIT, "t": BIT, "y": BIT} | changes.pop("variables", {})
    fields = {"classes": 2, "treatment": "t", "outcome": "y", "treatment_proxies": ["z"]}
    return CausalModel(variables=variables, **fields | {"outcome_proxies": ["x"]} | changes)


def test_below_the_ladder_no_rung_is_marked():
    tied = plot_hierarchy(model_of(variables={"x": BIT | {"parents": ["z"]}}))
    assert not any("this model" in text for text in said(tied))
    assert fails(tied) == ["Fails: z independent of x given latent class, t (because of z → x)."]
    bare = plot_hierarchy(model_of(outcome_proxies=[]))
    assert fails(bare) == ["Fails: proxies on both sides (there is none on the outcome's side)."]


def test_long_names_stay_inside_their_rungs():
    left = [f"prescribing_preference_of_the_doctor_{i}" for i in range(5)]
    right = [f"number_of_comorbidities_at_admission_{i}" for i in range(5)]
    variables = dict.fromkeys(left + right, BIT)
    variables |= {"started_statin_therapy": BIT | {"parents": left}, "died": BIT | {"parents": right}}
    model = CausalModel(
        classes=2,
        variables=variables,
        treatment="started_statin_therapy",
        outcome="died",
        treatment_proxies=left,
        outcome_proxies=right,
    )
    figure = plot_hierarchy(model)
    FigureCanvasAgg(figure).draw()
    frames = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text()]
    for a, b in itertools.combinations(frames, 2):
        assert not a.overlaps(b)
    assert max(f.x1 for f in frames) < 9.3 * figure.dpi
    assert any("and 2 more" in text for text in said(figure))


def test_refusals_say_what_is_wanted():
    with pytest.raises(ModelError, match="names no treatment"):
        plot_hierarchy(CausalModel(classes=2, variables={"a": BIT, "b": BIT, "c": BIT}))
    with pytest.raises(ModelError, match="plot_hierarchy: a CausalModel"):
        plot_hierarchy({"classes": 2})
