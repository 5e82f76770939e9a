"""Files of figures: which formats there are, and how one is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from jaxlens import arguments, errors
from jaxlens.files import outputs

FORMATS = (".png", ".svg", ".pdf")

# Without the moment in the file the same figure gives the same bytes.
_UNDATED: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def require(path: str | Path) -> Path:
    """Refuses a picture that could not be drawn, before the work for it is done.

    Raises:
        ConfigError: An unknown suffix, not a path, or something that is not a file has that name.
        MissingError: matplotlib is not installed.
        StorageError: Its folder is not there.
    """
    target = arguments.path(path, "path", f"a file that ends in {' or '.join(FORMATS)}")
    if target.suffix not in FORMATS:
        raise errors.ConfigError(f"a picture {target.name}", f"name it {' or '.join(FORMATS)}")
    require_library()
    outputs.require(target)
    return target


def require_library() -> None:
    """Refuses to draw without matplotlib.

    Raises:
        MissingError: It is not installed.
    """
    errors.require_package("matplotlib", "view", "pictures")


def svg(figure: Any) -> str:
    """A matplotlib figure as text of SVG without a ground; the same figure gives the same bytes."""
    import matplotlib

    sink = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "jaxlens", "svg.fonttype": "path"}):
        figure.savefig(sink, format="svg", transparent=True, metadata=_UNDATED[".svg"])
    return sink.getvalue().decode()


def save(figure: Any, path: Path, own: bool = False) -> None:
    """Writes a matplotlib figure into a file, whose suffix says the format.

    Args:
        figure: ``matplotlib.figure.Figure``.
        path: File.
        own: See ``files.write``.

    Raises:
        ConfigError: What is there is no file; see ``files.write``.
        StorageError: The file cannot be written.
    """
    import matplotlib

    sink = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "jaxlens"}):
        form = path.suffix.removeprefix(".")
        figure.savefig(sink, format=form, dpi=200, metadata=_UNDATED.get(path.suffix))
    outputs.write(path, sink.getvalue(), own)
