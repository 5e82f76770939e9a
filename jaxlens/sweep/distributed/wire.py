"""What driver and workers tell each other: settings, errors and versions, as JSON."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jaxlens
from jaxlens import config as run_config
from jaxlens import errors
from jaxlens.config import RunConfig
from jaxlens.files import memory

_DECIDING = ("jax", "jaxlib", "numpy", "h5py", "tokenizers")
"""Packages whose versions may decide bits."""


def settings(config: RunConfig) -> dict[str, Any]:
    """A configuration by dotted keys."""
    flat: dict[str, Any] = {}
    for key in run_config.keys():  # noqa: SIM118 (a function of the module)
        section, _, name = key.rpartition(".")
        flat[key] = getattr(getattr(config, section) if section else config, name)
    return flat


def configuration(flat: Mapping[str, Any]) -> RunConfig:
    """The configuration of `settings`, also after JSON has made lists of its tuples."""
    return run_config.load([], {}, flat)


def error(raised: BaseException) -> dict[str, str]:
    """An error by its kind, message and hint; what is none of ours is a defect."""
    told = raised
    if not isinstance(raised, errors.JaxlensError):
        if memory.is_shortage(raised):
            told = errors.ConfigError("out of memory", memory.HINT)
        elif isinstance(raised, OSError):
            told = errors.StorageError(str(raised), "check the disk and the permissions")
        else:
            what = f"internal: {type(raised).__name__}: {raised}".split("\n")[0]
            told = errors.JaxlensError(what, "run it again with --debug and report the traceback")
    assert isinstance(told, errors.JaxlensError)
    kind = next(c.__name__ for c in type(told).__mro__ if c.__module__ == errors.__name__)
    trace = "".join(traceback.format_exception(raised))
    return {"kind": kind, "message": told.message, "hint": told.hint, "trace": trace}


def raised(told: Mapping[str, str], where: str = "") -> errors.JaxlensError:
    """The error that was told.

    Args:
        told: From `error`.
        where: Of whom, for tracebacks.
    """
    kind = getattr(errors, told["kind"], errors.JaxlensError)
    made = kind(told["message"], told["hint"])
    made.add_note(f"{where}:\n{told['trace']}" if where else told["trace"])
    return made


def versions() -> dict[str, str]:
    """Versions of what decides bits, and a hash of this package's own sources."""
    found = {"jaxlens": jaxlens.__version__}
    for name in _DECIDING:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"sources of jaxlens": _sources()}


def require_versions(there: Mapping[str, str], host: str) -> None:
    """Refuses a worker with other versions than this process.

    Args:
        there: Its `versions`.
        host: Its host.

    Raises:
        ConfigError: Naming the first that differs.
    """
    here = versions()
    for name in here:
        if here[name] != there.get(name):
            raise errors.ConfigError(
                f"{name}: {there.get(name)} on the worker at {host}, {here[name]} at the driver",
                "install the same versions of jaxlens and of its requirements on every node",
            )


def dumps(document: Any) -> str:
    """One line."""
    return json.dumps(document, default=_plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


@functools.cache
def _sources() -> str:
    """Of the files as they are when this process asks first, which is when it has loaded them."""
    digest = hashlib.sha256()
    root = Path(jaxlens.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
