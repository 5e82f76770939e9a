"""The rules of the house that a machine can check."""

import ast
import subprocess
import sys

import import_floors
import pytest

PACKAGE = import_floors.PACKAGE
MODULES = sorted(PACKAGE.rglob("*.py"))

# Each room may use the vocabulary, the rooms to its left, and none beside it.
DIRECTION = (
    {"lens", "tally", "view"},
    {"models", "store"},
    {"corpus", "export"},
    {"study", "sweep"},
    {"api", "bench"},
    {"cli"},
    {"__main__"},
)
# Modules of the vocabulary, each with those of it that it may use.
VOCABULARY = {
    "errors": set(),
    "interrupts": {"errors"},
    "schema": set(),
    "designs": set(),
    "types": set(),
    "config_values": {"designs", "errors", "schema"},
    "arguments": {"errors"},
    "files": {"errors", "interrupts"},
    "config": {"config_values", "errors", "files"},
}
MAX_MODULES, MAX_FOLDERS, MAX_FLOORS = 8, 12, 8
HOME = {
    "h5py": {"store"},
    "orbax": {"models"},
    "safetensors": {"models"},
    "huggingface_hub": {"models"},
    "transformers": {"models"},
    "tokenizers": {"corpus", "models"},
    # One reads strangers' Parquet, the others write ours.
    "pyarrow": {"api", "corpus", "export", "study"},
    "zstandard": {"files"},
    "cyclopts": {"cli"},
    "rich": {"cli", "view"},
    "matplotlib": {"view"},
    "pandas": {"view", "store"},
    "jinja2": {"view"},
    "scipy": {"study"},
    "ray": {"sweep"},
    "obstore": {"store"},
}
# What works offline on the files of a run, and what every command loads at its start.
WITHOUT_JAX = ["schema", "designs", "config", "errors", "cli.main"]
WITHOUT_JAX += ["store.reader", "store.verify", "files.publish"]
WITHOUT_JAX += ["export.order", "export.formats", "export.tallies"]
WITHOUT_JAX += [
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for room in ("study", "view")
    for path in sorted((PACKAGE / room).rglob("[a-z]*.py"))
]


def allowed(here):
    """Rooms that a room may use."""
    if here in VOCABULARY:
        return VOCABULARY[here] | {here}
    if here == "__init__":
        return {room for rooms in DIRECTION for room in rooms} | set(VOCABULARY)
    level = next(i for i, rooms in enumerate(DIRECTION) if here in rooms)
    below = {room for rooms in DIRECTION[:level] for room in rooms}
    return below | set(VOCABULARY) | {here}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_use_those_to_their_left(path):
    here = import_floors.room_of(path)
    for name in import_floors.imports(path):
        top, *rest = name.split(".")
        if top == "jaxlens" and rest and rest[0] != "__version__":
            assert rest[0] in allowed(here), f"{here} imports {name}"
        if top in HOME:
            assert here in HOME[top], f"{top} belongs in {HOME[top]}"


def test_the_hall_is_small_and_the_house_is_low():
    assert set(VOCABULARY) == import_floors.VOCABULARY
    modules = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__", "api"}
    folders = {p.name for p in PACKAGE.iterdir() if any(p.rglob("*.py"))} - {"api"}
    assert len(modules) <= MAX_MODULES and len(folders) <= MAX_FOLDERS
    floors = import_floors.floors(import_floors.edges())
    assert set(floors) - {"__init__", "vocabulary"} == {r for rooms in DIRECTION for r in rooms}
    assert max(floors.values()) <= MAX_FLOORS
    with pytest.raises(ValueError, match="a circle: a -> b -> a"):
        import_floors.floors({"a": {"b"}, "b": {"a"}})


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_stay_small(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 300
    assert path.stem not in {"utils", "common", "helpers", "base", "manager"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"


RUNS_CODE = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch"}
RUNS_CODE |= {"eval", "exec", "compile", "__import__", "allow_pickle", "trust_remote_code"}
RUNS_CODE |= {"load", "load_all", "full_load", "unsafe_load"}  # of yaml, whose safe_load is not


def running_code(source):
    """What could run code out of a file: forbidden imports, calls and keywords."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        elif isinstance(node, ast.Call):
            names = [keyword.arg for keyword in node.keywords]
            called = node.func
            if isinstance(called, ast.Name):
                names.append("" if called.id == "load" else called.id)
            elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                names += [called.attr] if called.value.id == "yaml" else []
            if ast.unparse(called).endswith("import_module"):
                names += [a.value for a in node.args if isinstance(a, ast.Constant)]
        yield from (name for name in names if name in RUNS_CODE)


def test_nothing_can_run_code_out_of_a_file():
    for path in MODULES:
        assert list(running_code(path.read_text())) == [], path
    for bad in (
        *("import pickle", "from torch import nn", "import dill.source", "eval(text)", "exec(x)"),
        *("np.load(path, allow_pickle=True)", "yaml.load(text)", "yaml.unsafe_load(text)"),
        *("__import__(name)", "importlib.import_module('marshal')", "f(trust_remote_code=1)"),
    ):
        assert len(list(running_code(bad))) == 1, bad


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_offline_half_does_not_load_jax():
    code = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_JAX}:\n"
        "    importlib.import_module('jaxlens.' + name)\n"
        "    assert 'jax' not in sys.modules, name\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_no_jax_and_lists_its_names():
    code = "import sys, jaxlens; print(dir(jaxlens)); sys.exit('jax' in sys.modules)"
    done = run_python(code)
    assert done.returncode == 0
    assert "read_lens" in done.stdout


def test_help_loads_no_jax():
    code = (
        "import sys, jaxlens.cli.main as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
