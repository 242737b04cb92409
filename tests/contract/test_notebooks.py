import os
import runpy
from pathlib import Path

import jupytext
import nbformat
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


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # other packages', on their import
def test_source_runs_with_few_draws(monkeypatch, tmp_path):
    """About half a minute, most of it three compilations."""
    import matplotlib.pyplot as plt

    source = EXAMPLES / "first_analysis.py"

    monkeypatch.setenv("FIRST_ANALYSIS_DRAWS", "50")
    monkeypatch.chdir(tmp_path)
    with plt.rc_context():
        plt.switch_backend("agg")
        space = runpy.run_path(str(source))
        plt.close("all")
    table = space["table"]
    assert table.loc["ate", "verdict"] == "agree"
    assert abs(table.loc["effect[class 0]", "mean"] + 0.75) < 0.2
    assert abs(table.loc["effect[class 1]", "mean"] - 0.75) < 0.2
    assert space["inside"] >= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_notebook_runs_in_full(source, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.delenv("FIRST_ANALYSIS_DRAWS", raising=False)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(source.with_suffix(".ipynb"), 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    assert os.listdir(tmp_path) == []
