"""The report page in a real browser, where one is installed: everything in it is shown, nothing else is loaded."""

import shutil
import subprocess
import zlib

import pytest

from pymc_mte import Fit, estimate, identify, load_model, simulate

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1000, 3000


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium here")
    return [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]


@pytest.mark.slow
def test_page_in_a_browser(browser, tmp_path):
    model = load_model("gallery:level3")
    rows = simulate(model, 800, rng=1)
    moments, found = estimate(model, rows, n_boot=8), identify(model, rows)
    fit = Fit(model=model, identification=found, moments=moments, posterior=None, comparison=None)
    page = fit.report(tmp_path / "page.html")
    size = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={tmp_path / 'page.png'}"]
    for more in (["--dump-dom"], size):
        command = [*browser, *more, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        if more == ["--dump-dom"]:
            assert "In short" in done.stdout
            assert done.stdout.count("<img") >= 4
        assert "Refused to load" not in done.stderr
    picture = (tmp_path / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(zlib.compress(picture)) > 50_000  # an empty page is far smaller
