"""YAML files of settings: plain values, and no key twice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.files import refusals

# Raised for values that are not of the type of their tag, such as ``!!bool maybe``, and for lists
# in lists without end.
_PYTHON_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
)


class DuplicateKey(ValueError):
    """A mapping has a key twice, so that one of its values would be lost."""


def parse(text: str) -> Any:
    """The document.

    Raises:
        DuplicateKey: Naming the key and its lines.
        ValueError: It is not YAML; says why in one line.
    """
    import yaml

    try:
        _require_single(yaml.compose(text, yaml.SafeLoader), set())
        return yaml.safe_load(text)
    except DuplicateKey:
        raise
    except (yaml.YAMLError, *_PYTHON_ERRORS) as error:
        lines = str(error).splitlines()
        raise ValueError(lines[0] if lines else type(error).__name__) from error


def _require_single(node: Any, seen: set[int]) -> None:
    """Refuses duplicate keys at any depth; the library keeps the last value.

    ``seen`` are the nodes looked at: with anchors one may stand at many places, even within
    itself.
    """
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _require_single(item, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            if (before := lines.get((key.tag, key.value))) is not None:
                name = f"{key.value[:80]!r}"
                raise DuplicateKey(f"the key {name} is in line {before} and in line {line}")
            lines[key.tag, key.value] = line
        _require_single(value, seen)


def read(path: Path) -> Any:
    """The document in a file.

    Raises:
        MissingError: It does not exist.
        StorageError: The system refused to read.
        ConfigError: It is not YAML, or has a key twice.
    """
    name = f"configuration file {path}"
    try:
        with refusals.reading(name, missing_hint="check the path"):
            return parse(path.read_text(encoding="utf-8"))
    except DuplicateKey as error:
        raise errors.ConfigError(f"{path}: {error}", "keep one of them") from error
    except ValueError as error:
        raise errors.ConfigError(f"{path} is not YAML: {error}", "see configs/demo.yaml") from error


def read_flat(path: Path, sections: Collection[str]) -> dict[str, Any]:
    """The settings of a file by their dotted keys.

    Args:
        path: The file.
        sections: Keys whose values are mappings of settings.

    Raises:
        ConfigError: It is not a mapping, or has a setting twice.
        JaxlensError: See ``read``.
    """
    document = read(path)
    if not isinstance(document, dict | type(None)):
        raise errors.ConfigError(f"{path} is not a mapping", "see configs/demo.yaml")
    settings: dict[str, Any] = {}
    for key, value in _flatten(document or {}, "", sections):
        if key in settings:  # once as a key with a dot, once inside its section
            raise errors.ConfigError(f"{path} has {key[:80]!r} twice", "keep one of them")
        settings[key] = value
    return settings


def _flatten(
    document: Mapping[Any, Any], prefix: str, sections: Collection[str]
) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        # YAML reads the key ``null`` as None.
        dotted = f"{prefix}{'null' if key is None else key}"
        if isinstance(value, dict) and dotted in sections:
            yield from _flatten(value, f"{dotted}.", sections)
        else:
            yield dotted, value
