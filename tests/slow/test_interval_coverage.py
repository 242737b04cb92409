"""Coverage of the printed intervals of the default method, at the size of the benchmarks."""

import numpy as np
import pytest
from scipy import stats

from pymc_mte import estimate, load_model, population, tabulate, truth
from pymc_mte.summary import moment_summary

pytestmark = pytest.mark.slow

RUNS, ROWS, BOOT = 200, 5_000, 100
FALSE_ALARM = 1e-4  # per answer and side, if the coverage is 87% or 93%


@pytest.mark.parametrize(("name", "resample"), [("paper_pair", "multinomial"), ("level3", "bayesian")])
def test_ninety_percent_intervals_cover_87_to_93_percent(name, resample):
    model = load_model(f"gallery:{name}")
    law, right = population(model), truth(model)
    p = law["count"].values / law["count"].values.sum()
    cells = {v: law[v].values for v in model.variables}
    wanted = {"ate": right["ate"].item()}
    for k in range(2):
        wanted[f"effect[class {k}]"] = right["effect"].values[k]
        wanted[f"class_weight[class {k}]"] = right["class_weight"].values[k]
    hits = np.zeros(len(wanted), dtype=int)
    for run in range(RUNS):
        rng = np.random.default_rng([7, run])
        rows = tabulate(cells | {"n": rng.multinomial(ROWS, p)}, model, count="n")
        answer = estimate(model, rows, n_boot=BOOT, resample=resample, rng=rng)
        table = moment_summary(answer).loc[list(wanted)]
        value = np.array(list(wanted.values()))
        hits += (table["lower"].values <= value) & (value <= table["upper"].values)
    low, high = stats.binom.ppf(FALSE_ALARM, RUNS, 0.87), stats.binom.ppf(1 - FALSE_ALARM, RUNS, 0.93)
    assert ((hits >= low) & (hits <= high)).all(), dict(zip(wanted, hits / RUNS, strict=True))
