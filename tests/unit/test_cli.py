"""The command line: status 0, 1 (refused, reason on standard error) or 2 (usage)."""

import importlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

from pymc_mte import (
    CausalModel,
    Fit,
    estimate,
    gallery_names,
    identify,
    load,
    load_model,
    simulate,
    tabulate,
    terminal,
)
from pymc_mte.bayes.groups import identification_dataset
from pymc_mte.cli import main
from pymc_mte.errors import RefusedError
from pymc_mte.plainly import equal_effects, in_words
from pymc_mte.results import dataset
from pymc_mte.status import Note, Status, dump_notes
from pymc_mte.summary import moment_summary, posterior_summary


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
    assert {"result.nc", "summary.csv", "report.html"} <= written
    assert "comparison.csv" not in written
    summary = pd.read_csv(folder / "new" / "summary.csv", index_col=0)
    assert summary.loc["att", "value"] == pytest.approx(1443, abs=5)
    assert pd.isna(summary.loc["ate", "value"])
    assert "weight_harmed" not in summary.index
    tree = load(folder / "new" / "result.nc")
    assert {"estimate", "moments", "identification"} <= set(tree.children)
    assert "POSITIVITY" in tree.attrs["notes"]


def test_run_says_what_to_doubt(tmp_path, capsys):
    assert main(["run", "gallery:lalonde", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in ("What can be learnt", "Moment estimate", "What to doubt", "refused", "Published"):
        assert words in shown
    answered = shown[shown.index("Can be answered") :].split(".")[0]
    assert "effect on treated" in answered
    assert "att" not in answered.replace(",", " ").split()
    assert "class 0" not in shown  # the bridge has no classes to number
    assert "…" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "gallery:nothing"], "the gallery has no model"),
        (["run", "none.toml"], "no such model file"),
        (["run", "gallery:level3"], "names no data file"),
        (["run", "gallery:level3", "--data", "none.csv"], "no such data file"),
        (["simulate", "gallery:level3", "--out", "rows.txt"], "end the name with .csv"),
        (["simulate", "gallery:nhefs", "--out", "rows.csv"], "has no [truth] table"),
        (["simulate", "gallery:nhefs", "--out", "rows.txt"], "end the name with .csv"),  # before drawing
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


def run_broken(tmp_path, level3, **changed):
    """Run a model whose proxies depend on each other, on rows of `level3`."""
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    variables = {**level3.variables, "x": {"family": "bernoulli", "parents": ["z"]}, **changed}
    broken = CausalModel(**{**fields, "name": "broken", "truth": None, "variables": variables})
    (tmp_path / "broken.toml").write_text(broken.to_toml())
    rows = str(tmp_path / "rows.csv")
    assert main(["simulate", "gallery:level3", "--out", rows, "--rows", "300"]) == 0
    return main(["run", str(tmp_path / "broken.toml"), "--data", rows, "--out", str(tmp_path / "out")])


def test_refused_graph_is_one(tmp_path, capsys, level3):
    """More parameters than the table has cells: neither moments nor the likelihood fix anything."""
    code = run_broken(tmp_path, level3, y={"family": "bernoulli", "parents": ["x", "t"]})
    caught = capsys.readouterr()
    assert code == 1, caught.out
    assert "independent of" in " ".join(caught.err.split())


def test_a_graph_without_moment_methods_goes_on_to_the_posterior(tmp_path, capsys, level3, monkeypatch):
    asked = []

    def stop(model, table, moments, found, **_):
        asked.append(moments)
        raise RefusedError("far enough")

    monkeypatch.setattr(importlib.import_module("pymc_mte.fit"), "finish", stop)
    assert run_broken(tmp_path, level3) == 1
    caught = capsys.readouterr()
    assert "2. No moment estimate" in caught.out
    assert "The graph reaches nothing" in " ".join(caught.out.split())
    assert "Compiling the posterior" in caught.out
    assert (asked, "far enough" in caught.err) == ([None], True)


