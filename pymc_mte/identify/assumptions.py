"""Testable consequences of the graph's independences, as rows of the checks table."""

from collections.abc import Iterable

import numpy as np

from pymc_mte.hierarchy import hierarchy
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.admissible import admissible
from pymc_mte.moments.edges import POWERLESS, EdgeTest, edge_tests
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
JUST_IDENTIFIED = "Just identified: no test. More proxies or proxies of more levels give one."
TOO_WEAK = "No test: the proxies are too weak for it. Fewer and stronger proxies, or more rows, give one."

MAX_TABLE = 4_096
"""`identify` runs score tests on discrete models up to this many cells times classes."""


def assumption_rows(
    problem: Problem, n_boot: int, rng: np.random.Generator, point: Parameters | None, stratum: str = ""
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
    stratum : str
        Label of the stratum that ``problem`` is, added to ``where``.

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
    return [row | {"where": f"{row['where']}, {stratum}"} for row in rows] if stratum else rows


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
            yield _row(name, said, np.nan, np.nan) | {"verdict": "no test", "advice": JUST_IDENTIFIED}
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
    row = _row(f"{check} (df {test.df[0]})", where, float(test.statistic[0]), float(test.p_value[0]))
    return row | {"verdict": "no test", "advice": TOO_WEAK} if test.too_weak[0] else row


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
    """Rows that Holm's correction for the number of different tests leaves rejected."""
    rows = list(rows)
    tests = sorted(_tests(rows), key=lambda rows: float(str(rows[0]["p"])))
    out: list[Row] = []
    for i, test in enumerate(tests):
        if float(str(test[0]["p"])) * (len(tests) - i) >= LEVEL:
            break
        out += test
    return out


def _tests(rows: list[Row]) -> list[list[Row]]:
    """Group the rows with a p-value: score tests with equal statistics are one test."""
    out: list[list[Row]] = []
    for row in rows:
        if row["p"] != row["p"]:
            continue
        twin = next((test for test in out if _same(test[0], row)), None)
        if twin is None:
            out.append([row])
        else:
            twin.append(row)
    return out


def _same(one: Row, two: Row) -> bool:
    both = [(str(row.get("check", "")), float(str(row.get("value", np.nan)))) for row in (one, two)]
    if not all(check.startswith("score of ") for check, _ in both):
        return False
    return bool(np.isclose(both[0][1], both[1][1], rtol=1e-5, atol=1e-8))


def assumption_notes(rows: list[Row]) -> list[Note]:
    """Raise the status of every consequence that is rejected."""
    return [
        Note(Status.ASSUMPTION_REJECTED, str(row["where"]), f"{row['check']}, p = {row['p']:.2g}")
        for row in rejected(rows)
    ]


def assumption_lines(rows: list[Row]) -> list[str]:
    """Say in sentences what the tests found, and where there was nothing to find."""
    p = np.array([float(str(test[0]["p"])) for test in _tests(rows)])
    n, low = len(p), int((p < LEVEL).sum())
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
    for test in _tests(rows):
        if len(test) > 1:
            edges = ", ".join(_edge(row) for row in test)
            out.append(f"These score tests are one test here and cannot tell the edges apart: {edges}.")
    blind = [_edge(row) for row in rows if row["verdict"] == "no power"]
    if blind:
        out.append(f"No power here to see: {', '.join(blind)}.")
    for advice, said in (
        (JUST_IDENTIFIED, "Just identified, so not testable by moments alone"),
        (TOO_WEAK, "The proxies are too weak to test"),
    ):
        untested = [str(row["where"]) for row in rows if row["advice"] == advice]
        if untested:
            out.append(f"{said}: " + "; ".join(untested) + ".")
    return out


def _edge(row: Row) -> str:
    return str(row["check"]).split(" (df")[0].removeprefix("score of ")
