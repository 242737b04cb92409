"""The tests of assumptions and the role splits, as `identify` reports them."""

import numpy as np
import pytest

from pymc_mte import CausalModel, ModelError, identify, load_model, population, role_splits, simulate
from pymc_mte.identify import findings
from pymc_mte.identify.assumptions import assumption_lines, rejected
from pymc_mte.identify.splits import different, moves_far, split_lines, split_notes
from pymc_mte.status import Status

SCORE = "score of "


def forbidden(model, child, slope):
    """The model's law with the edge x -> child added, by the change of P(child = 1) from x = 0 to x = 1."""
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    p = np.array(model.truth[child]["p"])
    moved = np.stack([p - np.array(slope) / 2, p + np.array(slope) / 2], axis=1)
    var = model.variables[child].model_copy(update={"parents": ("x", *model.variables[child].parents)})
    changed = {
        "variables": fields["variables"] | {child: var},
        "truth": {**model.truth, child: {"p": moved.tolist()}},
        "treatment_proxies": (),
        "outcome_proxies": (),
    }
    return CausalModel(**fields | changed)


@pytest.fixture(scope="module")
def pair():
    model = load_model("gallery:paper_pair")
    return model, identify(model, simulate(model, 20_000, rng=3))


def test_rows_name_test_assumption_and_df(pair):
    _, found = pair
    checks = found.checks.set_index("check")
    row = checks.loc["Hansen's J of the bridge (df 1)"]
    assert list(row["where"]) == [f"t = {t}: z0, z1 independent of y given latent class, t" for t in (0, 1)]
    row = checks.loc["x0, x1: same span in all arms (df 2)"]
    assert row["where"] == "x0, x1 independent of t given latent class"
    assert "score of z0/z1 -> x0/x1 (df 8)" in checks.index
    assert checks.loc["admissible: weights within [0, 1]", "se"] > 0
    assert checks["p"].dropna().between(0, 1).all()


def test_nothing_is_rejected_under_the_graph(pair):
    """Holm's correction at 5%, one data set, seed fixed: false alarm 5% over seeds."""
    _, found = pair
    assert Status.ASSUMPTION_REJECTED not in [n.status for n in found.notes]
    assert any(line.startswith("17 tests of the assumptions: none below 5%") for line in found.lines())


def test_a_forbidden_edge_is_rejected_and_said(level3):
    """x -> y of -.1 and .1 by class, alike in both arms: the commutator sees it at 20,000 rows."""
    rows = simulate(forbidden(level3, "y", [[0.1, 0.1], [0.1, 0.1]]), 20_000, rng=1)
    found = identify(level3, rows.drop_vars("latent_class"))
    notes = [n for n in found.notes if n.status is Status.ASSUMPTION_REJECTED]
    assert any("operators commute" in note.detail for note in notes)
    assert any("score of x -> y" in note.detail for note in notes)
    text = str(found)
    said = text.partition("rejected, allowing for their number: ")[2].partition("\n")[0]
    assert "z, x independent of y given latent class, t" in said
    assert "are one test here and cannot tell the edges apart: x -> y, z -> y, t -> x" in text
    assert (found.checks.loc[found.checks["check"].str.startswith("operators"), "verdict"] == "doubt").all()


def test_the_mirror_is_called_blind(level3):
    found = identify(level3, simulate(level3, 20_000, rng=3))
    row = found.checks[found.checks["check"].str.startswith("score of x -> y")].iloc[0]
    assert row["advice"] == "No power here against an edge x -> y that changes its sign between arms."
    lines = found.lines()
    assert any(line.startswith("No power here to see: ") and "z -> x" in line for line in lines)
    assert any(
        line.startswith("Just identified, so not testable by moments alone: z indep") for line in lines
    )
    untested = found.checks[found.checks["verdict"] == "no test"]
    assert set(untested["check"]) == {
        "Hansen's J of the bridge",
        "proxies share K directions",
        "x: same span in all arms",
        "x: same span, weighed by y",
    }
    assert untested["advice"].str.startswith("Just identified: no test.").all()


def test_the_bridge_level_is_tested_for_what_it_assumes():
    found = identify(load_model("gallery:level4"), simulate(load_model("gallery:level4"), 5_000, rng=1))
    said = " ".join(found.checks["check"])
    assert "commute" not in said
    assert "weighed by" not in said
    assert "admissible" not in said
    assert set(found.checks.loc[found.checks["check"].str.startswith(SCORE), "verdict"]) == {"no power"}


def test_shares_are_not_tested(level3):
    found = identify(level3, population(level3))
    assert found.tested == ()
    assert not found.checks["check"].str.contains("commute|score").any()


def test_a_normal_outcome_is_tested_by_moments(level3):
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    normal = CausalModel(
        **fields
        | {
            "variables": {**fields["variables"], "y": {"family": "normal", "parents": ["t"]}},
            "truth": {**fields["truth"], "y": {"mean": [[0.0, 1.0], [2.0, 5.0]], "sd": [1.0, 1.0]}},
        }
    )
    rows = simulate(normal, 4_000, rng=1).drop_vars("latent_class")
    assert (identify(normal, rows).checks.query("check == 'operators commute (df 2)'")["p"] > 0.001).all()
    bent = rows.assign(y=rows["y"] - 2.0 * rows["x"] * rows["t"])
    checks = identify(normal, bent).checks
    assert (checks.query("check == 'operators commute (df 2)'")["p"] < 1e-6).all()
    assert not checks["check"].str.startswith(SCORE).any()


