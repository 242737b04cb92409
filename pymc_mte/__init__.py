"""Mixtures of treatment effects: moments and a Bayesian latent-class model, compared.

"MTE" stands for *mixture of treatment effects* throughout, not for the marginal treatment effect.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = version("pymc-mte")
