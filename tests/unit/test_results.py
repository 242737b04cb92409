"""The layout of answers, and saving them whole or not at all."""

import json

import arviz as az
import numpy as np
import pytest
import xarray as xr

from pymc_mte import CausalModel, DataError, ModelError, estimate, load, save, simulate
from pymc_mte.results import model_of
from pymc_mte.status import load_notes


@pytest.fixture(scope="module")
def named(level3):
    """A model with text for arms, so that coordinates are text too."""
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    arms = {**level3.variables["t"].model_dump(), "levels": ["a", "b"]}
    return CausalModel(**{**fields, "variables": {**level3.variables, "t": arms}})


@pytest.fixture(scope="module")
def answer(named):
    return estimate(named, simulate(named, 5_000, rng=1), n_boot=40, rng=1)


def test_layout_is_that_of_a_posterior(answer, named):
    assert answer["posterior"].sizes["chain"] == 4
    assert answer["posterior"].sizes["draw"] == 10
    assert answer["posterior"].attrs == {"kind": "bootstrap", "method": "polished"}
    assert answer["estimate"].attrs["method"] == "polished"
    assert answer["posterior"]["effect"].dims == ("chain", "draw", "class")
    assert answer["posterior"]["potential_outcome"].dims == ("chain", "draw", "class", "treatment")
    assert answer["estimate"]["treatment"].values.tolist() == ["a", "b"]
    assert answer["estimate"]["p_t"].dims == ("class", "z", "t")
    for name in ("ate", "att", "effect", "class_weight", "ate_bridge"):
        assert f"se_{name}" in answer["estimate"]
    assert model_of(answer) == named
    assert "pymc-mte" in answer.attrs["versions"]
    assert isinstance(load_notes(answer.attrs["notes"]), list)
    json.loads(answer.attrs["notes"])


@pytest.mark.parametrize("method", ["bridge", "pencil", "spectral", "polished"])
def test_every_method_has_the_layout(level3, method):
    tree = estimate(level3, simulate(level3, 3_000, rng=1), method=method, n_boot=8)
    assert tree.attrs["method"] == method
    assert dict(tree["posterior"].sizes)["chain"] == 4
    assert {"ate", "att"} <= set(tree["estimate"].data_vars)
    assert ("effect" in tree["estimate"]) == (method != "bridge")


def test_arviz_takes_it_as_it_is(answer):
    table = az.summary(answer, var_names=["ate", "effect"])
    assert len(table) == 3
    figure = az.plot_forest(answer, var_names=["ate", "effect"])
    assert figure is not None


def test_order_is_ascending_and_weights_go_along(answer):
    effect = answer["estimate"]["effect"].values
    assert effect[0] < effect[1]
    total = (answer["estimate"]["class_weight"] * answer["estimate"]["effect"]).sum()
    assert float(total) == pytest.approx(float(answer["estimate"]["ate"]), abs=1e-12)


def test_replicates_are_reproducible_and_not_all_equal(level3):
    rows = simulate(level3, 2_000, rng=1)
    one, two = (estimate(level3, rows, n_boot=8, rng=3) for _ in range(2))
    xr.testing.assert_identical(one["posterior"].to_dataset(), two["posterior"].to_dataset())
    other = estimate(level3, rows, n_boot=8, rng=4)
    assert not np.allclose(one["posterior"]["ate"], other["posterior"]["ate"])
    assert one["posterior"]["ate"].std() > 0


def test_no_replicates(level3):
    tree = estimate(level3, simulate(level3, 2_000, rng=1), n_boot=0)
    assert tree["posterior"].sizes["draw"] == 1
    assert "se_ate" not in tree["estimate"]


@pytest.mark.parametrize("n_boot", [-4, 3, 10])
def test_replicates_come_in_fours(level3, n_boot):
    with pytest.raises(ModelError, match="n_boot must be"):
        estimate(level3, simulate(level3, 100), n_boot=n_boot)


def test_unknown_method(level3):
    with pytest.raises(ModelError, match="method 'magic' is unknown; choose auto, bridge"):
        estimate(level3, simulate(level3, 100), method="magic")


def same(one, other):
    assert set(one.groups) == set(other.groups)
    assert dict(one.attrs) == dict(other.attrs)
    for group in one.groups:
        first, second = one[group].to_dataset(), other[group].to_dataset()
        xr.testing.assert_identical(first, second)
        for name in first.variables:
            assert first[name].dtype.kind == second[name].dtype.kind, name
            if first[name].dtype.kind in "if":
                assert first[name].dtype == second[name].dtype, name


def test_save_and_load_change_nothing(answer, tmp_path):
    path = save(answer, tmp_path / "new" / "answer.nc")
    assert [p.name for p in path.parent.iterdir()] == ["answer.nc"]
    same(answer, load(path))


def test_loaded_results_do_not_hold_the_file(answer, tmp_path):
    path = save(answer, tmp_path / "answer.nc")
    loaded = load(path)
    path.unlink()
    assert np.isfinite(loaded["posterior"]["ate"].values).all()


def test_a_failing_write_leaves_the_old_file(answer, tmp_path, monkeypatch):
    path = save(answer, tmp_path / "answer.nc")
    before = path.read_bytes()

    def broken(self, name, **options):
        with open(name, "wb") as file:
            file.write(b"half a result")
        raise OSError("disk full")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", broken)
    with pytest.raises(OSError, match="disk full"):
        save(answer, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["answer.nc"]


def test_overwriting_is_whole(answer, level3, tmp_path):
    save(answer, tmp_path / "answer.nc")
    other = estimate(level3, simulate(level3, 1_000, rng=1), method="bridge", n_boot=4)
    save(other, tmp_path / "answer.nc")
    same(other, load(tmp_path / "answer.nc"))


def test_load_of_nothing(tmp_path):
    with pytest.raises(DataError, match="no such result file"):
        load(tmp_path / "none.nc")
    with pytest.raises(DataError, match="result of pymc_mte"):
        model_of(xr.DataTree())


def test_a_file_that_is_no_result(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"not netcdf")
    with pytest.raises((DataError, OSError)):
        load(tmp_path / "a.nc")


def test_saved_files_are_readable_by_others(answer, tmp_path):
    """A temporary file is private to its owner; the result should not be."""
    path = save(answer, tmp_path / "answer.nc")
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
