"""The causal graph: places, arrows, words."""

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Ellipse, FancyArrowPatch

from pymc_mte import CausalModel, ModelError, identify, load_model, plot_graph
from pymc_mte.hierarchy import LATENT, MEANING
from pymc_mte.plots.graph import COSTING, HIDDEN
from pymc_mte.plots.layout import LINE, MAX_LINES, Box, broken, place, route

BIT = {"family": "bernoulli"}
LONG = "systolic_blood_pressure_at_admission_to_the_ward_of_the_hospital"


def twelve():
    left = [f"{LONG}_{i}" for i in range(5)]
    right = [f"questionnaire item number {i}" for i in range(5)]
    variables = {name: dict(BIT) for name in left + right}
    variables["started_therapy"] = BIT | {"parents": left[:3]}
    variables["five_year_mortality"] = BIT | {"parents": right[1:3]}
    return CausalModel(
        classes=3,
        variables=variables,
        treatment="started_therapy",
        outcome="five_year_mortality",
        treatment_proxies=left,
        outcome_proxies=right,
    )


def items(n, **parents):
    return CausalModel(
        classes=2, variables={f"v{i}": BIT | {"parents": parents.get(f"v{i}", [])} for i in range(n)}
    )


def arrows(figure, style=None):
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    widths = {None: None, "costing": COSTING["linewidth"], "hidden": HIDDEN["linewidth"]}
    return [a for a in found if style is None or a.get_linewidth() == widths[style]]


def said(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def legend(figure):
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("name", "edges", "costing"),
    [("level2", 1, 0), ("level3", 2, 1), ("level4", 3, 1), ("nhefs", 3, 2), ("three_classes", 1, 0)],
)
def test_every_edge_is_drawn_and_those_that_cost_in_red(name, edges, costing):
    model = load_model(f"gallery:{name}")
    figure = plot_graph(model)
    assert len(arrows(figure)) == edges + len(model.variables)
    assert len(arrows(figure, "hidden")) == len(model.variables)
    assert len(arrows(figure, "costing")) == costing
    assert any(words.startswith("costs the next level") for words in legend(figure)) == (costing > 0)
    assert set(said(figure)) >= {broken(variable) for variable in model.variables} | {LATENT}


def test_words_of_level_four():
    model = load_model("gallery:level4")
    figure = plot_graph(identify(model))
    assert said(figure)[-2:] == [
        "Effect of t on y, 2 hidden classes",
        f"By moments the graph reaches {MEANING['ATE']}.",
    ]
    assert legend(figure)[-1] == "costs the next level: without x → y it is MTE"
    assert "treatment proxy: never causes the outcome" in legend(figure)


def test_the_latent_class_is_dashed_and_absent_from_one_class():
    (latent,) = (p for p in plot_graph(load_model("gallery:level3")).axes[0].patches if type(p) is Ellipse)
    assert latent.get_linestyle() == "--"
    alone = plot_graph(load_model("gallery:level1"))
    assert not [p for p in alone.axes[0].patches if type(p) is Ellipse]
    assert LATENT not in said(alone)
    assert len(arrows(alone)) == 6


def test_roles_decide_the_side():
    boxes = place(load_model("gallery:paper_pair"))
    x = {name: box.x for name, box in boxes.items()}
    assert x["z0"] == x["z1"] < x["t"] < x[LATENT] < x["y"] < x["x0"] == x["x1"]
    assert boxes[LATENT].y > boxes["z0"].y > boxes["z1"].y > boxes["t"].y == boxes["y"].y


def test_no_latent_arrow_to_a_variable_that_the_class_leaves_alone(level3):
    variables = dict(level3.variables) | {"w": {**BIT, "latent": False}}
    fields = {k: getattr(level3, k) for k in ("treatment", "outcome", "treatment_proxies", "outcome_proxies")}
    model = CausalModel(classes=2, variables=variables, covariates=["age", "sex"], **fields)
    figure = plot_graph(model)
    assert len(arrows(figure, "hidden")) == 4
    assert "All of this is meant given age, sex (not drawn)." in said(figure)
    assert "observed variable" in legend(figure)


