"""YAML that may come from anywhere: plain values only, and no more than a person would write."""

from __future__ import annotations

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


def parse(text: str) -> Any:
    """The document.

    Raises:
        ValueError: In one line, why it is none.
    """
    import yaml

    try:
        _require_plain(text)
        return yaml.safe_load(text)
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
    except ValueError as error:
        raise errors.ConfigError(f"{path} is not YAML: {error}", "see configs/demo.yaml") from error
