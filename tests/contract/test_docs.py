"""The documentation site names everything that exists, and nothing that does not."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

import pymc_mte
from pymc_mte.status import Status

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "pages").glob("*.md"))


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shown(hooks):
    return {page.name: hooks.on_page_markdown(page.read_text(encoding="utf-8")) for page in PAGES}


def test_every_status_has_its_place(shown):
    for status in Status:
        if status is not Status.OK:
            assert f"`Status.{status.name}`\n\n{status.value}" in shown["warnings.md"]


def test_every_public_name_has_its_place(shown):
    headings = re.findall(r"^### (\w+)$", shown["api.md"], flags=re.MULTILINE)
    assert sorted(headings) == sorted(pymc_mte.__all__)
    assert "identify(model, data=None, *, interactions=False" in shown["api.md"]


def test_every_page_is_in_the_menu():
    settings = yaml.safe_load((DOCS / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(name for entry in settings["nav"] for name in entry.values()) == [p.name for p in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_in_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`(pymc_mte/[\w/.]+)`", text):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"\bmte\.(\w+)", text):
        assert name in pymc_mte.__all__, name
    for link in re.findall(r"\]\(([\w.]+)\)", text):
        assert (page.parent / link).is_file(), link


def test_equations_name_every_estimator():
    text = (DOCS / "pages" / "equations.md").read_text(encoding="utf-8")
    for name in ("bridge", "pencil", "spectral", "em", "coins", "product", "runs"):
        assert f"`pymc_mte/moments/{name}.py`" in text


def test_site_builds_strictly(tmp_path):
    commands = pytest.importorskip("mkdocs.commands.build")
    config = pytest.importorskip("mkdocs.config")
    loaded = config.load_config(str(DOCS / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    commands.build(loaded)
    for page in PAGES:
        folder = tmp_path if page.stem == "index" else tmp_path / page.stem
        assert (folder / "index.html").is_file()
