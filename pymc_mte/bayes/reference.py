"""The prior of coefficients as one data set gives it, kept while other data are put in."""

from dataclasses import replace

import numpy as np
import pymc as pm

from pymc_mte.bayes.prepare import Prepared
from pymc_mte.coefficients import with_linear_parents
from pymc_mte.data import columns_of
from pymc_mte.regression import centred_covariates, regressors


def with_terms_of(ready: Prepared, reference: pm.Model) -> Prepared:
    """Let coefficients of linear parents run along the directions of other data, so that their prior stays.

    Their prior is stated along uncorrelated directions of the rows' terms, and terms are drawn anew with
    every data set; the density is the same function of the coefficients along any directions.

    Parameters
    ----------
    ready : Prepared
        A data set and the starts of its chains; the data of its PyMC model are changed.
    reference : pymc.Model
        The model whose directions are taken: one that was compiled, with the data it was compiled with.

    Returns
    -------
    Prepared
        With starts along the new directions.
    """
    model, names = ready.model, with_linear_parents(ready.model)
    if not names:
        return ready
    terms = regressors(model, columns_of(ready.table, model), centred_covariates(ready.table), names)
    starts = [dict(start) for start in ready.starts]
    for name in names:
        old = np.asarray(ready.built[f"to_terms_{name}"].get_value())
        new = np.asarray(reference[f"to_terms_{name}"].get_value())
        ready.built[f"to_terms_{name}"].set_value(new)
        ready.built[f"directions_{name}"].set_value(terms[name] @ new)
        for start in starts:
            start[f"raw_coef_{name}"] = np.linalg.pinv(new) @ old @ start[f"raw_coef_{name}"]
    return replace(ready, starts=starts)
