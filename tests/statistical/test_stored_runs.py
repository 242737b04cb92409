"""A run that is really killed: what it leaves is read, and finished; merged runs; an interrupted sampler."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pymc as pm
import pytest
import xarray as xr

from pymc_mte import DataError, ModelError, load, merge, resume, sample, simulate
from pymc_mte.bayes.samplers import with_values
from pymc_mte.status import Status, load_notes

pytestmark = pytest.mark.statistical

DRAWS, CHAINS, CHUNK = 3_000, 2, 16
RUN = """
import sys, pymc_mte as mte
model = mte.load_model("gallery:level3")
rows = mte.simulate(model, 2_000, rng=1)
sizes = {"draws": 3_000, "tune": 200, "chains": 2, "cores": 2}
mte.sample(model, rows, **sizes, store=sys.argv[1], progressbar=False, priors={"p_z": 1.5})
"""


def chunks(folder):
    """Chunks of draws on disk, per chain."""
    place = folder / "draws-0" / "posterior" / "unconstrained" / "c"
    return [len(list((place / str(c)).iterdir())) if (place / str(c)).is_dir() else 0 for c in range(CHAINS)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder whose process was killed when about half of the draws were there, and what was there."""
    folder = tmp_path_factory.mktemp("store") / "run.zarr"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder)])
    deadline = time.monotonic() + 300
    while min(chunks(folder)) < DRAWS // CHUNK // 2 and time.monotonic() < deadline:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return folder, [CHUNK * n for n in chunks(folder)]


def statuses(tree):
    return {note.status for note in load_notes(tree.attrs["notes"])}


@pytest.mark.slow
def test_a_killed_run_is_read_and_finished(killed, level3):
    folder, on_disk = killed
    so_far = load(folder)
    kept = so_far["posterior"].sizes["draw"]
    assert min(on_disk) - CHUNK <= kept <= min(on_disk)  # at most the chunk being written is lost
    assert DRAWS // 2 - CHUNK <= kept < DRAWS
    assert np.isfinite(so_far["posterior"]["ate"].values).all()
    assert Status.INTERRUPTED in statuses(so_far)
    with pytest.raises(ModelError, match="resume"):
        sample(level3, simulate(level3, 2_000, rng=1), store=folder)
    done = resume(folder, progressbar=False)
    assert done["posterior"].sizes["draw"] == DRAWS
    assert Status.INTERRUPTED not in statuses(done)
    assert "after 200 warm-up draws" in done.attrs["resumed"]
    np.testing.assert_array_equal(done["posterior"]["ate"][:, :kept], so_far["posterior"]["ate"])
    assert xr.DataTree.equals(load(folder)["posterior"], done["posterior"])
    whole = sample(
        level3,
        simulate(level3, 2_000, rng=1),
        draws=DRAWS,
        tune=200,
        chains=CHAINS,
        random_seed=5,
        progressbar=False,
        priors={"p_z": 1.5},
    )
    first, second = (t["posterior"]["ate"].values for t in (done, whole))
    assert abs(first.mean() - second.mean()) < 0.2 * second.std()
    both = merge(done, whole)
    assert both["posterior"].sizes["chain"] == 2 * CHAINS
    assert Status.NOT_MIXED not in statuses(both)
    swapped = whole.copy()  # another labelling of the second run changes nothing
    flipped = whole["posterior"].to_dataset().isel({"class": [1, 0]}).assign_coords({"class": [0, 1]})
    swapped["posterior"] = xr.DataTree(flipped)
    xr.testing.assert_allclose(merge(done, swapped)["posterior"].to_dataset(), both["posterior"].to_dataset())
    with pytest.raises(DataError, match="repeats"):
        merge(whole, whole)


def own_prior(name, dims):
    return pm.Beta(name, 2.0, 2.0, dims=dims)


def test_what_no_store_can_hold_is_refused(level3, tmp_path):
    rows = simulate(level3, 200, rng=1)
    with pytest.raises(ModelError, match="function"):
        sample(level3, rows, store=tmp_path / "a", priors={"p_z": own_prior})
    with pytest.raises(ModelError, match="nutpie"):
        sample(level3, rows, store=tmp_path / "b", sampler="pymc")
    with pytest.raises(DataError, match="no stored run"):
        resume(tmp_path / "c")


class Identity:
    def constrain(self, x):
        return {"v": x}


def test_an_interrupted_sampler_leaves_equal_chains():
    """Chain 0 did 9 draws, chain 1 did 7, chain 2 had just begun."""
    vectors = np.zeros((3, 10, 2))
    vectors[0, 9:], vectors[1, 7:], vectors[2, 1:] = np.nan, np.nan, np.nan
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((3, 10), dtype=bool))})
    tree = with_values(Identity(), vectors, stats, 10)
    assert tree["posterior"]["v"].shape == (2, 7, 2)
    assert tree["sample_stats"]["diverging"].shape == (2, 7)
    assert tree.attrs["interrupted"] == "7 of 10 draws per chain, without chain 2"
    with pytest.raises(KeyboardInterrupt):
        with_values(Identity(), np.full((1, 4, 2), np.nan), stats, 4)