def test_a_model_without_roles_runs(tmp_path, capsys):
    raters = load_model("gallery:carcinoma_exchangeable")
    quick = raters.model_copy(update={"name": "raters", "moments_only": "This test needs no draws."})
    (tmp_path / "raters.toml").write_text(quick.to_toml())
    command = ["run", str(tmp_path / "raters.toml"), "--data", str(raters.data_path)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "weight, class 2" in shown
    assert "lowest effect" not in shown
    assert load(tmp_path / "out" / "result.nc").attrs["kind"] == "coins"


def test_a_file_as_folder_is_refused_before_the_computation(tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("keep")
    for out in (taken, taken / "below"):
        assert main(["run", "gallery:lalonde", "--out", str(out)]) == 1
        caught = capsys.readouterr()
        assert "name another one" in " ".join(caught.err.split())
        assert "What can be learnt" not in caught.out
    assert taken.read_text() == "keep"


def test_errors_of_the_file_system_are_one_sentence(tmp_path, capsys):
    (tmp_path / "rows.csv").mkdir()
    assert main(["simulate", "gallery:level3", "--out", str(tmp_path / "rows.csv"), "--rows", "5"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Refused: ")
    assert "Traceback" not in said


def test_the_seed_reaches_identify(tmp_path, monkeypatch, capsys):
    def refuse(model, data, *, base, rng):
        raise RefusedError(f"seed {rng}")

    home = importlib.import_module("pymc_mte.identify.identification")
    monkeypatch.setattr(home, "identify", refuse)
    assert main(["run", "gallery:lalonde", "--out", str(tmp_path), "--seed", "7"]) == 1
    assert "seed 7" in capsys.readouterr().err


@pytest.fixture
def drawn(level3):
    """A result as `sample` returns it, with made-up draws."""
    rng = np.random.default_rng(1)
    shapes = {"ate": (), "att": (), "effect_sd": (), "weight_harmed": (), "arm_mean": (2,)}
    shapes |= {"class_weight": (2,), "effect": (2,), "potential_outcome": (2, 2)}
    values = {name: rng.normal(0.3, 0.1, size=(4, 50, *shape)) for name, shape in shapes.items()}
    tree = xr.DataTree.from_dict({"posterior": dataset(level3, values)})
    tree.attrs = {"model": level3.to_toml(), "notes": "[]"}
    return tree


def flagged(tree, **flags):
    names = np.array(list(flags), dtype=object)
    data = xr.Dataset({"identified": ("functional", np.array(list(flags.values()), dtype="int8"))})
    tree["identification"] = xr.DataTree(data.assign_coords(functional=names))
    return tree


@pytest.fixture
def shown(monkeypatch, capsys):
    """What a terminal of 80 columns shows of tables or of what a function prints."""
    monkeypatch.setattr(terminal, "console", Console(width=80))

    def show(*tables):
        for table in tables:
            terminal.console.print(table)
        said = capsys.readouterr().out
        assert max(map(len, said.splitlines())) <= 80
        assert "…" not in said
        return said

    return show


def test_summary_says_what_is_identified(drawn):
    assert posterior_summary(drawn)["identified"].all()
    known = posterior_summary(flagged(drawn, ate=False, att=True, effect=False, class_weight=True))
    wanted = {"ate": False, "att": True, "effect_sd": True, "class_weight[class 1]": True}
    wanted |= {"arm_mean[treatment 0]": False, "effect[class 0]": False}
    assert known["identified"].loc[list(wanted)].to_dict() == wanted
    assert known["identified"].dtype == bool


def test_a_posterior_of_level_4_is_marked(drawn):
    """The averages are the data's, all else is the prior's; the report explains the mark."""
    model = load_model("gallery:level4")
    found = identify(model)
    drawn["identification"] = xr.DataTree(identification_dataset(found))
    marked = posterior_summary(drawn)["identified"]
    averages = marked.index.str.startswith(("ate", "att", "arm_mean"))
    assert marked[averages].all()
    assert not marked[~averages].any()
    assert drawn["identification"].attrs["rank"] == 15
    assert drawn["identification"].attrs["n_parameters"] == 17
    moments = estimate(model, simulate(model, 2_000, rng=1), n_boot=4)
    answer = Fit(model=model, identification=found, moments=moments, posterior=drawn, comparison=None)
    for said in (str(answer), answer._repr_html_()):
        assert "identified = False: graph and data do not decide this answer" in said
    drawn["identification"] = xr.DataTree(identification_dataset(identify(load_model("gallery:level3"))))
    assert "identified = False" not in str(answer)


def test_weight_harmed_is_in_results_only(drawn, level3):
    moments = estimate(level3, simulate(level3, 2_000, rng=1), n_boot=8)
    assert "weight_harmed" in moments["estimate"]
    for table in (moment_summary(moments), posterior_summary(drawn)):
        assert "effect_sd" in table.index
        assert not table.index.str.startswith("weight_harmed").any()


def test_what_is_not_identified_looks_like_no_estimate(drawn, shown):
    said = shown(terminal.answers_table(posterior_summary(flagged(drawn, ate=True, effect=False)), "title"))
    assert said.count("prior-driven") == 2
    plain = shown(terminal.answers_table(posterior_summary(flagged(drawn, ate=True, effect=True)), "title"))
    assert "prior-driven" not in plain


def compared(**columns):
    names = ["ate", "effect[class 0]", "effect[class 1]", "potential_outcome[class 0, treatment 0]"]
    table = pd.DataFrame(
        {"mean": -0.0123, "sd": 0.0456, "spectral": -0.0234, "spectral_se": 0.0567, "bridge": np.nan},
        index=pd.Index(names, name="functional"),
    )
    more = {"bridge_se": np.nan, "ml": -0.0111, "z": -1.25, "prior_pull": 0.2, "verdict": "agree"}
    return table.assign(**more | columns)


def test_comparison_shows_likelihood_test_and_pull(drawn, shown):
    summary = posterior_summary(drawn)
    table = compared()
    table.attrs["says"] = ["Bridge and spectral agree."]
    terminal.print_comparison(table, summary)
    said = " ".join(shown().split())
    for words in (
        "Bridge and spectral agree.",
        "ml",
        "moments - ml, z",
        "-0.0111",
        "-1.25",
        "0.2 agree",
        "maximum likelihood",
    ):
        assert words in said
    assert "prior pulls" not in said
    assert "prior-driven" not in said
    terminal.print_comparison(compared(prior_pull=[0.5, -1.4, np.nan, 3.0]), summary)
    said = " ".join(shown().split())
    assert "The prior pulls these by more than one posterior SD: effect, class 0." in said


@pytest.mark.parametrize("where", ["table", "summary"])
def test_comparison_marks_what_is_not_identified(drawn, shown, where):
    summary, table = posterior_summary(flagged(drawn, effect=where == "table")), compared()
    if where == "table":
        table["identified"] = [True, False, False, False]
    terminal.print_comparison(table, summary)
    assert shown().count("(0.046) prior-driven") == 2


def test_refused_and_no_answer_differ(shown):
    tree = xr.DataTree()
    few, rare = Note(Status.TOO_FEW_FEATURES, "proxies"), Note(Status.POSITIVITY, "t = 1")
    for notes, word in (([few], "no answer"), ([few, rare], "refused"), ([], "no answer")):
        tree.attrs = {"notes": dump_notes(notes)}
        assert terminal.absent_word(tree) == word
    table = pd.DataFrame({"value": [np.nan], "se": [np.nan]}, index=["ate"])
    assert "no answer" in shown(terminal.answers_table(table, "title"))
    assert "refused" in shown(terminal.answers_table(table, "title", "refused"))


def test_tiny_p_values(shown):
    columns = ["check", "where", "value", "se", "p", "verdict"]
    rows = [["strength", "t = 0", 0.3, 0.1, 0.0, "ok"], ["share", "t = 0", 0.3, np.nan, np.nan, "ok"]]
    said = shown(terminal.checks_table(pd.DataFrame(rows, columns=columns)))
    assert said.count("<1e-16") == 1
    assert "nan" not in said
    tree = xr.DataTree.from_dict({"estimate": xr.Dataset({"causal_groups": ("class", [0, 1])})})
    tree.attrs = {"equal_effects_p": 0.0}
    assert "p < 1e-16, so the classes differ" in equal_effects(tree)[0]


def test_equal_effects_are_not_judged_while_classes_are_unsure():
    tree = xr.DataTree.from_dict({"estimate": xr.Dataset({"causal_groups": ("class", [0, 1])})})
    notes = [Note(Status.AMBIGUOUS_CLASSES, "polished"), Note(Status.CLASSES_TIED, "classes 0 and 1")]
    tree.attrs = {"equal_effects_p": 6e-5, "notes": dump_notes(notes)}
    (said,) = equal_effects(tree)
    assert said.endswith("p = 6e-05, not to be read here, for the classes are unsure (ambiguous classes).")
    tree.attrs["notes"] = dump_notes(notes[1:])
    assert "so the classes differ" in equal_effects(tree)[0]


@pytest.mark.parametrize("command", ["simulate", "estimate"])
def test_a_negative_seed_is_a_usage_error(command, tmp_path):
    more = ["--out", str(tmp_path / "x.csv")]
    assert main([command, "gallery:level3", "--seed", "-1", *more]) == 2


def test_functionals_in_words():
    assert in_words("Can be answered: ate, att, class_weight.") == (
        "Can be answered: average effect, effect on treated, class weights."
    )
    assert in_words("Can be answered: nothing.") == "Can be answered: nothing."
    other = "This rests on: x independent of t given latent class."
    assert in_words(other) == other


def test_a_fit_prints_as_a_report(drawn, level3):
    rows = simulate(level3, 2_000, rng=1)
    moments = estimate(level3, rows, n_boot=8)
    moments.attrs["notes"] = dump_notes([Note(Status.CLASSES_TIED, "classes <0> and 1", "gap 1")])
    parts = {"model": level3, "identification": identify(level3), "moments": moments, "comparison": None}
    for posterior in (drawn, None):
        answer = Fit(posterior=posterior, **parts)
        said = str(answer)
        assert said == repr(answer)
        for words in ("Effect of t on y", "effect[class 1]", "To doubt", "classes tied (classes <0> and 1)"):
            assert words in said
        assert ("r_hat" in said) == (posterior is not None)
        assert "..." not in said
        page = answer._repr_html_()
        assert "classes &lt;0&gt; and 1" in page
        assert "<0>" not in page


def test_identify_and_estimate_alone(tmp_path, capsys):
    assert main(["identify", "gallery:level4"]) == 0
    assert "Average effects only" in capsys.readouterr().out.replace(
        "average effects only", "Average effects only"
    )
    rows = str(tmp_path / "rows.csv")
    assert main(["simulate", "gallery:level3", "--out", rows, "--rows", "400"]) == 0
    assert main(["identify", "gallery:level3", "--data", rows]) == 0
    assert "canonical correlation" in capsys.readouterr().out
    for name in ("answer.nc", "answer.csv"):
        out = tmp_path / "new" / name
        command = ["estimate", "gallery:level3", "--data", rows, "--method", "bridge", "--out", str(out)]
        assert main(command) == 0
        assert "method bridge" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "new" / "answer.csv", index_col=0)
    found = load(tmp_path / "new" / "answer.nc")["estimate"]
    assert table.loc["ate", "value"] == pytest.approx(float(found["ate"]))
    assert main(["estimate", "gallery:level3", "--data", rows, "--out", "answer.txt"]) == 1
    assert main(["estimate", "gallery:level3", "--data", rows, "--method", "magic"]) == 1


@pytest.fixture
def mixed(tmp_path):
    """A table of all kinds of columns, with names and values that need quoting."""
    rng = np.random.default_rng(1)
    n = 300
    frame = pd.DataFrame(
        {
            'the "z"': rng.choice(["a", "b c", 'd"'], size=n),
            "x": rng.integers(0, 4, size=n),
            "t": rng.integers(0, 2, size=n),
            "y": rng.normal(size=n),
            "half": rng.choice([0.5, 1.5], size=n),
            "same": 1,
            "id": [f"person {i}" for i in range(n)],
            "day": pd.Timestamp("2026-01-01"),
        }
    )
    frame.loc[:2, "x"] = np.nan
    path = tmp_path / "rows.parquet"
    frame.to_parquet(path)
    return path


def test_init_writes_a_model_that_runs(mixed, capsys):
    proxies = ["--treatment-proxy", 'the "z"', "--outcome-proxy", "x"]
    command = ["init", str(mixed), "--treatment", "t", "--outcome", "y", *proxies]
    assert main(command) == 0
    target = mixed.with_suffix(".toml")
    model = load_model(target)
    families = {name: var.family for name, var in model.variables.items()}
    assert families == {
        'the "z"': "categorical",
        "x": "ordinal",
        "t": "bernoulli",
        "y": "normal",
        "half": "normal",
    }
    assert model.variables["x"].levels == (0, 1, 2, 3)
    assert model.data.missing == "drop"
    assert model.variables["t"].parents == ('the "z"',)
    assert "levels = [0, 1, 2, 3]\n" in target.read_text()
    text = target.read_text()
    for name in ("same", "id", "day"):
        assert f"# left out: {name} (" in text
    assert main(["estimate", str(target), "--method", "bridge"]) == 0
    assert main(command) == 1
    assert "exists already" in " ".join(capsys.readouterr().err.split())


def test_init_without_roles_leaves_them_to_the_reader(mixed, tmp_path, capsys):
    target = tmp_path / "models" / "mine.toml"
    assert main(["init", str(mixed), "--out", str(target), "--classes", "3"]) == 0
    model = load_model(target)
    assert (model.treatment, model.classes, model.data) == (None, 3, None)
    assert "# treatment = " in target.read_text()
    assert "pass them with --data" in target.read_text()
    for more, said in (
        (["--treatment", "drug"], "no usable column"),
        (["--out", str(tmp_path / "m.txt")], "end the name with .toml"),
    ):
        assert main(["init", str(mixed), *more]) == 1
        assert said in " ".join(capsys.readouterr().err.split())
    assert main(["init", str(tmp_path / "none.csv")]) == 1
