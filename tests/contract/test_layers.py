"""Conventions of the code base, each enforced here so that it cannot erode."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pymc_mte

ROOT = Path(pymc_mte.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [p.relative_to(ROOT).as_posix() for p in FILES]

MAX_LINES = 400
MAX_FUNCTION_LINES = 60

NUMBERS = {"numpy", "scipy"}
MAY_IMPORT = {  # layer -> third-party roots it may import, at any depth
    "moments": NUMBERS,
    "bayes": NUMBERS | {"pymc", "pytensor", "xarray", "nutpie", "arviz"},
    "identify": NUMBERS | {"pandas"},
    "plots": {"numpy", "pandas", "xarray", "matplotlib"},
}
ALSO = {
    "bayes/native.py": {"numba"},
    "bayes/softplus.py": {"jax"},
    "moments/estimate.py": {"xarray"},
    "moments/interventions/estimate.py": {"xarray"},
    "moments/interventions/linear_estimate.py": {"xarray"},
}
BELOW = {  # may not import from these layers of the package, at any depth
    "moments": {"bayes", "identify", "plots", "compare", "fit", "cli", "summary"},
    "identify": {"bayes", "plots", "compare", "fit", "cli"},
    "bayes": {"plots", "compare", "fit", "cli"},
}
LIGHT = (  # never load PyMC, whatever is called
    "errors.py",
    "families.py",
    "model.py",
    "variable.py",
    "columns.py",
    "covariates.py",
    "modelfile.py",
    "network.py",
    "regression.py",
    "standardised.py",
    "gcomputation.py",
    "mechanisms.py",
    "randomness.py",
    "unit_outcomes.py",
    "simulated_do.py",
    "quantiles.py",
    "sites.py",
    "coefficients.py",
    "data.py",
    "functionals.py",
    "interventions.py",
    "simulate.py",
    "results.py",
    "status.py",
    "hierarchy.py",
    "alignment.py",
    "richtext.py",
    "sharing.py",
    "threads.py",
)


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layer_imports_only_what_it_is_allowed(layer):
    for path in (ROOT / layer).rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        allowed = MAY_IMPORT[layer] | ALSO.get(name, set()) | {"pymc_mte"} | sys.stdlib_module_names
        for module in imported(path):
            assert module.split(".")[0] in allowed, f"{name} imports {module}"


@pytest.mark.parametrize("layer", BELOW)
def test_imports_point_one_way(layer):
    for path in (ROOT / layer).rglob("*.py"):
        for module in imported(path):
            parts = module.split(".")
            if parts[0] == "pymc_mte" and len(parts) > 1:
                assert parts[1] not in BELOW[layer], f"{path.name} imports {module}"


@pytest.mark.parametrize("name", LIGHT)
def test_description_and_data_know_nothing_of_pymc(name):
    heavy = {"pymc", "pytensor", "nutpie", "arviz", "arviz_plots", "matplotlib"}
    upper = {"pymc_mte.bayes", "pymc_mte.plots", "pymc_mte.moments", "pymc_mte.compare"}
    for module in imported(ROOT / name):
        assert module.split(".")[0] not in heavy, f"{name} imports {module}"
        assert not any(module.startswith(prefix) for prefix in upper), f"{name} imports {module}"


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_stay_short(name):
    path = ROOT / name
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                body = body[1:]  # the docstring does not count
            length = (body[-1].end_lineno - body[0].lineno + 1) if body else 0
            assert length <= MAX_FUNCTION_LINES, f"{node.name}: {length} lines"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_printed_pickled_or_evaluated(name):
    for node in ast.walk(tree(ROOT / name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "eval", "exec", "__import__"}, node.lineno
    banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "subprocess"}
    for module in imported(ROOT / name):
        assert module.split(".")[0] not in banned, f"imports {module}"


@pytest.mark.parametrize("name", NAMES)
def test_global_randomness_is_not_used(name):
    for node in ast.walk(tree(ROOT / name)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random":
            assert node.attr in {"default_rng", "Generator"}, ast.unparse(node)


def public_names():
    stub = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


PUBLIC = sorted(public_names())


def test_public_names_are_the_stub():
    assert set(PUBLIC) == set(pymc_mte.__all__)
    assert set(PUBLIC) >= {"load_model", "tabulate", "identify", "estimate", "build_model", "sample"}
    assert set(PUBLIC) >= {"compare", "fit", "simulate", "truth", "save", "load", "MTEError"}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    thing = getattr(pymc_mte, name)
    text = inspect.getdoc(thing) or ""
    assert text.strip(), f"{name} has no docstring"
    if inspect.isclass(thing) and issubclass(thing, Exception):
        assert issubclass(thing, pymc_mte.MTEError)
        return
    sections = ("Examples\n---", "Parameters\n---", "Attributes\n---", "Returns\n---")
    assert any(section in text for section in sections), f"{name} documents no parameter"
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters:
            assert f"{parameter}" in text, f"{name} does not document {parameter}"


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


HEAVY = ("pymc", "pytensor", "matplotlib", "duckdb", "arviz", "nutpie", "pandas", "xarray")


def test_import_is_light():
    out = run(f"import sys, pymc_mte; print([m for m in {HEAVY} if m in sys.modules])")
    assert out.strip() == "[]"


def test_help_is_light():
    code = (
        "import sys\nfrom pymc_mte.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('pymc', 'pytensor', 'matplotlib', 'arviz') if m in sys.modules])"
    )
    assert run(code).strip().endswith("[]")


def test_moments_run_without_pymc():
    code = (
        "import sys, pymc_mte as m\n"
        "model = m.load_model('gallery:level3')\n"
        "m.estimate(model, m.simulate(model, 500), n_boot=4)\n"
        "m.identify(model, m.simulate(model, 500))\n"
        "print([x for x in ('pymc', 'pytensor', 'nutpie', 'matplotlib') if x in sys.modules])"
    )
    assert run(code).strip().endswith("[]")


def test_errors_are_also_builtins():
    assert issubclass(pymc_mte.ModelError, ValueError)
    assert issubclass(pymc_mte.DataError, ValueError)
    assert issubclass(pymc_mte.RefusedError, RuntimeError)
