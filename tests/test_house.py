"""The rules of the house that a machine can check."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxlens"
MODULES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {"types", "schema", "errors", "numerics", "config"}
STAGES = {"corpus", "models", "lens", "tally", "store"}
# Who wires the stages may import any of them.
WIRING = {"api", "job", "settle", "ingest", "sweep", "estimate", "scale", "bench"}
MAY_IMPORT = {
    "types": set(),
    "schema": set(),
    "errors": set(),
    "numerics": {"types", "errors"},
    "config": FOUNDATION,
    "environment": {"numerics", "store"},
    "terminal": FOUNDATION | WIRING | {"store"},
    "cli": FOUNDATION | WIRING | STAGES | {"terminal", "environment"},
    "__init__": FOUNDATION | WIRING | STAGES,
    **{stage: FOUNDATION for stage in STAGES},
    **{name: FOUNDATION | STAGES | WIRING | {"environment"} for name in WIRING},
}
HOME = {
    "h5py": "store",
    "orbax": "models",
    "safetensors": "models",
    "huggingface_hub": "models",
    "transformers": "corpus",
    "tokenizers": "corpus",
    "pyarrow": "corpus",
    "zstandard": "corpus",
    "cyclopts": "cli",
    "rich": "terminal",
    "matplotlib": "view",
    "jinja2": "view",
    "ray": "scale",
}
WITHOUT_JAX = ["schema", "config", "errors", "store.reader", "store.publish", "store.verify"]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Pairs of imported module and whether it stands at module level."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            ours = node.module == "jaxlens"
            yield from (f"jaxlens.{a.name}" for a in node.names) if ours else [node.module]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_stages_know_the_data_and_never_each_other(path):
    here = room(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "jaxlens" and rest and rest[0] not in (here, "__version__"):
            assert rest[0] in MAY_IMPORT[here], f"{here} imports {name}"
        if top in HOME:
            assert here == HOME[top], f"{top} belongs in {HOME[top]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_stay_small(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in {"utils", "common", "helpers", "base", "manager"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", WITHOUT_JAX)
def test_the_offline_half_does_not_load_jax(name):
    code = f"import sys, jaxlens.{name}; sys.exit('jax' in sys.modules)"
    assert run_python(code).returncode == 0


def test_importing_the_package_loads_no_jax_and_lists_its_names():
    code = "import sys, jaxlens; print(dir(jaxlens)); sys.exit('jax' in sys.modules)"
    done = run_python(code)
    assert done.returncode == 0
    assert "read_lens" in done.stdout


def test_help_loads_no_jax():
    code = (
        "import sys, jaxlens.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
