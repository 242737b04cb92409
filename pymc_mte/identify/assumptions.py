"""Testable consequences of the graph's independences, as rows of the checks table."""

from collections.abc import Iterable

import numpy as np

from pymc_mte.hierarchy import hierarchy
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.admissible import admissible
from pymc_mte.moments.edges import EdgeTest, edge_tests
from pymc_mte.moments.overid import (
    ChiSquare,
    common_span,
    commuting,
    hansen_j,
    outcome_span,
    proxy_rank,
)
from pymc_mte.moments.problem import Problem
from pymc_mte.status import Note, Status

Row = dict[str, object]

LEVEL = 0.05
POWERLESS = 0.2
"""A test that would reject less often than this has "no power here"."""

MAX_TABLE = 4_096
"""`identify` runs score tests on discrete models up to this many cells times classes."""


def assumption_rows(
    problem: Problem, n_boot: int, rng: np.random.Generator, point: Parameters | None
) -> list[Row]:
    """Test what the graph's level assumes; one row per consequence.

    Parameters
    ----------
    problem : Problem
        Counted rows, at least K features on both sides, a graph that a moment method reaches.
    n_boot : int
        Bootstrap replicates for the tests of real effects and of weights and probabilities in range.
    rng : numpy.random.Generator
        Source of the resamples.
    point : mapping of str to ndarray, optional
        Maximum-likelihood parameters, with a batch axis, for the score tests of discrete models; none
        without them.

    Returns
    -------
    list of dict
        Rows of the checks table; ``value`` is the chi-squared statistic (or the quantity that must not be
        negative). Verdicts: ok, doubt (p < 0.05), "no test" (just identified), "no power".
    """
    model = problem.model
    rows = [*_moment_rows(problem)]
    if hierarchy(model).level in ("mixture", "MTE"):
        for item in admissible(problem, n_boot, rng):
            row = _row(f"admissible: {item.name}", "all classes", item.value, item.p_value)
            rows.append(row | {"se": item.se})
    small = not model.continuous_variables and model.n_cells * model.classes <= MAX_TABLE
    if small and point is not None and problem.sampling.simple:
        rows += [_edge_row(model, test) for test in edge_tests(problem, point)]
    return rows


def _moment_rows(problem: Problem) -> Iterable[Row]:
    """Yield the tests of moments alone: no likelihood, and no equal variances."""
    model, counts, level = problem.model, problem.counts[None], hierarchy(problem.model).level
    t, y = str(model.treatment), str(model.outcome)
    z, x = ", ".join(model.treatment_proxies), ", ".join(model.outcome_proxies)
    u = "given latent class"
    arms = {f"{t} = {model.arms[problem.arms[place]]}": place for place in problem.anchors}

    def per_arm(name: str, said: str, found: dict[str, ChiSquare]) -> Iterable[Row]:
        tested = {arm: test for arm, test in found.items() if test.df[0] > 0}
        if not tested:
            yield _row(name, said, np.nan, np.nan) | {
                "verdict": "no test",
                "advice": "Just identified: no test. More proxies or proxies of more levels give one.",
            }
        for arm, test in tested.items():
            yield _chi_row(name, f"{arm}: {said}", test)

    each = {arm: hansen_j(problem, counts, place) for arm, place in arms.items()}
    yield from per_arm("Hansen's J of the bridge", f"{z} independent of {y} {u}, {t}", each)
    each = {arm: proxy_rank(problem, counts, place) for arm, place in arms.items()}
    yield from per_arm("proxies share K directions", f"{z} independent of {x} {u}, {t}", each)
    if len(arms) > 1:
        sides = (("x", x), ("z", z)) if level == "mixture" else (("x", x),)
        for side, names in sides:
            test = common_span(problem, counts, "x" if side == "x" else "z")
            yield from per_arm(
                f"{names}: same span in all arms", f"{names} independent of {t} {u}", {"": test}
            )
    if level == "ATE":
        return
    each = {arm: outcome_span(problem, counts, place) for arm, place in arms.items()}
    yield from per_arm(f"{x}: same span, weighed by {y}", f"{x} independent of {y} {u}, {t}", each)
    if len(arms) > 1:
        yield _chi_row(
            "operators commute", f"{z}, {x} independent of {y} {u}, {t}", commuting(problem, counts)
        )


