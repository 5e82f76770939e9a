"""Where a computation ran: versions, devices and flags, for records and bug reports."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import socket
from typing import Any

_PACKAGES = (
    "jaxlens-logitlens",
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "h5py",
    "tokenizers",
    "orbax-checkpoint",
    "safetensors",
)
_VARIABLES = (
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "XLA_FLAGS",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def describe() -> dict[str, Any]:
    """Versions, devices and the variables that JAX reads; JSON values."""
    import jax

    from jaxlens import numerics
    from jaxlens.store import hdf

    numerics.require_precision("float32")  # which finds out whether there is a device
    devices = [
        {"platform": device.platform, "kind": device.device_kind} for device in jax.devices()
    ]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "memory_bytes": _memory(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "hdf5": hdf.library_version(),
        "backend": jax.default_backend(),
        "devices": devices,
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def worker_name() -> str:
    """A name for this process that no other worker of a run has."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:60] or "host"
    return f"{host.lstrip('-') or 'host'}-{os.getpid()}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not a POSIX system
        return 0
