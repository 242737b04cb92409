"""The 2 x 2 worked example by hand: two X, one Z with the constant, two classes, population moments.

Everything on the right-hand sides is computed here from the stated tables, by plain sums.
"""

import numpy as np
import pytest

from pymc_mte import CausalModel, estimate, population
from pymc_mte.moments.bridge import solve_bridge
from pymc_mte.moments.features import Moments

WEIGHT = np.array([0.4, 0.6])
Z = np.array([0.25, 0.7])  # P(Z=1 | class)
T = np.array([[0.3, 0.8], [0.6, 0.45]])  # P(T=1 | class, z)
X = np.array([[0.2, 0.75], [0.65, 0.3]])  # P(X_j=1 | class): rows are j
Y = np.array([[0.35, 0.15], [0.5, 0.9]])  # E[Y(t) | class]
ARM_MEAN = WEIGHT @ Y
EFFECT = Y[:, 1] - Y[:, 0]  # ascending, as classes are reported


@pytest.fixture(scope="module")
def model():
    return CausalModel(
        classes=2,
        variables={
            "z": {"family": "bernoulli"},
            "x1": {"family": "bernoulli"},
            "x2": {"family": "bernoulli"},
            "t": {"family": "bernoulli", "parents": ["z"]},
            "y": {"family": "bernoulli"},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x1", "x2"],
        truth={
            "class_weight": WEIGHT.tolist(),
            "z": {"p": Z.tolist()},
            "x1": {"p": X[0].tolist()},
            "x2": {"p": X[1].tolist()},
            "t": {"p": T.tolist()},
            "y": {"p": Y.tolist()},
        },
    )


def by_hand(arm):
    """E[phi_Z phi_X' 1(T=t)] and E[phi_Z Y 1(T=t)], with phi_Z = (1, z) and phi_X = (x1, x2)."""
    both, target = np.zeros((2, 2)), np.zeros(2)
    for u in range(2):
        for z in range(2):
            p = WEIGHT[u] * (Z[u] if z else 1 - Z[u]) * (T[u, z] if arm else 1 - T[u, z])
            feature = np.array([1.0, z])
            both += p * np.outer(feature, X[:, u])
            target += p * feature * Y[u, arm]
    return both, target


def test_synthetic_outcomes_of_two_proxies_without_a_constant():
    """The bridge a_t of two equations in two unknowns: a_t . (x1, x2) has the means of Y(t)."""
    both, target = zip(*(by_hand(arm) for arm in range(2)), strict=True)
    # solve_bridge reads E[phi_Z Y 1(T=t)] from the first column
    moments = Moments(m=np.array(both), n=np.array(target)[None, :, :, None])
    found = solve_bridge(moments, rank=2)
    for arm in range(2):
        direct = np.linalg.solve(both[arm], target[arm])
        np.testing.assert_allclose(found.coefficients[arm], direct, rtol=0, atol=1e-12)
        # the synthetic outcome has the right mean in every class, which is why averages follow
        np.testing.assert_allclose(X.T @ found.coefficients[arm], Y[:, arm], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.arm_mean, ARM_MEAN, rtol=0, atol=1e-12)


def test_the_same_population_through_the_front_door(model):
    table = population(model)
    bridge = estimate(model, table, method="bridge", n_boot=0)["estimate"]
    np.testing.assert_allclose(bridge["arm_mean"], ARM_MEAN, rtol=0, atol=1e-12)
    for method in ("spectral", "pencil", "prony"):
        found = estimate(model, table, method=method, n_boot=0)["estimate"]
        np.testing.assert_allclose(found["class_weight"], WEIGHT, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found["effect"], EFFECT, rtol=0, atol=1e-12)
        for order in range(1, 4):
            np.testing.assert_allclose(
                found["synthetic_moment"].sel(order=order), WEIGHT @ Y**order, rtol=0, atol=1e-12
            )
            np.testing.assert_allclose(
                found["effect_moment"].sel(order=order), WEIGHT @ EFFECT**order, rtol=0, atol=1e-12
            )
