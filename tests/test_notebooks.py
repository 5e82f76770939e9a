"""The notebooks of the documentation run from top to bottom and show what is stored in them."""

import ast
import importlib
import pathlib

import nbformat
import pytest
import run_notebooks

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """What a cell shows, without its numbers."""
    return [(out.output_type, sorted(out.get("data", {}))) for out in cell.outputs]


@pytest.mark.long  # README.md and the tutorial do the same with less text.
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_when_it_is_run_what_is_stored_in_it(path, tmp_path):
    stored, found = nbformat.read(path, as_version=4), run_notebooks.execute(path, tmp_path)
    for ours, theirs in zip(code(stored), code(found), strict=True):
        assert ours.source == theirs.source
        assert kinds(ours) == kinds(theirs), ours.source
        assert ours.execution_count == theirs.execution_count
        # Warnings and errors would be on stderr.
        assert not [out for out in theirs.outputs if out.get("name") == "stderr"], theirs.outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path):
    """A quick look, since notebooks are only executed among the long tests."""
    text = "\n".join(cell.source for cell in code(nbformat.read(path, as_version=4)))
    nodes = list(ast.walk(ast.parse(text)))
    for node in (one for one in nodes if isinstance(one, ast.Import)):
        for name in node.names:
            importlib.import_module(name.name)
    for node in (one for one in nodes if isinstance(one, ast.ImportFrom)):
        module = importlib.import_module(node.module)
        for name in node.names:
            if not hasattr(module, name.name):
                importlib.import_module(f"{node.module}.{name.name}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_from_top_to_bottom_and_names_no_machine(path):
    stored = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in code(stored)] == [
        number + 1 for number in range(len(code(stored)))
    ]
    text = path.read_text()
    assert "/home/" not in text and "/tmp/" not in text and "/work/" not in text


def test_there_are_the_two_that_the_documentation_names():
    names = {path.name for path in NOTEBOOKS}
    index = (ROOT / "docs" / "index.md").read_text()
    assert names == {"corpus_study.ipynb", "logit_lens_in_ten_minutes.ipynb"}
    assert all(name in index for name in names)
