"""`ladder`: the estimators of one data set, each resting on more than the one before, against each other."""

from typing import Any

import numpy as np
import pandas as pd

from pymc_mte.coefficients import refuse_linear
from pymc_mte.data import resolve
from pymc_mte.errors import RefusedError, whole_number
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.edges import POWERLESS
from pymc_mte.moments.ladder import Gap, Ladder, climb_ladder
from pymc_mte.moments.ladder_power import freed_edges, gap_power
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.randomness import as_generator

LEVEL = 0.05
Z_LIMIT = 2.6
"""A difference beyond this many standard errors has a two-sided p-value of 0.009."""

LEAST_BOOT = 20
"""Replicates below which the covariance of the gaps is too rough to test anything."""

NAMES = {"bridge": "the bridge", "spectral": "the spectral estimate", "ml": "the likelihood"}


def ladder(
    model: CausalModel, data: Any = None, *, n_boot: int = 200, rng: int | np.random.Generator = 0
) -> pd.DataFrame:
    """Set bridge, spectral estimate and maximum likelihood against each other; no posterior is needed.

    Parameters
    ----------
    model : CausalModel
        A model with treatment, outcome and proxies on both sides.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    n_boot : int
        Paired replicates behind the standard errors of gaps, at least 20.
    rng : int or numpy.random.Generator
        Source of the replicates.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``rungs`` (such as ``bridge - ml``) and ``functional``: ``first``, ``second``, ``gap``,
        ``se`` (if the graph is right), ``z``, in units of the outcome, and a ``verdict``.
        ``attrs["tests"]``: one Hausman-type test per pair (rungs, statistic, df, p, verdict,
        ``assumption``: what the second rung takes for granted and the first does not, ``blind``: what the
        test would hardly show); ``attrs["says"]``: the same as sentences.

    Raises
    ------
    RefusedError
        If the model has no treatment, or has covariates, linear parents, strata, interventions or
        censored times.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> table = ladder(model, simulate(model, 5_000, rng=1), n_boot=50)
    >>> bool(abs(table.loc[("bridge - ml", "ate"), "gap"]) < 0.1)
    True
    """
    need_model("ladder", model)
    n_boot = whole_number("n_boot", n_boot, LEAST_BOOT)
    model, table = resolve(model, data)
    if model.treatment is None or model.covariates or model.strata or model.interventions is not None:
        raise RefusedError("the ladder needs a treatment, and takes no covariates, strata or interventions")
    refuse_linear(model, "the ladder")
    if model.censored:
        raise RefusedError(
            f"the ladder needs means of {model.outcome!r}, and censored times have none to see; "
            "fit the likelihood: estimate(method='polished') or sample"
        )
    problem = problem_of(model, table)
    found = climb_ladder(problem, n_boot, as_generator(rng), errors=False)
    rows = []
    for gap in found.gaps:
        for (name, label, index), value, se, z in zip(gap.entries, gap.gap, gap.se, gap.z, strict=True):
            first, second = (float(found.values[f"{rung}_{name}"][(0, *index)]) for rung in gap.rungs)
            row = {"first": first, "second": second, "gap": value, "se": se, "z": z}
            rows.append({"rungs": pair_name(gap), "functional": label, **row, "verdict": verdict(z)})
    columns = ["rungs", "functional", "first", "second", "gap", "se", "z", "verdict"]
    out = pd.DataFrame(rows, columns=columns).set_index(["rungs", "functional"])
    out.attrs.update(joint_tests(problem, found))
    return out


def pair_name(gap: Gap) -> str:
    """Name a pair of rungs."""
    return " - ".join(gap.rungs)


def verdict(z: float) -> str:
    """Judge one gap in words."""
    if not np.isfinite(z):
        return "no test possible: both coincide"
    return "agree" if abs(z) <= Z_LIMIT else "differ: an assumption behind one of them fails"


def joint_tests(problem: Problem, found: Ladder) -> dict[str, Any]:
    """Joint tests of all pairs, as records and as sentences.

    A pair is said to differ if its p-value stays below 5% by Holm's correction for the number of pairs.
    """
    tested = sorted((gap.p_value, i) for i, gap in enumerate(found.gaps) if gap.df)
    apart: set[int] = set()
    for step, (p, i) in enumerate(tested):
        if p * (len(tested) - step) >= LEVEL:
            break
        apart.add(i)
    tests = [_record(problem, found, gap, i in apart) for i, gap in enumerate(found.gaps)]
    return {"tests": tests, "says": [_sentence(test) for test in tests]}


def _record(problem: Problem, found: Ladder, gap: Gap, apart: bool) -> dict[str, Any]:
    powers = gap_power(problem, found, gap)
    blind = [power.blind for power in powers if power.blind]
    if not gap.df:
        said = "no test possible: both coincide"
    elif apart:
        said = "differ"
    elif powers and all(max(power.power) < POWERLESS for power in powers):
        said = "no power here"
    else:
        said = "agree"
    return {
        "rungs": pair_name(gap),
        "statistic": gap.statistic,
        "df": gap.df,
        "p": gap.p_value,
        "verdict": said,
        "assumption": assumption(problem.model, gap.rungs),
        "blind": blind,
    }


def assumption(model: CausalModel, rungs: tuple[str, str]) -> str:
    """Say which assumption tells two rungs apart.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> assumption(load_model("gallery:level3"), ("bridge", "spectral"))
    'the spectral estimate assumes that x does not cause y; the bridge does not'
    """
    first, second = (NAMES[rung] for rung in rungs)
    t, y, edges = model.treatment, model.outcome, freed_edges(model, rungs)
    said = []
    for child in (y, t):
        causes = [a for a, b in edges if b == child and a not in {y, t}]
        if causes:
            said.append(f"that {', '.join(causes)} {_do(causes)} not cause {child}")
    for side in (model.treatment_proxies, model.outcome_proxies):
        names = list(dict.fromkeys(v for e in edges if e[0] in side and e[1] in side for v in e))
        if names:
            said.append(f"that {', '.join(names)} are independent of each other given the class")
    if not said:
        return f"{first} and {second} assume the same independences and weigh the rows differently"
    return f"{second} assumes {' and '.join(said)}; {first} does not"


def _do(names: list[str]) -> str:
    return "does" if len(names) == 1 else "do"


def _sentence(test: dict[str, Any]) -> str:
    head = test["rungs"]
    if not test["df"]:
        return f"{head}: {test['verdict']}."
    size = f"chi-squared {test['statistic']:.1f}, df {test['df']}, p = {test['p']:.2g}"
    said = f"{head}: {test['verdict']} ({size})"
    if test["verdict"] == "differ":
        said += f"; {test['assumption']}"
    blind = f" No power here to see {', '.join(test['blind'])}." if test["blind"] else ""
    return f"{said}.{blind}"
