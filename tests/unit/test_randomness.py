"""Seeds: what every function that takes ``rng`` says of something that is none."""

import inspect

import numpy as np
import pytest

import pymc_mte as mte
from pymc_mte.randomness import as_generator


def test_generators_go_on_and_seeds_begin():
    rng = np.random.default_rng(1)
    assert as_generator(rng) is rng
    assert as_generator(7).random() == np.random.default_rng(7).random()


@pytest.mark.parametrize("rng", ["a", -1, 1.5, [1.5], True, np.bool_(False)])
def test_what_is_no_seed_is_refused(rng):
    with pytest.raises(mte.ModelError, match="rng must be a seed"):
        as_generator(rng)


def test_every_public_function_says_so(level3, tools):
    rows = mte.simulate(level3, 300, rng=1)
    known, found = tools.made_posterior(level3, rows), mte.estimate(level3, rows, n_boot=0)
    calls = {
        "baselines": lambda rng: mte.baselines(level3, rows, rng=rng),
        "bivariate_residuals": lambda rng: mte.bivariate_residuals(level3, rows, rng=rng),
        "choose_classes": lambda rng: mte.choose_classes(level3, rows, rng=rng),
        "compare": lambda rng: mte.compare(known, found, rng=rng),
        "estimate": lambda rng: mte.estimate(level3, rows, rng=rng),
        "functional_ranges": lambda rng: mte.functional_ranges(level3, level3.true_parameters(), rng=rng),
        "identify": lambda rng: mte.identify(level3, rng=rng),
        "ladder": lambda rng: mte.ladder(level3, rows, rng=rng),
        "pattern_residuals": lambda rng: mte.pattern_residuals(level3, rows, rng=rng),
        "simulate": lambda rng: mte.simulate(level3, 10, rng=rng),
    }
    public = [getattr(mte, name) for name in mte.__all__]
    taking = {
        f.__name__ for f in public if inspect.isfunction(f) and "rng" in inspect.signature(f).parameters
    }
    assert taking == set(calls)
    for call in calls.values():
        with pytest.raises(mte.ModelError, match=r"rng must be a seed .* got 'a'"):
            call("a")


def test_mixtures_of_interventions_say_so():
    model = mte.load_model("gallery:unknown_interventions")
    with pytest.raises(mte.ModelError, match="rng must be a seed"):
        mte.estimate(model, mte.simulate(model, 100, rng=1), rng="a")