def test_holm():
    rows = [{"p": p} for p in (0.04, 0.001, np.nan, 0.02, 0.9)]
    assert [row["p"] for row in rejected(rows)] == [0.001]
    assert [row["p"] for row in rejected([{"p": 0.02}, {"p": 0.03}, {"p": 0.01}])] == [0.01, 0.02, 0.03]


def test_splits_come_with_identify(pair):
    model, found = pair
    table = found.splits
    assert table["kind"].tolist() == ["model's roles"] + ["other roles"] * 13 + ["one left out"] * 4
    assert table.equals(role_splits(model, simulate(model, 20_000, rng=3)))
    assert identify(model, simulate(model, 500, rng=3), splits="none").splits is None
    assert any(line.startswith("Other roles of the proxies") for line in found.lines())


def test_one_label_changes_nothing(level3):
    """The same data with arms named the other way round: the effect changes its sign."""
    rows = simulate(level3, 5_000, rng=1)
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    other = CausalModel(**fields | {"reference": 1})
    one, two = role_splits(level3, rows), role_splits(other, rows)
    np.testing.assert_allclose(one["ate"], -two["ate"])
    assert two["contrast"].tolist() == ["0 - 1"] * 2


def test_moves_that_matter_are_said_first(level3):
    """x drives the treatment, z does not: the exchanged roles give another answer."""
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    truth = {**fields["truth"], "t": {"p": [[0.9, 0.2], [0.8, 0.1]]}, "y": {"p": [[0.2, 0.4], [0.6, 0.8]]}}
    model = CausalModel(**fields | {"truth": truth})
    found = identify(model, simulate(model, 100_000, rng=1))
    table = found.splits
    assert moves_far(table)
    assert different(table).tolist() == [False, True]
    assert table["graph"].tolist() == ["allowed", "contradicts z -> t"]
    assert found.lines()[1].startswith(
        "The graph allows no other roles of the proxies; the model's roles give"
    )
    assert f"Roles that contradict the graph (z -> t) give {table['ate'].iloc[1]:.3g}." in found.lines()[1]
    assert Status.SPLITS_DISAGREE not in [n.status for n in found.notes]
    free = table.assign(graph="allowed")
    assert "1 of 1 differ from it by more than sampling error." in split_lines(free)[0]
    assert [note.status for note in split_notes(free)] == [Status.SPLITS_DISAGREE]
    assert "sampling error" not in split_lines(free.assign(ate=0.2))[0]
    bare = table.assign(se=np.nan)
    assert moves_far(bare)
    assert not moves_far(bare.assign(ate=[0.2, 0.3]))


def test_splits_without_errors_or_positivity(level3):
    table = role_splits(level3, population(level3))
    np.testing.assert_allclose(table["ate"].iloc[0], 0.0, atol=1e-9)
    assert table["se"].isna().all()
    assert table["p"].isna().all()
    assert "noise" not in split_lines(table)[0]
    assert split_lines(table)[0].endswith("the model's roles give 0.") or "e-" in split_lines(table)[0]
    lalonde = load_model("gallery:lalonde")
    assert role_splits(lalonde)["ate"].isna().all()


def test_splits_need_proxies(level3):
    with pytest.raises(ModelError, match="proxies on both sides"):
        role_splits(level3.with_classes(1), {"z": [0]})


def test_equal_score_tests_count_once():
    twins = [{"check": f"score of {e}", "where": e, "value": 5.0, "p": 0.02} for e in ("a -> b", "c -> d")]
    other = {"check": "operators commute", "where": "u", "value": 1.0, "p": 0.6}
    assert len(rejected([*twins, other])) == 2  # .02 times two tests, not three
    lines = assumption_lines([row | {"verdict": "", "advice": ""} for row in [*twins, other]])
    assert lines[0].startswith("2 tests of the assumptions: 1 below 5% (0.1 expected by chance)")


def test_skipped_splits_are_said(level3, monkeypatch):
    rows = simulate(level3, 500, rng=1)
    with pytest.raises(ModelError, match="choose bridge, two-stage or none"):
        identify(level3, rows, splits="foo")
    monkeypatch.setattr(findings, "MAX_WORK", 1)
    found = identify(level3, rows)
    assert found.splits is None
    assert any(line.startswith("Other roles of the proxies were not tried") for line in found.tested)


def test_inside_strata(level3):
    """The tests run in every stratum; the table of roles says that it does not."""
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    model = CausalModel(**fields | {"truth": None, "strata": ["site"]})
    rows = simulate(level3, 4_000, rng=1)[list(level3.variables)].to_dataframe()
    found = identify(model, rows.assign(site=np.arange(4_000) % 2), splits="bridge")
    where = found.checks.query("check == 'operators commute (df 2)'")["where"].tolist()
    assert [said.rpartition(", ")[2] for said in where] == ["site = 0", "site = 1"]
    assert any("does not look inside strata" in line for line in found.tested)


def test_products_of_proxies_enter_the_splits():
    model = load_model("gallery:paper_pair")
    rows = simulate(model, 4_000, rng=3)
    plain, more = role_splits(model, rows), role_splits(model, rows, interactions=True)
    assert more["ate"].iloc[0] != plain["ate"].iloc[0]
    assert identify(model, rows, interactions=True).splits.equals(more)
