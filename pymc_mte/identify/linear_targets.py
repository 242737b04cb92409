"""What can be learnt about interventions on a linear Gaussian network, in words."""

import numpy as np

from pymc_mte.identify.findings import Findings
from pymc_mte.model import CausalModel
from pymc_mte.moments.interventions.linear import FALSE_ALARMS, missing_edge
from pymc_mte.moments.interventions.linear_rows import LinearProblem
from pymc_mte.status import Note, Status


def judge_linear(model: CausalModel, problem: LinearProblem | None) -> Findings:
    """Say what a linear model with interventions can answer; with base rows, test its graph on them."""
    stated = model.interventions
    assert stated is not None
    found = Findings(identified={"target_weight": True})
    done = "adds constants to" if stated.kind == "shift" else "replaces"
    said = [
        f"A mixture of interventions on a linear Gaussian network of {len(model.variables)} variables: "
        f'each class {done} the equations of some variables (its "target", {{}} for none).',
        "Asked: which variables each class touches, the values, and the share of each class.",
        "Classes are different normal distributions, and mixtures of these have one set of components. "
        "So targets, values and shares are decided by the rows if the graph is right and errors are normal; "
        "errors of another shape are taken for classes.",
    ]
    if stated.targets is not None:
        said.append(f"Only the {len(stated.targets)} listed targets are taken to be present, once each.")
    if problem is not None and problem.base is not None:
        said.append(
            f"The untouched network is learnt from {problem.base[1].sum():,.0f} rows of its own and from the "
            "mixture."
        )
        _test_graph(problem, found)
    elif stated.base is not None:
        said.append("The untouched network is taken as known.")
    else:
        said.append("The untouched network is learnt from rows of its own, which `estimate` takes as `base`.")
    found.tested = said
    return found


def _test_graph(problem: LinearProblem, found: Findings) -> None:
    assert problem.base is not None
    earlier, later, p = missing_edge(problem.network, *problem.base)
    if earlier < 0:
        return
    first, second = problem.order[earlier], problem.order[later]
    doubt = p < FALSE_ALARMS / 2  # `estimate` makes the other test
    row = {"check": "no edge missing from the base", "where": f"{first} -> {second}", "value": np.nan}
    row |= {"se": np.nan, "p": p, "verdict": "doubt" if doubt else "ok"}
    found.rows.append({**row, "advice": Status.MECHANISM_MISFIT.value if doubt else ""})
    if doubt:
        detail = f"errors go with those of {first}, p = {p:.2g} over all pairs"
        found.notes.append(Note(Status.MECHANISM_MISFIT, second, detail))
