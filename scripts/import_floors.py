"""Floors of the package: how deep its rooms stand on each other, by the imports between them.

``python scripts/import_floors.py`` prints each room with the floor it stands on, from 1. A room is
a folder of the package, or a module beside the folders; modules of the vocabulary are one room.
Imports that are only for type checkers do not count, those inside functions do.
"""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator, Mapping

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "jaxlens"

VOCABULARY = {
    *("arguments", "config", "designs", "errors", "interrupts", "schema", "config_values", "types"),
    "files",
}
"""What every room may use."""


def room_of(path: pathlib.Path) -> str:
    """The room of a module: its folder, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> Iterator[str]:
    """Dotted names of what a module imports."""
    yield from _imports(ast.parse(path.read_text()))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            ours = child.module == "jaxlens"
            yield from (f"jaxlens.{a.name}" for a in child.names) if ours else [child.module]
        yield from _imports(child)


def edges() -> dict[str, set[str]]:
    """Which rooms each room imports; the vocabulary is one room."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        here = _merged(room_of(path))
        targets = found.setdefault(here, set())
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "jaxlens" and rest and rest[0] != "__version__":
                targets.add(_merged(rest[0]))
        targets.discard(here)
    return found


def _merged(room: str) -> str:
    return "vocabulary" if room in VOCABULARY else room


def floors(edges: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest room that it uses.

    Raises:
        ValueError: Rooms use each other in a circle.
    """
    found: dict[str, int] = {}

    def climb(room: str, below: tuple[str, ...]) -> int:
        if room in below:
            raise ValueError(f"a circle: {' -> '.join((*below, room))}")
        if room not in found:
            used = edges.get(room, set())
            found[room] = 1 + max((climb(one, (*below, room)) for one in used), default=0)
        return found[room]

    for room in edges:
        climb(room, ())
    return found


def main() -> None:
    """Prints the floors, the lowest first."""
    found = floors(edges())
    for floor in range(1, max(found.values()) + 1):
        print(floor, *sorted(room for room in found if found[room] == floor))


if __name__ == "__main__":
    main()
