"""Log-densities (PyTensor) and draws (NumPy) of the continuous families, for observed variables."""

from collections.abc import Callable

import pymc as pm

from pymc_mte.bayes.priors import Tensor

LOG_DENSITY: dict[str, Callable[..., Tensor]] = {
    "normal": lambda x, mean, sd: pm.logp(pm.Normal.dist(mean, sd), x),
    "student_t": lambda x, mean, sd, nu: pm.logp(pm.StudentT.dist(nu=nu, mu=mean, sigma=sd), x),
}
"""By family: a value and the parameters, in the order of the family's table row, to log-densities."""
