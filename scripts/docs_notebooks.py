"""A hook of MkDocs: executed notebooks become pages, with what their cells showed.

The pages are made from the stored outputs; nothing is executed when the site is built.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import nbformat
from mkdocs.structure.files import File


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Puts a page in the place of each notebook; MkDocs calls this with what it found."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        text = page(pathlib.Path(config["docs_dir"]) / file.src_uri)
        name = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks lead to their pages; elsewhere they open the notebook itself."""
    return re.sub(r"(\]\([^)\s]+)\.ipynb\)", r"\1.md)", markdown)


def page(path: pathlib.Path) -> str:
    """A notebook as Markdown."""
    notebook: Any = nbformat.read(path, as_version=4)
    parts = [part for cell in notebook.cells for part in _cell(cell)]
    return "\n\n".join(parts) + "\n"


def _cell(cell: Any) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        yield from _output(output)


def _output(output: Any) -> Iterator[str]:
    """The richest form that a page can show."""
    data = output.get("data", {})
    if "text/html" in data:
        # A line of its own for every element would end the block; Markdown reads none of it.
        inside = re.sub(r"\n\s*", " ", data["text/html"])
        yield f'<div class="notebook-output">{inside}</div>'
    elif "image/png" in data:
        address = "data:image/png;base64," + "".join(data["image/png"].split())
        yield f'<img class="notebook-output" alt="what the cell shows" src="{address}">'
    elif "text/plain" in data or output.get("name") == "stdout":
        yield f"```text\n{(data.get('text/plain') or output.text).rstrip()}\n```"
