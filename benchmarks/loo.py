"""Leave-one-out by pattern: equal to ArviZ's row-wise answer, at a million rows for the price of patterns.

The draws are bootstrap replicates of the maximum-likelihood fit, which stand in for a posterior here.

Run: uv run python benchmarks/loo.py [--rows 1000000] [--draws 4000] [--model gallery:three_classes]
"""

import argparse
import resource
import time

import arviz as az
import numpy as np
import xarray as xr

import pymc_mte as mte
from pymc_mte.data import columns_of, fingerprint, tabulate
from pymc_mte.model import CausalModel
from pymc_mte.network import log_joint, log_sum_classes


def stand_in(model: CausalModel, table: xr.Dataset, draws: int) -> xr.DataTree:
    """Lay replicates of the fit out as a posterior."""
    replicates = mte.estimate(model, table, method="polished", n_boot=400)
    chained = replicates["posterior"].to_dataset()
    repeat = np.resize(np.arange(chained.sizes["draw"]), draws // chained.sizes["chain"])
    tree = xr.DataTree.from_dict({"posterior": chained.isel(draw=repeat), "observed_data": table})
    tree.attrs = dict(replicates.attrs) | {"fingerprint": fingerprint(model, table)}
    return tree


def row_wise(model: CausalModel, tree: xr.DataTree) -> az.ELPDData:
    """Ask ArviZ for the same with one entry per row."""
    table, draws = tree["observed_data"].to_dataset(), tree["posterior"].to_dataset()
    parameters = {name: draws[name].values for name in model.dims}
    log_p = log_sum_classes(log_joint(model, parameters, columns_of(table, model)))
    each = np.repeat(log_p, table["count"].values.astype(int), axis=-1)
    groups = {
        "posterior": draws[["class_weight"]],
        "log_likelihood": xr.Dataset({"row": (("chain", "draw", "obs"), each)}),
    }
    return az.loo(xr.DataTree.from_dict(groups))


def main() -> None:
    """Compare on 2,000 rows; then time many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=4_000)
    parser.add_argument("--model", default="gallery:three_classes")
    options = parser.parse_args()
    model = mte.load_model(options.model)
    few = stand_in(model, tabulate(mte.simulate(model, 2_000, rng=1), model), 400)
    ours, theirs = mte.loo(few), row_wise(model, few)
    print(
        f"2,000 rows: elpd differs by {abs(ours.elpd - theirs.elpd):.1e}, "
        f"its standard error by {abs(ours.se - theirs.se):.1e}"
    )
    many = stand_in(model, tabulate(mte.simulate(model, options.rows, rng=2), model), options.draws)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = mte.loo(many)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    patterns = many["observed_data"].sizes["pattern"]
    print(
        f"{options.rows:,} rows, {patterns} patterns, {options.draws} draws: elpd {found.elpd:.1f}, "
        f"{took:.2f} s, peak memory {after / 1e6:.2f} GB ({(after - before) / 1e6:.2f} GB more than before)"
    )


if __name__ == "__main__":
    main()
