"""Every way in gives the same table; every defect has a defined, reported outcome."""

import datetime
import json
import warnings

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr

from pymc_mte import (
    CausalModel,
    DataError,
    DataSource,
    estimate,
    load_model,
    population,
    simulate,
    tabulate,
)
from pymc_mte.data import data_notes, resolve
from pymc_mte.status import Status


@pytest.fixture(scope="module")
def rows(level3):
    return simulate(level3, 3_000, rng=1)


@pytest.fixture(scope="module")
def frame(rows):
    return rows.to_dataframe().drop(columns="latent_class")


def changed(model, variables=None, **fields):
    whole = {n: getattr(model, n) for n in type(model).model_fields}
    if variables:
        fields["variables"] = {**model.variables, **variables}
    return CausalModel(**{**whole, "truth": None, **fields})


def write(frame, folder, suffix):
    path = folder / f"rows{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)
    return path


WAYS = {
    "pandas": lambda f, rows, tmp: f,
    "pandas with another index": lambda f, rows, tmp: f.set_axis(range(5, 5 + len(f))),
    "pandas nullable": lambda f, rows, tmp: f.convert_dtypes(),
    "polars": lambda f, rows, tmp: pl.from_pandas(f),
    "polars lazy": lambda f, rows, tmp: pl.from_pandas(f).lazy(),
    "arrow": lambda f, rows, tmp: pa.Table.from_pandas(f, preserve_index=False),
    "dict of arrays": lambda f, rows, tmp: {c: f[c].to_numpy() for c in f},
    "dict of lists": lambda f, rows, tmp: {c: f[c].tolist() for c in f},
    "xarray": lambda f, rows, tmp: rows,
    "csv": lambda f, rows, tmp: write(f, tmp, ".csv"),
    "csv as text": lambda f, rows, tmp: str(write(f, tmp, ".csv")),
    "parquet": lambda f, rows, tmp: write(f, tmp, ".parquet"),
    "duckdb": lambda f, rows, tmp: duckdb.from_arrow(pa.Table.from_pandas(f, preserve_index=False)),
    "floats": lambda f, rows, tmp: f.astype(float),
    "booleans": lambda f, rows, tmp: f.astype(bool),
    "categories": lambda f, rows, tmp: f.astype("category"),
    "permuted rows": lambda f, rows, tmp: f.sample(frac=1, random_state=1),
    "permuted columns": lambda f, rows, tmp: f[["y", "t", "x", "z"]],
    "additional column": lambda f, rows, tmp: f.assign(note="anything"),
    "tabulated already": lambda f, rows, tmp: tabulate(f, load_model("gallery:level3")),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_same_table(level3, frame, rows, tmp_path, way):
    wanted = tabulate(frame, level3)
    given = WAYS[way](frame, rows, tmp_path)
    table = tabulate(given, level3)
    xr.testing.assert_identical(table, wanted)
    assert table.attrs["n"] == 3_000


def test_counts_are_the_plain_frequencies(level3, frame):
    table = tabulate(frame, level3)
    wanted = frame.groupby(["z", "x", "t", "y"]).size()
    assert table.sizes["pattern"] == len(wanted)
    for i in range(table.sizes["pattern"]):
        key = tuple(int(table[v][i]) for v in ("z", "x", "t", "y"))
        assert int(table["count"][i]) == wanted[key]


def test_precounted_rows(level3, frame):
    counted = frame.groupby(["z", "x", "t", "y"]).size().rename("n").reset_index()
    xr.testing.assert_identical(tabulate(counted, level3, count="n"), tabulate(frame, level3))


def test_count_column_named_in_the_model_file(level3, frame, tmp_path):
    counted = frame.groupby(["z", "x", "t", "y"]).size().rename("n").reset_index()
    counted.to_csv(tmp_path / "rows.csv", index=False)
    model = changed(level3, name="model", data={"file": "rows.csv", "count": "n"})
    (tmp_path / "model.toml").write_text(model.to_toml())
    _, table = resolve(load_model(tmp_path / "model.toml"), None)
    xr.testing.assert_identical(table, tabulate(frame, level3))


def test_real_counts_stay_real(level3):
    table = population(level3)
    assert table["count"].dtype.kind == "f"
    doubled = {v: table[v].values for v in level3.variables} | {"n": table["count"].values}
    assert tabulate(doubled, level3, count="n")["count"].values == pytest.approx(table["count"].values)


NAMES = {
    "text": ["a", "b"],
    "text in another order": ["b", "a"],
    "booleans": [False, True],
    "numbers": [0, 1],
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("variable", ["t", "z", "y"])
def test_names_of_the_levels_do_not_matter(level3, frame, variable, names):
    labels = NAMES[names]
    wanted = estimate(level3, frame, method="spectral", n_boot=8)
    named = changed(level3, {variable: {**level3.variables[variable].model_dump(), "levels": labels}})
    renamed = frame.assign(**{variable: [labels[i] for i in frame[variable]]})
    answer = estimate(named, renamed, method="spectral", n_boot=8)
    for group in ("estimate", "posterior"):
        for name, value in wanted[group].data_vars.items():
            np.testing.assert_array_equal(answer[group][name].values, value.values)
    if variable == "t":
        assert answer["estimate"]["treatment"].values.tolist() == labels


def test_open_levels_are_recognised(level3, frame):
    text = frame.assign(t=np.where(frame["t"] == 1, "treated", "control"))
    answer = estimate(level3, text, method="spectral", n_boot=0)
    assert answer["estimate"]["treatment"].values.tolist() == ["control", "treated"]
    np.testing.assert_array_equal(
        answer["estimate"]["effect"],
        estimate(level3, frame, method="spectral", n_boot=0)["estimate"]["effect"],
    )


def test_missing_is_an_error_by_default(level3, frame):
    holed = frame.astype(float)
    holed.loc[:6, "x"] = np.nan
    holed.loc[5:9, "t"] = np.nan
    with pytest.raises(DataError, match=r"x \(7\), t \(5\).*missing = \"drop\".*impute") as error:
        tabulate(holed, level3)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("hole", [np.nan, None, pd.NA])
def test_missing_rows_are_dropped_and_counted(level3, frame, hole):
    model = changed(level3, data=DataSource(missing="drop"))
    holed = frame.astype(object)
    holed.loc[:6, "x"] = hole
    holed.loc[5:9, "t"] = hole
    table = tabulate(holed, model)
    assert table.attrs["n"] == 2_990
    note = next(n for n in data_notes(table) if n.status is Status.ROWS_DROPPED)
    assert note.where == "x (7), t (5)"
    assert note.detail == "10 of 3000 rows"
    xr.testing.assert_equal(table, tabulate(frame.iloc[10:], level3))


def test_missing_in_a_continuous_column():
    model = CausalModel(classes=1, variables={"y": {"family": "normal"}})
    with pytest.raises(DataError, match=r"y \(1\)"):
        tabulate({"y": [1.0, np.nan]}, model)
    with pytest.raises(DataError, match="every row has a missing value"):
        tabulate({"y": [np.nan, np.nan]}, changed(model, data=DataSource(missing="drop")))


DEFECTS = {
    "unseen level": ({"z": [0, 1, 2]}, r"'z'.* 2.*list"),
    "third text": ({"z": ["a", "b", "c"]}, r"'z'.*'a', 'b', 'c'.*list its two levels"),
    "text and numbers": ({"z": ["a", 0, 1]}, r"'z'.*recode"),
    "text in a numeric column": ({"y": ["1.5", "low", "2"]}, r"'y' must be numeric.*low"),
    "numbers as text": ({"y": ["1.5", "2", "3"]}, r"'y' holds numbers written as text"),
    "infinity": ({"y": [1.0, np.inf, -np.inf]}, r"'y' holds 2 infinite"),
    "dates": ({"z": [datetime.date(2020, 1, i) for i in (1, 2, 3)]}, r"'z'"),
    "missing column": ({"q": [1, 2, 3]}, r"columns \['z'\] are not in the data"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_of_the_data_are_errors(defect):
    given, message = DEFECTS[defect]
    model = CausalModel(classes=1, variables={"z": {"family": "bernoulli"}, "y": {"family": "normal"}})
    columns = {"z": [0, 1, 1], "y": [1.0, 2.0, 3.0]} | given
    if "q" in given:
        del columns["z"]
    with pytest.raises(DataError, match=message):
        tabulate({name: np.asarray(v, dtype=object) for name, v in columns.items()}, model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": [0, 1], "y": [1.0]}, "equally long"),
        ({"z": np.zeros((2, 2)), "y": np.zeros((2, 2))}, "one-dimensional"),
        (3.5, "cannot read data of type float"),
        ([1, 2], "cannot read data of type list"),
        (xr.Dataset({"z": (("a", "b"), np.zeros((2, 2)))}), "one dimension"),
        (pd.DataFrame({"z": [], "y": []}), "no rows"),
        (pl.DataFrame({"z": [], "y": []}), "no rows"),
    ],
)
def test_shapes_that_are_no_table(given, message):
    model = CausalModel(classes=1, variables={"z": {"family": "bernoulli"}, "y": {"family": "normal"}})
    with pytest.raises(DataError, match=message):
        tabulate(given, model)


@pytest.mark.parametrize("counts", [[1, -1, 2], [1, np.inf, 2], [1, np.nan, 2]])
def test_impossible_counts(counts):
    model = CausalModel(classes=1, variables={"y": {"family": "normal"}})
    with pytest.raises(DataError, match="counts must be finite and not negative"):
        tabulate({"y": [1.0, 2.0, 3.0], "n": np.asarray(counts, float)}, model, count="n")


def test_counts_that_are_all_zero():
    model = CausalModel(classes=1, variables={"z": {"family": "bernoulli"}})
    with pytest.raises(DataError):
        tabulate({"z": [0, 1], "n": [0, 0]}, model, count="n")


def test_a_count_column_of_text():
    model = CausalModel(classes=1, variables={"z": {"family": "bernoulli"}})
    with pytest.raises(DataError, match="n"):
        tabulate({"z": [0, 1], "n": ["many", "few"]}, model, count="n")


def test_constant_proxy_is_reported_and_not_used(level3, frame):
    constant = frame.assign(x=0)
    table = tabulate(constant, level3)
    assert [n.where for n in data_notes(table) if n.status is Status.CONSTANT_COLUMN] == ["x"]
    answer = estimate(level3, constant, method="spectral", n_boot=4)
    assert np.isnan(answer["estimate"]["ate"])
    assert "TOO_FEW_FEATURES" in answer.attrs["notes"]


def test_empty_arm_has_a_status_and_no_estimate(level3, frame):
    one_arm = frame[frame["t"] == 0]
    assert "EMPTY_ARM" in tabulate(one_arm, level3).attrs["notes"]
    for method in ("auto", "spectral", "bridge"):
        answer = estimate(level3, one_arm, method=method, n_boot=4)
        assert np.isnan(answer["estimate"]["ate"])
        assert np.isnan(answer["estimate"]["att"])
        assert "t = 1" in answer.attrs["notes"]


def test_empty_third_arm_leaves_the_other_contrast(tools):
    model = CausalModel(
        classes=2,
        variables={
            "z": {"family": "bernoulli"},
            "x": {"family": "bernoulli"},
            "t": {"family": "categorical", "levels": [0, 1, 2], "parents": ["z"]},
            "y": {"family": "bernoulli"},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
    )
    rows = simulate(load_model("gallery:level3"), 3_000, rng=1).to_dataframe()
    answer = estimate(model, rows, method="spectral", n_boot=8)["estimate"]
    two = estimate(load_model("gallery:level3"), rows, method="spectral", n_boot=0)["estimate"]
    assert answer["ate"].sel(contrast="1 - 0") == pytest.approx(float(two["ate"]))
    assert np.isnan(answer["ate"].sel(contrast="2 - 0"))
    np.testing.assert_allclose(answer["effect"].sel(contrast="1 - 0"), two["effect"])


@pytest.mark.parametrize("method", ["auto", "spectral", "bridge", "pencil"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_rows(level3, method, n):
    few = pd.DataFrame({"z": [0, 1, 1], "x": [0, 0, 1], "t": [0, 1, 0], "y": [1, 0, 1]})[:n]
    answer = estimate(level3, few, method=method, n_boot=8)
    assert len(answer.attrs["notes"]) > 2  # something is said
    assert "ate" in answer["estimate"]


def test_constant_outcome(level3, frame):
    answer = estimate(level3, frame.assign(y=1), method="bridge", n_boot=8)
    assert float(answer["estimate"]["ate"]) == pytest.approx(0.0, abs=1e-12)


def test_columns_may_have_any_name(level3, frame):
    odd = {"z": '"; DROP TABLE x; --', "x": "x'", "t": "ö [1]", "y": "__count"}
    variables = {
        odd[name]: {"family": "bernoulli", "parents": [odd[p] for p in var.parents]}
        for name, var in level3.variables.items()
    }
    model = CausalModel(
        classes=2,
        variables=variables,
        treatment=odd["t"],
        outcome=odd["y"],
        treatment_proxies=[odd["z"]],
        outcome_proxies=[odd["x"]],
    )
    wanted = tabulate(frame, level3)
    named = frame.rename(columns=odd)
    for way in (named, pl.from_pandas(named).lazy(), duckdb.from_arrow(pa.Table.from_pandas(named))):
        table = tabulate(way, model)
        np.testing.assert_array_equal(table["count"], wanted["count"])
    estimate(model, named, method="spectral", n_boot=4)


def test_resolve_wants_the_table_of_this_model(level3, frame):
    other = CausalModel(classes=1, variables={"z": {"family": "bernoulli"}})
    with pytest.raises(DataError, match=r"lack \['x', 't', 'y'\]"):
        resolve(level3, tabulate(frame, other))
    with pytest.raises(DataError, match="names no data file"):
        resolve(level3, None)


def test_tabulation_warns_of_nothing(level3, frame):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tabulate(frame, level3)
    assert not caught


def test_a_table_of_another_level_order_is_renumbered(level3, frame):
    """Reusing a tabulation under a model that lists the arms the other way round flips nothing."""

    def with_arms(arms):
        fields = {n: getattr(level3, n) for n in type(level3).model_fields}
        arm = level3.variables["t"].model_copy(update={"levels": arms})
        return CausalModel(**fields | {"variables": {**level3.variables, "t": arm}, "truth": None})

    one, other = with_arms(("a", "b")), with_arms(("b", "a"))
    named = frame.assign(t=np.where(frame["t"] == 1, "b", "a"))
    direct = estimate(other, named, n_boot=0)["estimate"]["ate"].item()
    reused = estimate(other, tabulate(named, one), n_boot=0)["estimate"]["ate"].item()
    assert reused == pytest.approx(direct, abs=1e-9)
    assert reused == pytest.approx(-estimate(one, named, n_boot=0)["estimate"]["ate"].item(), abs=1e-6)
    with pytest.raises(DataError, match="tabulate the rows again"):
        estimate(with_arms(("a", "c")), tabulate(named, one))


def test_the_count_column_of_the_model_is_used_where_the_data_have_it(level3):
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    model = CausalModel(**fields | {"data": DataSource(count="w")})
    counted = pd.DataFrame({"z": [0, 1], "x": [0, 1], "t": [0, 1], "y": [1, 0], "w": [30, 12]})
    assert tabulate(counted, model).attrs["n"] == 42
    assert tabulate(counted.drop(columns="w"), model).attrs["n"] == 2


@pytest.mark.parametrize("text", ["z,x,t,y,n\n", "z,x,t,y,n", "z,x,t,y,n\n\n"])
@pytest.mark.parametrize("count", [None, "n"])
def test_a_file_with_a_header_alone_has_no_rows(level3, tmp_path, text, count):
    (path := tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match="the data have no rows"):
        tabulate(path, level3, count=count)


def test_an_empty_file_and_a_file_without_a_header(level3, tmp_path):
    (path := tmp_path / "rows.csv").write_text("")
    with pytest.raises(DataError, match=r"the file is empty\); it needs a header"):
        tabulate(path, level3)
    path.write_text("0,1,0,1\n1,1,1,1\n")
    with pytest.raises(DataError, match=r"columns \['z', 'x', 't', 'y'\] are not in the data"):
        tabulate(path, level3)


def test_a_header_is_read_where_all_values_are_text(level3, tmp_path):
    (path := tmp_path / "rows.csv").write_text("z,x,t,y\na,b,a,b\nb,a,b,b\nb,a,b,a\n")
    assert json.loads(tabulate(path, level3.with_fields(truth=None))["z"].attrs["levels"]) == ["a", "b"]
