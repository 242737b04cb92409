"""The page of a fit: complete, self-contained, escaped, and free of small cells when asked to be."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pymc_mte import CausalModel, Fit, estimate, identify, load, load_model, simulate
from pymc_mte.plainly import answers
from pymc_mte.sharing import LEAST, STATEMENT, safe_cells, safe_note, safe_text
from pymc_mte.status import Note, Status, dump_notes

HOSTILE = "<script>alert('x')<\\script>\"&"


class Page(HTMLParser):
    """Tags, attributes that load something, and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def renamed(model, name):
    """The level-3 model with another name for its treatment-side proxy, levels included."""
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    variables = {name if v == "z" else v: var for v, var in model.variables.items()}
    variables["t"] = {"family": "bernoulli", "parents": [name]}
    truth = {name if v == "z" else v: p for v, p in model.truth.items()}
    more = {"variables": variables, "truth": truth, "treatment_proxies": [name], "summary": HOSTILE}
    return CausalModel(**fields | more)


def fitted(tools, model, n=600, posterior=True, judged=False):
    rows = simulate(model, n, rng=1)
    moments = estimate(model, rows, n_boot=4)
    moments.attrs["notes"] = dump_notes([Note(Status.ROWS_DROPPED, "x (3)", "3 of 600 rows")])
    tree = tools.made_posterior(model, rows) if posterior else None
    found = identify(model, rows, splits="none") if judged else identify(model)
    table = None
    if posterior:
        names = ["ate", "effect[class 0]", "effect[class 1]"]
        columns = {"mean": 0.1, "sd": 0.1, "lower": 0.0, "upper": 0.2, "spectral": 0.1, "spectral_se": 0.1}
        columns |= {"bridge": np.nan, "bridge_se": np.nan, "ml": 0.1, "z": 0.2, "prior_pull": 0.1}
        table = pd.DataFrame(columns, index=pd.Index(names, name="functional")).assign(verdict="agree")
        table.attrs["says"] = ["Bridge and spectral agree."]
    parts = {"model": model, "identification": found, "moments": moments, "random_seed": 17}
    return Fit(posterior=tree, comparison=table, **parts)


@pytest.fixture(scope="module")
def hostile(level3, tools):
    return fitted(tools, renamed(level3, HOSTILE))


@pytest.fixture(scope="module")
def small(level3, tools):
    """60 rows: some cells hold fewer than five."""
    return fitted(tools, level3, n=60)


def written(fit, folder, **options):
    path = fit.report(folder / "new" / "page.html", **options)
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    return path.read_text(encoding="utf-8")


def test_page_tells_everything(level3, tools, tmp_path):
    fit = fitted(tools, level3, judged=True)
    text = written(fit, tmp_path)
    page = Page(text)
    shown = " ".join(page.text.split())
    for words in (
        "What does t do to y",
        "Average effect:",
        "Class 1:",
        "agree with the likelihood",
        "Bridge and spectral agree.",
        "rows dropped: x (3) - 3 of 600 rows",
        Status.ROWS_DROPPED.value,
        "Effect of t on y, with 2 hidden classes assumed.",
        "no data can confirm all of them",
        fit.moments.attrs["versions"],
        "17",
        'name = "level3"',
    ):
        assert " ".join(words.split()) in shown, words
    assert page.tags.count("img") == 9
    assert STATEMENT not in shown


def test_single_tests_contradict_nothing_that_their_number_explains(level3, tools, tmp_path):
    """One doubt among many tests is no rejection, and the page must not say both."""
    fit = fitted(tools, level3, judged=True)
    advice = Status.ASSUMPTION_REJECTED.value
    row = {"check": "a test (df 1)", "where": "x", "value": 5.0, "p": 0.03, "verdict": "doubt"}
    checks = pd.DataFrame([row | {"advice": f"{advice} More."}], columns=fit.identification.checks.columns)
    for notes, said in (([], False), ([Note(Status.ASSUMPTION_REJECTED, "x")], True)):
        found = replace(fit.identification, checks=checks, notes=notes)
        page = Page(written(replace(fit, identification=found), tmp_path))
        learnt = page.text.partition("What can be learnt")[2].partition("All answers")[0]
        assert (advice in learnt) is said
        assert "More." in learnt


def test_class_one_takes_no_effects_of_class_ten(level3, tools):
    fit = fitted(tools, level3)
    table = pd.DataFrame({"mean": 0.5, "lower": 0.4, "upper": 0.6}, index=["class_weight[class 1]"])
    table.loc["effect[class 1]"] = table.loc["effect[class 10]"] = table.loc["class_weight[class 1]"]
    many = SimpleNamespace(model=fit.model, summary=lambda: table)
    (said,) = answers(many)
    assert said.count("effect") == 1


def test_page_loads_and_runs_nothing(hostile, tmp_path):
    page = Page(written(hostile, tmp_path))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    for source in page.sources:
        assert source.startswith(("data:image/svg+xml;base64,", "#")), source[:60]
    assert not {"link", "iframe", "object", "form", "base"} & set(page.tags)