def _row(check: str, where: str, value: float, p: float) -> Row:
    doubtful = p < LEVEL
    return {
        "check": check,
        "where": where,
        "value": value,
        "se": np.nan,
        "p": p,
        "verdict": "doubt" if doubtful else "ok",
        "advice": Status.ASSUMPTION_REJECTED.value if doubtful else "",
    }


def _chi_row(check: str, where: str, test: ChiSquare) -> Row:
    where = where.removeprefix(": ")
    return _row(f"{check} (df {test.df[0]})", where, float(test.statistic[0]), float(test.p_value[0]))


def _edge_row(model: CausalModel, test: EdgeTest) -> Row:
    parents, children = ("/".join(dict.fromkeys(e[i] for e in test.edges)) for i in (0, 1))
    row = _row(
        f"score of {parents} -> {children} (df {test.df})", test.assumption, test.statistic, test.p_value
    )
    by = "arms" if model.treatment in model.variables[test.edges[0][1]].parents else "classes"
    alike, apart, against = test.power
    if max(alike, apart) < POWERLESS:
        blind = f"No power here: in this design the data hardly show {parents} -> {children}."
        return row | {"verdict": row["verdict"] if row["verdict"] == "doubt" else "no power", "advice": blind}
    said = [
        f"No power here against an edge {parents} -> {children} that {how}."
        for how, power in (
            (f"is alike in all {by}", alike),
            (f"changes its sign between {by}", against),
        )
        if power < POWERLESS
    ]
    return row | {"advice": " ".join([str(row["advice"]), *said]).strip()}


def rejected(rows: Iterable[Row]) -> list[Row]:
    """Rows that Holm's correction for the number of tests leaves rejected."""
    tested = sorted((r for r in rows if r["p"] == r["p"]), key=lambda r: float(str(r["p"])))
    out = []
    for i, row in enumerate(tested):
        if float(str(row["p"])) * (len(tested) - i) >= LEVEL:
            break
        out.append(row)
    return out


def assumption_notes(rows: list[Row]) -> list[Note]:
    """Raise the status of every consequence that is rejected."""
    return [
        Note(Status.ASSUMPTION_REJECTED, str(row["where"]), f"{row['check']}, p = {row['p']:.2g}")
        for row in rejected(rows)
    ]


def assumption_lines(rows: list[Row]) -> list[str]:
    """Say in sentences what the tests found, and where there was nothing to find."""
    p = np.array([float(str(row["p"])) for row in rows])
    n, low = int(np.isfinite(p).sum()), int((p < LEVEL).sum())
    out = []
    if n:
        said = f"{n} test{'s' * (n > 1)} of the assumptions: "
        said += f"{low} below 5% ({LEVEL * n:.2g} expected by chance)" if low else "none below 5%"
        found = rejected(rows)
        if found:
            said += "; rejected, allowing for their number: " + "; ".join(str(row["where"]) for row in found)
        elif low:
            said += "; none rejected, allowing for their number"
        out.append(said + ".")
    if same := _same_tests(rows):
        out.append(f"These score tests are one test here and cannot tell the edges apart: {', '.join(same)}.")
    blind = [
        str(row["check"]).split(" (df")[0].removeprefix("score of ")
        for row in rows
        if row["verdict"] == "no power"
    ]
    if blind:
        out.append(f"No power here to see: {', '.join(blind)}.")
    untested = [str(row["where"]) for row in rows if row["verdict"] == "no test"]
    if untested:
        out.append("Just identified, so not testable by moments alone: " + "; ".join(untested) + ".")
    return out


def _same_tests(rows: list[Row]) -> list[str]:
    """Score tests with equal statistics: the edges leave the same traces in the data."""
    scores = [row for row in rows if str(row["check"]).startswith("score of ") and row["p"] == row["p"]]
    value = np.array([float(str(row["value"])) for row in scores])
    if len(scores) < 2:
        return []
    near = np.isclose(value[:, None], value, rtol=1e-5, atol=1e-8) & ~np.eye(len(value), dtype=bool)
    return [
        str(row["check"]).split(" (df")[0].removeprefix("score of ")
        for row, twin in zip(scores, near.any(axis=1), strict=True)
        if twin
    ]
