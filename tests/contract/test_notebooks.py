import os
import runpy
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCES = sorted(EXAMPLES.glob("*.py"))
MAX_BYTES = 400_000


def name_of(source: Path) -> str:
    return source.stem


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_notebook_has_the_same_cells_as_its_source(source):
    notebook = source.with_suffix(".ipynb")
    text = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    shown = [(cell.cell_type, cell.source) for cell in nbformat.read(notebook, 4).cells]
    assert shown == text, f"rebuild {notebook.name}; CONTRIBUTING.md has the command"


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_committed_notebook_ran_without_errors_and_is_small(source):
    notebook = source.with_suffix(".ipynb")
    cells = [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    assert any("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs)
    assert notebook.stat().st_size < MAX_BYTES
    assert str(Path.home()) not in notebook.read_text(encoding="utf-8")


def run_source(name, monkeypatch, folder):
    """Run a notebook's source with few draws; return what it defined."""
    import matplotlib.pyplot as plt

    monkeypatch.setenv(f"{name.upper()}_DRAWS", "50")
    monkeypatch.chdir(folder)
    with plt.rc_context():
        plt.switch_backend("agg")
        space = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        plt.close("all")
    return space


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # other packages', on their import
def test_first_analysis_runs_with_few_draws(monkeypatch, tmp_path):
    """About half a minute, most of it three compilations."""
    space = run_source("first_analysis", monkeypatch, tmp_path)
    table = space["table"]
    assert table.loc["ate", "verdict"] == "agree"
    assert abs(table.loc["effect[class 0]", "mean"] + 0.75) < 0.2
    assert abs(table.loc["effect[class 1]", "mean"] - 0.75) < 0.2
    assert space["inside"] >= 0.6


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # other packages', on their import
def test_mixtures_run_with_few_draws(monkeypatch, tmp_path):
    """A quarter of a minute, most of it one compilation."""
    space = run_source("mixtures", monkeypatch, tmp_path)
    assert space["naive"] > 0.05
    assert space["adjusted"] > -0.05
    table = space["table"]
    assert list(table.index) == ["network", "polished", "posterior"]
    assert (table["upper"] < 0).all()
    assert abs(table.loc["posterior", "mean"] - space["exact"]) < 0.06
    assert space["observed"] > 3 * max(space["null"])


LEVELS = ["HTE", "mixture", "MTE", "ATE"]
SHORTENED = ("identifiability_first", "average_misleads", "real_data", "your_own_data")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # other packages', on their import
@pytest.mark.parametrize("name", SHORTENED)
def test_notebooks_say_what_their_text_says(name, monkeypatch, tmp_path):
    space = run_source(name, monkeypatch, tmp_path)
    if name == "identifiability_first":
        assert list(space["levels"]["level by moments"]) == LEVELS
        assert not space["levels"].loc["level4", "effect"]
        assert space["few"].notes
    elif name == "average_misleads":
        assert abs(space["naive"]) < 0.05
        assert space["table"].loc["effect[class 0]", "upper"] < -0.5 < 0.5
        assert space["table"].loc["effect[class 1]", "lower"] > 0.5
        assert (space["seen"]["effect in the group"].abs() < 0.7).all()
    elif name == "real_data":
        assert 2 < space["table"].loc["ate", "mean"] < 4
        assert np.isnan(space["point"]["ate"])
        assert space["moments"].attrs["equal_effects_p"] > 0.05
    else:
        assert abs(space["adjusted"] - space["true_average"]) < 3 * space["error"]
        assert abs(float(space["bad"]["ate"]) - space["true_average"]) > 0.1
        assert len(space["objections"])


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_notebook_runs_in_full(source, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.delenv(f"{source.stem.upper()}_DRAWS", raising=False)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(source.with_suffix(".ipynb"), 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    assert os.listdir(tmp_path) == []
