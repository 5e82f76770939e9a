"""YAML that may come from anywhere: plain values only, and no more than a person would write."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlens import errors

MOST_CHARACTERS = 2**20
"""Longest file."""

MOST_LEVELS = 32
"""Deepest nesting; what the library needs grows with its square."""

# What the library raises for values that are not of the type they are tagged with, such as
# ``!!bool maybe``.
_PYTHON_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class DuplicateKey(ValueError):
    """A key stands twice in a mapping, so that one of its values would be lost without a word."""


def parse(text: str) -> Any:
    """The document.

    Raises:
        DuplicateKey: Naming the key and its lines.
        ValueError: In one line, why it is none.
    """
    import yaml

    try:
        _require_plain(text)
        _require_single(yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except DuplicateKey:
        raise
    except (yaml.YAMLError, *_PYTHON_ERRORS) as error:
        lines = str(error).splitlines()
        raise ValueError(lines[0] if lines else type(error).__name__) from error


def _require_plain(text: str) -> None:
    """Refuses, before anything is built of it, what no person writes."""
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        # Merged into each other, a few lines of aliases can fill any memory.
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases (*name) are not used here")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_LEVELS:
            raise ValueError(f"it is nested deeper than {MOST_LEVELS} levels")


def _require_single(node: Any) -> None:
    """Refuses keys that stand twice, at any depth; the library keeps the last of them."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _require_single(item)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            if (before := lines.get((key.tag, key.value))) is not None:
                name = f"{key.value[:80]!r}"
                raise DuplicateKey(f"the key {name} stands in line {before} and in line {line}")
            lines[key.tag, key.value] = line
        _require_single(value)


def read(path: Path) -> Any:
    """The document in a file.

    Raises:
        MissingError: It is not there.
        StorageError: The system refuses.
        ConfigError: It is no such document, or too long.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"it has more than {MOST_CHARACTERS} characters")
        return parse(text)
    except FileNotFoundError as error:
        raise errors.MissingError(f"no configuration file {path}", "check the path") from error
    except OSError as error:
        raise errors.StorageError(f"cannot read {path}: {error.strerror}", "check it") from error
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
        ConfigError: It is no mapping, or a setting is there twice.
        JaxlensError: See ``read``.
    """
    document = read(path)
    if not isinstance(document, dict | type(None)):
        raise errors.ConfigError(f"{path} holds no mapping", "see configs/demo.yaml")
    found: dict[str, Any] = {}
    for key, value in _flatten(document or {}, "", sections):
        if key in found:  # once as a key with a dot, once inside its section
            raise errors.ConfigError(f"{path}: {key[:80]!r} is there twice", "keep one of them")
        found[key] = value
    return found


def _flatten(
    document: Mapping[Any, Any], prefix: str, sections: Collection[str]
) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        # YAML reads the key ``null`` as the value that is written so.
        dotted = f"{prefix}{'null' if key is None else key}"
        if isinstance(value, dict) and dotted in sections:
            yield from _flatten(value, f"{dotted}.", sections)
        else:
            yield dotted, value