def test_notebooks_show_escaped_text(hostile, level3):
    for thing in (hostile, hostile.identification, hostile.model):
        shown = thing._repr_html_()
        assert "script" not in Page(shown).tags
        assert "&lt;script&gt;" in shown
    assert "treatment proxy" in level3._repr_html_()
    table = pd.DataFrame({"mean": [0.1]}, index=[f"effect[{HOSTILE}]"])
    assert "script" not in Page(table._repr_html_()).tags


@pytest.mark.parametrize("name", ["lalonde", "coins7", "unknown_interventions"])
def test_every_kind_of_model_has_a_page(name, tools, tmp_path):
    model = load_model(f"gallery:{name}")
    rows = None if name == "lalonde" else simulate(model, 800, rng=1)
    moments = estimate(model, rows, n_boot=4)
    found = identify(model)
    fit = Fit(model=model, identification=found, moments=moments, posterior=None, comparison=None)
    text = written(fit, tmp_path)
    page = Page(text)
    assert "In short" in page.text
    assert "img" in page.tags
    assert "not recorded" in page.text
    if name == "unknown_interventions":
        assert written(fit, tmp_path / "again") == text  # no clock, no chance


def test_share_safe_page_hides_small_cells(small, tmp_path):
    fit = small
    cells = fit.posterior["observed_data"]["count"].values
    assert (cells < LEAST).any()
    text, safe = written(fit, tmp_path), written(fit, tmp_path / "safe", share_safe=True)
    assert STATEMENT in Page(safe).text
    assert "3 of 600 rows" in Page(text).text
    assert "3 of 600 rows" not in Page(safe).text
    assert f"fewer than {LEAST} of 600 rows" in Page(safe).text
    assert re.findall('base64,[^"]+', text)[-1] != re.findall('base64,[^"]+', safe)[-1]


def test_share_safe_file_has_no_small_cells(small, tmp_path):
    fit = small
    tree = load(fit.save(tmp_path / "safe.nc", share_safe=True))
    assert "observed_data" not in tree
    assert "log_likelihood_pattern" not in tree
    assert "fingerprint" not in tree.attrs
    assert (tree["observed_cells"]["count"].values >= LEAST).all()
    assert tree.attrs["share_safe"] == STATEMENT
    assert "3 of 600" not in tree.attrs["notes"]
    full = load(fit.save(tmp_path / "full.nc"))
    assert int(full["observed_data"]["count"].sum()) == 60
    np.testing.assert_array_equal(full["posterior"]["ate"].values, tree["posterior"]["ate"].values)


def test_share_safe_strata(tmp_path):
    rng = np.random.default_rng(3)
    model = load_model("gallery:level3")
    fields = {n: getattr(model, n) for n in type(model).model_fields} | {"strata": ("site",), "truth": None}
    rows = simulate(model, 1_000, rng=1).to_dataframe()
    rows["site"] = rng.choice(["a", "b"], size=1_000)
    site = CausalModel(**fields)
    moments = estimate(site, rows, n_boot=4)
    fit = Fit(model=site, identification=identify(site), moments=moments, posterior=None, comparison=None)
    assert np.isfinite(load(fit.save(tmp_path / "safe.nc", share_safe=True))["estimate"]["stratum_ate"]).all()
    moments["estimate"]["stratum_weight"][1] *= 0.001
    hidden = load(fit.save(tmp_path / "safe.nc", share_safe=True))
    for group in ("estimate", "moments"):
        ate = hidden[group]["stratum_ate"]
        assert np.isnan(ate.isel(stratum=1)).all()
        assert np.isfinite(ate.isel(stratum=0)).all()


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([50, 20, 9], [True, True, True]),
        ([50, 20, 9, 3], [True, True, False, False]),  # 3 would follow from the total
        ([50, 20, 2, 1], [True, False, False, False]),  # two hidden cells of 3 rows are too few
        ([50, 20, 3, 4], [True, True, False, False]),
        ([50, 4, 0], [False, False, False]),
        ([0, 0], [False, False]),
    ],
)
def test_hidden_cells_do_not_follow_from_the_total(counts, shown):
    assert safe_cells(np.array(counts, dtype=float)).tolist() == shown


def test_small_numbers_in_notes():
    assert safe_text("4 rows; 14 rows; 2 of 1,566 rows; age (3), sex (13)") == (
        "fewer than 5 rows; 14 rows; fewer than 5 of 1,566 rows; age (fewer than 5), sex (13)"
    )
    note = Note(Status.EMPTY_ARM, "t = 2", "0 rows")
    assert safe_note(note) == note


def test_tables_go_to_markdown_and_latex(level3, tools):
    table = fitted(tools, level3, posterior=False).summary()
    assert "| ate" in table.to_markdown()
    assert r"class\_weight[class 0]" in table.to_latex(escape=True)
