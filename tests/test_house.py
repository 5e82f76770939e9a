"""The rules of the house that a machine can check."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxlens"
MODULES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {
    *("types", "schema", "ledger", "binning", "sampling", "hashing"),
    *("errors", "memory", "numerics", "config", "values", "yamlfile", "designs", "filetypes"),
    *("depths", "metadata", "wording", "given", "interrupts", "scratch"),
}
STAGES = {"corpus", "models", "lens", "tally", "store"}
# Who wires the stages may import any of them.
WIRING = {
    *(
        "api",
        "checks",
        "promptinputs",
        "promptrequest",
        "prompts",
        "promptsheet",
        "prompttable",
        "job",
        "settle",
        "ingest",
        "compute",
        "canary",
        "sweep",
        "repair",
        "estimate",
        "controls",
    ),
    *(
        "step",
        "fit",
        "executables",
        "tune",
        "temper",
        "cache",
        "lanes",
        "grace",
        "scale",
        "bench",
        "stages",
        "synthetic",
        "controls",
        "show",
    ),
}
MAY_IMPORT = {
    # A readout shows itself; its methods load the pictures when they are called.
    "types": {"view"},
    "designs": set(),
    "schema": set(),
    "hashing": set(),
    "depths": set(),
    "metadata": {"designs", "errors"},
    "binning": {"hashing"},
    "sampling": {"binning", "hashing"},
    "ledger": {"binning", "sampling", "schema"},
    "errors": set(),
    "filetypes": {"errors"},
    "memory": {"errors"},
    "values": set(),
    "given": {"errors", "values"},
    "yamlfile": {"errors"},
    "numerics": {"types", "errors", "memory"},
    "config": FOUNDATION,
    "devices": {"errors", "environment"},
    "environment": {"numerics", "errors", "memory", "store"},
    "interrupts": {"errors"},
    "scratch": {"interrupts"},
    "grace": {"errors", "interrupts"},
    "files": {"errors", "store"},
    "stdio": set(),
    "wording": set(),
    "examples": set(),
    # Of the tallies the study takes the rules, which know neither JAX nor devices.
    "study": FOUNDATION - {"types", "numerics", "config"} | {"files", "store", "tally", "export"},
    "view": {"errors", "files", "given", "types", "depths", "prompttable", "values", "wording"},
    "export": {"metadata", "schema", "ledger", "binning", "sampling", "errors", "files", "store"},
    "report": {"errors", "config", "designs", "ledger", "binning", "environment"}
    | {"files", "store", "study", "view"},
    "terminal": FOUNDATION | WIRING | {"files", "stdio", "store", "export", "study", "view"},
    "bench_output": {"bench", "files", "wording"},
    "prompt_output": {"files", "prompttable", "stdio", "terminal", "view", "wording"},
    "comparisons": {"stdio", "terminal", "files", "store", "study", "view"},
    "arguments": {"config", "errors", "memory", "stdio", "terminal"},
    "looking": {
        "arguments",
        "comparisons",
        "errors",
        "files",
        "stdio",
        "terminal",
        "show",
        "promptsheet",
        "prompt_output",
        "view",
        "report",
        "export",
        "study",
        "wording",
    },
    "__main__": {"entry"},
    "entry": {"cli", "interrupts", "terminal"},
    "cli": FOUNDATION
    | WIRING
    | STAGES
    | {
        "arguments",
        "examples",
        "files",
        "looking",
        "stdio",
        "terminal",
        "environment",
        "view",
        "bench_output",
    },
    "__init__": FOUNDATION | WIRING | STAGES,
    **{stage: FOUNDATION for stage in STAGES},
    # A run shows itself in notebooks; the picture is loaded when it is asked for.
    "store": FOUNDATION | {"view"},
    **{
        name: FOUNDATION | STAGES | WIRING | {"environment", "devices", "view", "study"}
        for name in WIRING - {"grace"}
    },
}
HOME = {
    "h5py": {"store"},
    "orbax": {"models"},
    "safetensors": {"models"},
    "huggingface_hub": {"models"},
    "transformers": {"corpus"},
    "tokenizers": {"corpus"},
    # One reads strangers' Parquet, the others write ours.
    "pyarrow": {"corpus", "export", "study"},
    "zstandard": {"corpus"},
    "cyclopts": {"cli", "arguments", "looking"},
    "rich": {"terminal", "view"},
    "matplotlib": {"view"},
    "pandas": {"view", "store"},
    "jinja2": {"view"},
    "scipy": {"study"},
}
WITHOUT_JAX = ["schema", "designs", "config", "errors"]
WITHOUT_JAX += [f"view.{path.stem}" for path in sorted((PACKAGE / "view").glob("[a-z]*.py"))]
WITHOUT_JAX += [f"report.{path.stem}" for path in sorted((PACKAGE / "report").glob("[a-z]*.py"))]
WITHOUT_JAX += ["store.reader", "store.publish", "store.verify"]
WITHOUT_JAX += ["export.order", "export.formats", "export.tallies"]
WITHOUT_JAX += [f"study.{path.stem}" for path in sorted((PACKAGE / "study").glob("[a-z]*.py"))]


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
            assert here in HOME[top], f"{top} belongs in {HOME[top]}"


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