@pytest.mark.parametrize(
    "model",
    [
        *[load_model(f"gallery:{n}") for n in ("level1", "level4", "nhefs", "lalonde", "three_classes")],
        twelve(),
        items(3),
        items(12),
        items(6, v1=["v0"], v2=["v0", "v1"], v3=["v0", "v2"], v5=["v3", "v4"]),
        items(12, v11=[f"v{i}" for i in range(7)]),
    ],
    ids=lambda model: f"{model.name}-{len(model.variables)}-{len(model.graph.edges)}",
)
def test_nothing_overlaps(model):
    boxes = place(model)
    for a, b in itertools.combinations(boxes.values(), 2):
        beside = abs(a.x - b.x) >= (a.width + b.width) / 2
        above = abs(a.y - b.y) >= (a.height + b.height) / 2
        assert beside or above
    figure = plot_graph(model)
    FigureCanvasAgg(figure).draw()
    names = {broken(name) for name in boxes}
    texts = [t for t in figure.axes[0].texts if t.get_text() in names]
    frames = [t.get_window_extent() for t in [*figure.axes[0].texts, *figure.legends[0].get_texts()]]
    for a, b in itertools.combinations(frames, 2):
        assert not a.overlaps(b)
    whole = figure.bbox
    assert all(
        whole.x0 <= f.x0 and f.x1 <= whole.x1 and whole.y0 <= f.y0 and f.y1 <= whole.y1 for f in frames
    )
    for text, (name, box) in itertools.product(texts, boxes.items()):
        if text.get_text() == broken(name):
            frame = text.get_window_extent()
            assert frame.width <= box.width * figure.dpi + 1
            assert frame.height <= box.height * figure.dpi + 1


def on_the_way(arrow):
    """Points of the bent line, as matplotlib's arc3 draws it."""
    start, end = np.array(arrow.start), np.array(arrow.end)
    dx, dy = end - start
    middle = (start + end) / 2 + arrow.bend * np.array([dy, -dx])
    s = np.linspace(0, 1, 200)[:, None]
    return (1 - s) ** 2 * start + 2 * s * (1 - s) * middle + s**2 * end


@pytest.mark.parametrize("name", ["level1", "level4", "nhefs", "three_classes"])
def test_arrows_pass_through_no_box(name):
    model = load_model(f"gallery:{name}")
    boxes = place(model)
    edges = [*model.graph.edges]
    if LATENT in boxes:
        edges += [(LATENT, v) for v in model.variables]
    for a, b in edges:
        others = [box for n, box in boxes.items() if n not in (a, b)]
        points = on_the_way(route(boxes[a], boxes[b], others))
        assert not any(box.holds(points, 0.0).any() for box in others), (a, b)


def test_an_arrow_bends_round_what_stands_between():
    one, two, three = (Box(0.0, -float(i), 0.5, 0.3) for i in range(3))
    assert route(one, two, [three]).bend == 0
    around = route(one, three, [two])
    assert not two.holds(on_the_way(around), 0.0).any()
    assert two.holds(on_the_way(route(one, three, [])), 0.0).any()


@given(st.text(min_size=1, max_size=90))
def test_names_are_broken_into_short_lines(name):
    lines = broken(name).split("\n")
    if name.strip():
        assert 1 <= len(lines) <= max(MAX_LINES, len(name.splitlines()))
        assert all(len(line) <= LINE for line in lines)


def test_a_dollar_sign_is_no_formula():
    variables = {f"cost in $ {i}": BIT for i in range(4)}
    figure = plot_graph(CausalModel(classes=2, variables=variables))
    FigureCanvasAgg(figure).draw()
    assert not any(text.get_parse_math() for text in figure.axes[0].texts)


def test_a_network_without_proxies_is_not_said_to_reach_nothing():
    """`estimate` takes chain7 apart, though none of its variables is a proxy."""
    chain = load_model("gallery:chain7")
    said = " ".join(text.get_text() for text in plot_graph(chain).axes[0].texts if text.get_gid() == "head")
    assert "By moments the graph reaches the whole mixture" in said


@pytest.mark.parametrize("thing", ["gallery:level3", None, 3])
def test_other_input_is_refused_in_words(thing):
    with pytest.raises(ModelError, match=r"plot_graph: a CausalModel .* is wanted, got"):
        plot_graph(thing)
