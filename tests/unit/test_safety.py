"""Hostile or careless input is refused clearly and quickly."""

import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pymc_mte import CausalModel, DataError, ModelError, load, load_model, save, simulate, tabulate
from pymc_mte.data import resolve

TEXT = """
name = "m"
classes = 1
[variables.z]
family = "bernoulli"
[data]
file = {file}
"""


def model_in(folder, file):
    path = folder / "m.toml"
    path.write_text(TEXT.format(file=file))
    return load_model(path)


@pytest.mark.parametrize("name", ["x'); --.csv", 'a"b.csv', "a b;DROP TABLE.csv", "ö.csv", "$(ls).csv"])
def test_odd_file_names_are_only_names(level3, tmp_path, name):
    frame = simulate(level3, 50, rng=1).to_dataframe()
    frame.to_csv(tmp_path / name, index=False)
    (tmp_path / "other.csv").write_text("z,x,t,y\n")
    assert tabulate(tmp_path / name, level3).attrs["n"] == 50


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("https://example.org/rows.csv", "a web address"),
        ("s3://bucket/rows.csv", "a web address"),
        ("../rows.csv", "climbs"),
        ("data/../../rows.csv", "climbs"),
        ("/etc/passwd", "an absolute path"),
        ("*.csv", "a pattern"),
        ("data/[ab].csv", "a pattern"),
    ],
)
def test_data_file_stays_beside_the_model(tmp_path, file, reason):
    with pytest.raises(ModelError, match=rf"data\.file.*{reason}.*--data"):
        resolve(model_in(tmp_path, repr(file)), None)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "rows.csv").write_text("z\n0\n1\n")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "rows.csv").symlink_to(tmp_path / "outside" / "rows.csv")
    with pytest.raises(ModelError, match="link that leads out"):
        resolve(model_in(tmp_path / "inside", '"rows.csv"'), None)


def test_a_link_inside_the_folder_is_read(tmp_path):
    (tmp_path / "rows.csv").write_text("z\n0\n1\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "rows.csv")
    assert resolve(model_in(tmp_path, '"link.csv"'), None)[1].attrs["n"] == 2


def test_a_model_without_a_folder_names_no_file():
    model = CausalModel.from_toml(TEXT.format(file='"rows.csv"'))
    with pytest.raises(ModelError, match=r"data\.file.*not read from"):
        resolve(model, None)


@pytest.mark.parametrize(
    "name", ["none.csv", "rows.txt", "rows.pkl", "rows.csv.gz", "rows*.csv", "https://e.org/a.csv"]
)
def test_files_that_are_not_read(level3, tmp_path, name):
    if "://" not in name and name != "none.csv":
        (tmp_path / name).write_text("z,x,t,y\n0,0,0,0\n")
    path = name if "://" in name else tmp_path / name
    with pytest.raises(DataError, match=r"no such data file|only \.csv and \.parquet|rename the file"):
        tabulate(path, level3)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\x00garbage", b"PAR1nonsense"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_that_are_not_what_they_say(level3, tmp_path, content, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read|are not in the data"):
        tabulate(path, level3)


def test_a_csv_that_breaks_off_is_refused(level3, tmp_path):
    """The defect comes after the reader's sample, so it shows only when rows are fetched."""
    path = tmp_path / "rows.csv"
    path.write_text("z,x,t,y\n" + "0,1,0,1\n" * 60_000 + "0,1,zero,1\n")
    with pytest.raises(DataError, match="rows"):
        tabulate(path, level3)


def refused_within(seconds, build, error, match):
    begin = time.perf_counter()
    with pytest.raises(error, match=match):
        build()
    assert time.perf_counter() - begin < seconds


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"classes": 1_000_000_000}, "classes: must be a whole number from 1 to 50"),
        ({"classes": 0}, "classes: must be a whole number"),
        ({"classes": 2.5}, "classes: must be a whole number"),
        ({"classes": "many"}, "classes: must be a whole number"),
        (
            {"variables": {"z": {"family": "categorical", "levels": list(range(1_000_000))}}},
            r"variables\.z: levels: between 2 and 1000",
        ),
        (
            {
                "variables": {
                    **{f"v{i}": {"family": "bernoulli"} for i in range(40)},
                    "w": {"family": "bernoulli", "parents": [f"v{i}" for i in range(40)]},
                }
            },
            r"variables\.w: its table would have",
        ),
    ],
)
def test_giants_are_refused_at_once(fields, match):
    given = {"classes": 2, "variables": {"z": {"family": "bernoulli"}}} | fields
    refused_within(5.0, lambda: CausalModel(**given), ModelError, match)


def test_a_column_of_many_levels_is_refused(level3):
    n = 200_000
    frame = {v: np.zeros(n, dtype=int) for v in level3.variables} | {"z": np.arange(n)}
    refused_within(10.0, lambda: tabulate(pd.DataFrame(frame), level3), DataError, "'z'")


def test_a_huge_model_file_is_refused(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text("# " + "x" * 2_000_001)
    with pytest.raises(ModelError, match="larger than"):
        load_model(path)


def test_names_that_a_file_cannot_hold_are_named(tmp_path):
    for name, held in (
        ("$y", False),
        ("y ", False),
        ("-y", False),
        ("é", True),
        ("y $.:", True),
        ("1y", True),
    ):
        tree = xr.DataTree(xr.Dataset({name: 0.5}))
        if held:
            assert float(load(save(tree, tmp_path / "held.nc"))[name]) == 0.5
        else:
            with pytest.raises(DataError, match="NetCDF files cannot hold the names"):
                save(tree, tmp_path / "refused.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["held.nc"]


def test_the_name_of_a_parameter_is_no_name_of_a_variable():
    bit = {"family": "bernoulli"}
    with pytest.raises(ModelError, match="p_x: this name is used for results"):
        CausalModel(classes=2, variables={"x": bit, "p_x": bit})


def test_names_with_a_slash_are_refused_at_once():
    with pytest.raises(ModelError, match=r"a/b: a slash separates groups"):
        CausalModel(classes=1, variables={"a/b": {"family": "bernoulli"}})
