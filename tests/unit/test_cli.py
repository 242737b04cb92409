"""The command line: status 0, 1 (refused, reason on standard error) or 2 (usage)."""

import pandas as pd
import pytest

from pymc_mte import CausalModel, gallery_names, load, tabulate
from pymc_mte.cli import main


def test_models_lists_the_gallery(capsys):
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    for name in gallery_names():
        assert name in shown


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_simulate_writes_rows(tmp_path, capsys, suffix, level3):
    out = tmp_path / "new" / f"rows{suffix}"
    assert main(["simulate", "gallery:level3", "--out", str(out), "--rows", "50", "--seed", "3"]) == 0
    frame = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert list(frame.columns) == ["z", "x", "t", "y"]
    assert len(frame) == 50
    assert tabulate(out, level3).attrs["n"] == 50
    again = tmp_path / f"again{suffix}"
    main(["simulate", "gallery:level3", "--out", str(again), "--rows", "50", "--seed", "3", "--latent"])
    other = pd.read_csv(again) if suffix == ".csv" else pd.read_parquet(again)
    assert "latent_class" in other
    pd.testing.assert_frame_equal(other[frame.columns], frame)


@pytest.fixture(scope="module")
def lalonde(tmp_path_factory):
    out = tmp_path_factory.mktemp("lalonde")
    return out, main(["run", "gallery:lalonde", "--out", str(out / "new")])


def test_run_of_moments_only(lalonde):
    folder, code = lalonde
    assert code == 0
    written = {path.name for path in (folder / "new").iterdir()}
    assert {"result.nc", "summary.csv"} <= written
    assert "comparison.csv" not in written
    summary = pd.read_csv(folder / "new" / "summary.csv", index_col=0)
    assert summary.loc["att", "value"] == pytest.approx(1443, abs=5)
    assert pd.isna(summary.loc["ate", "value"])
    tree = load(folder / "new" / "result.nc")
    assert {"estimate", "moments", "identification"} <= set(tree.children)
    assert "POSITIVITY" in tree.attrs["notes"]


def test_run_says_what_to_doubt(tmp_path, capsys):
    assert main(["run", "gallery:lalonde", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in ("What can be learnt", "Moment estimate", "What to doubt", "refused", "Published"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "gallery:nothing"], "the gallery has no model"),
        (["run", "none.toml"], "no such model file"),
        (["run", "gallery:level3"], "names no data file"),
        (["run", "gallery:level3", "--data", "none.csv"], "no such data file"),
        (["simulate", "gallery:level3", "--out", "rows.txt"], "end the name with .csv"),
        (["simulate", "gallery:nhefs", "--out", "rows.csv"], "has no [truth] table"),
    ],
)
def test_refusals_are_one_and_say_why(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    caught = capsys.readouterr()
    assert "Refused" in caught.err
    assert message in " ".join(caught.err.split())
    assert "Traceback" not in caught.err
    assert not list(tmp_path.iterdir())


def test_brackets_in_a_message_are_shown(tmp_path, capsys):
    """Messages name tables such as [data]; markup must not swallow them."""
    frame = pd.DataFrame({"z": [0, None], "x": [0, 1], "t": [0, 1], "y": [0, 1]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    code = main(["run", "gallery:level3", "--data", str(tmp_path / "rows.csv")])
    assert code == 1
    assert "[data] table" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["unknown"],
        ["run", "gallery:level3", "--nothing"],
        ["run", "gallery:level3", "--draws", "many"],
        ["run", "gallery:level3", "--draws", "1"],
        ["simulate", "gallery:level3"],
        ["simulate", "gallery:level3", "--out", "rows.csv", "--rows", "0"],
    ],
)
def test_usage_errors_are_two(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_is_zero(capsys):
    assert main(["--help"]) == 0
    assert "simulate" in capsys.readouterr().out


def test_refused_graph_is_one(tmp_path, capsys, level3):
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    proxy = {"family": "bernoulli", "parents": ["z"]}
    variables = {**level3.variables, "x": proxy}
    broken = CausalModel(**{**fields, "name": "broken", "truth": None, "variables": variables})
    (tmp_path / "broken.toml").write_text(broken.to_toml())
    rows = str(tmp_path / "rows.csv")
    assert main(["simulate", "gallery:level3", "--out", rows, "--rows", "300"]) == 0
    command = ["run", str(tmp_path / "broken.toml"), "--data", rows, "--out", str(tmp_path / "out")]
    code = main(command)
    caught = capsys.readouterr()
    assert code == 1, caught.out
    assert "independent of" in " ".join(caught.err.split())


def test_a_model_without_roles_is_refused(tmp_path, capsys):
    (tmp_path / "m.toml").write_text('classes = 2\n[variables.z]\nfamily = "bernoulli"\n')
    (tmp_path / "rows.csv").write_text("z\n0\n1\n")
    command = ["run", str(tmp_path / "m.toml"), "--data", str(tmp_path / "rows.csv")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert "treatment" in capsys.readouterr().err
