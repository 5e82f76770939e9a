import subprocess
import sys
from pathlib import Path

STORE = Path(__file__).parents[2] / "jaxlens" / "store"
MODULES = sorted(f"jaxlens.store.{path.stem}" for path in STORE.glob("[a-z]*.py"))


def test_no_module_of_the_store_loads_jax_or_xarray():
    script = (
        "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]];"
        "loaded = {'jax', 'jaxlib', 'flax', 'xarray', 'jaxlens.types'} & set(sys.modules);"
        "print(sorted(loaded))"
    )
    command = [sys.executable, "-c", script, *MODULES]
    assert len(MODULES) > 10
    root = STORE.parents[1]
    assert subprocess.check_output(command, cwd=root, text=True).strip() == "[]"
