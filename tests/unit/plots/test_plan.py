"""The figure of the plan, from the graph alone."""

import pytest

from pymc_mte import CausalModel, ModelError, load_model, plan, plot_plan

B = {"family": "bernoulli"}


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize("name", ["chain7", "collider9", "chain10"])
def test_one_row_per_family_and_one_mark_per_run_and_block(name):
    model = load_model(f"gallery:{name}")
    found, figure = plan(model), plot_plan(model)
    assert len(figure.axes) == 3 * len(found.families)
    for i, (family, runs) in enumerate(zip(found.families, found.n_runs, strict=True)):
        network, products, _ = figure.axes[3 * i : 3 * i + 3]
        assert {text.get_text() for text in network.texts} - {""} == set(model.variables)
        assert len(products.get_yticklabels()) == runs
        assert sum(len(line.get_xdata()) for line in products.lines) == runs * len(family.blocks)
        # runs that agree on a block's boundary are joined: one line per joint level of the boundary
        lines = sum(2 ** len(boundary) for boundary in family.boundaries)
        assert len(products.lines) == lines
    assert titles(figure)[0].endswith(": the answer")
    figure.canvas.draw()


def test_products_and_draws():
    figure = plot_plan(load_model("gallery:carcinoma"))
    assert titles(figure)[1] == "Products: one run, independent blocks"
    groups = [text.get_text() for text in figure.axes[2].texts]
    assert {"A, B, C", "D, E", "F, G"} <= set(groups)
    figure = plot_plan(load_model("gallery:coins16"))
    (axes,) = figure.axes
    assert [len(dots.get_offsets()) for dots in axes.collections] == [7, 1, 8]
    figure.canvas.draw()


def test_what_cannot_be_drawn():
    few = CausalModel(classes=3, variables={"heads": {"family": "binomial", "trials": 4}})
    labels = [text.get_text() for text in plot_plan(few).legends[0].get_texts()]
    assert labels == ["5 draws identify 3 classes", "1 are missing"]
    pair = CausalModel(classes=2, variables={"a": B, "b": {**B, "parents": ["a"]}})
    assert "no choice of variables" in titles(plot_plan(pair))[0]
    many = {f"v{i}": {"family": "categorical", "levels": list(range(5)), "parents": []} for i in range(5)}
    for i in range(1, 5):
        many[f"v{i}"]["parents"] = [f"v{i - 1}"]
    figure = plot_plan(CausalModel(classes=2, variables=many))
    assert figure.axes[1].get_xlabel() == "and 13 runs more"
    with pytest.raises(ModelError, match="classes = 1"):
        plot_plan(CausalModel(classes=1, variables={"a": B, "b": B, "c": B}))
