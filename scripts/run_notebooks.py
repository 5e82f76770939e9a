"""Executes the notebooks of the documentation and keeps what they show: `make notebooks`.

Only outputs are changed, and nothing of the machine is kept, so that a notebook whose results are
the same stays the same file.
"""

from __future__ import annotations

import logging
import pathlib
import sys
from typing import Any

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"


def execute(path: pathlib.Path, folder: pathlib.Path | None = None) -> Any:
    """A notebook with what its cells show when they are executed in their order.

    Args:
        path: Notebook.
        folder: Where it runs; its own folder by default.

    Raises:
        CellExecutionError: A cell fails.
    """
    logging.getLogger("IPKernelApp").setLevel(logging.ERROR)
    notebook: Any = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder or path.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    notebook.metadata.pop("language_info", None)  # the version of Python
    return notebook


def main() -> None:
    """Executes all of them, or those that are named."""
    for path in map(pathlib.Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
        nbformat.write(execute(path), path)
        print(path.name)


if __name__ == "__main__":
    main()
