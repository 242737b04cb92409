"""Posterior beside moments: every number stands beside the class that it is of."""

import numpy as np

from pymc_mte import compare, estimate, simulate


def test_standard_errors_follow_the_classes(level3, tools):
    """The posterior may number the classes otherwise than the estimate, where effects are close."""
    rows = simulate(level3, 2_000, rng=1)
    found = estimate(level3, rows, method="spectral", n_boot=40)
    posterior = tools.made_posterior(level3, rows)
    straight = compare(posterior, found, n_boot=20)
    swapped = posterior.copy()
    group = posterior["posterior"].to_dataset()
    by_class = [name for name in group if "class" in group[name].dims]
    turned_round = {n: group[n].copy(data=group[n].isel({"class": [1, 0]})) for n in by_class}
    swapped["posterior"] = swapped["posterior"].assign(turned_round)
    turned = compare(swapped, found, n_boot=20)
    for name in ("effect", "class_weight"):
        errors = found["estimate"][f"se_{name}"].values
        assert errors[0] != errors[1] or name == "class_weight"
        for k in range(2):
            label, other = f"{name}[class {k}]", f"{name}[class {1 - k}]"
            assert straight.loc[label, "spectral_se"] == errors[k]
            np.testing.assert_allclose(turned.loc[label, "spectral"], straight.loc[other, "spectral"])
            assert turned.loc[label, "spectral_se"] == errors[1 - k]
