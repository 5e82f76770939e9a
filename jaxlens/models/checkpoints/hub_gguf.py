"""Which GGUF file of a hub repository a quantisation names, as in ``org/name:Q4_K_M``.

Such a repository holds one file for each quantisation, named as llama.cpp's tools name them:
``model-Q4_K_M.gguf``, ``model.q4_k_m.gguf`` or ``Q4_K_M.gguf``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from jaxlens import errors
from jaxlens.files import untrusted
from jaxlens.models.checkpoints import gguf_header

_PART = re.compile(r"-[0-9]+-of-[0-9]+", re.ASCII)
_IMAGES = "mmproj"
"""In the names of files that hold what reads images, and no language model."""


def files(names: Iterable[str]) -> list[str]:
    """The GGUF files of language models among the files of a repository, sorted.

    Args:
        names: Paths in the repository.
    """
    paths = [PurePosixPath(name) for name in names]
    return sorted(
        str(path)
        for path in paths
        if path.suffix == gguf_header.SUFFIX
        and _IMAGES not in path.name.lower()
        and not path.is_absolute()
        and ".." not in path.parts
    )


def choose(names: Sequence[str], quantisation: str, repository: str, label: str) -> str:
    """The one file that a quantisation names.

    Args:
        names: Of GGUF files, see `files`.
        quantisation: End of the file's name after ``-`` or ``.``, or all of it, without ``.gguf``;
            in upper or lower case.
        repository: Hub id.
        label: What to call the repository in messages, and where it was looked at.

    Raises:
        MissingError: There is none.
        DataError: There is one in several parts, which is not read.
        ConfigError: There are several.
    """
    wanted = quantisation.lower()
    stems = {name: PurePosixPath(name).stem.lower() for name in names}
    found = [name for name, stem in stems.items() if stem == wanted] or [
        name for name, stem in stems.items() if _ends_with(stem, wanted)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise errors.ConfigError(
            f"{label}: {quantisation} names several files, {untrusted.listed(found)}",
            f"give the whole name of one: {repository}:{_shown_stem(found[0])}",
        )
    parts = [name for name, stem in stems.items() if _ends_with(_PART.sub("", stem), wanted)]
    if parts:
        raise errors.DataError(
            f"{label}: {quantisation} is in several parts, which are not read: "
            f"{untrusted.listed(parts, 3)}",
            "take a quantisation in one file; or download the parts, join them with "
            "llama-gguf-split --merge, and give that file",
        )
    raise errors.MissingError(
        f"{label}: no GGUF file of the quantisation {quantisation}", _others(names, repository)
    )


def quantisations(names: Sequence[str]) -> list[str]:
    """What can follow the colon: the last part of the name of each file that is whole."""
    stems = [PurePosixPath(name).stem for name in names if not _is_part(name)]
    return sorted({re.split(r"[-.]", stem)[-1] for stem in stems})


def unnamed(names: Sequence[str], repository: str, label: str) -> errors.MissingError:
    """The error for a repository that has only GGUF files, of which none was named.

    Args:
        names: Of these files, at least one.
        repository: Hub id.
        label: What to call it.
    """
    listed = untrusted.listed(PurePosixPath(name).name for name in names)
    return errors.MissingError(
        f"{label}: the repository has GGUF files, {listed}, and none was named",
        _others(names, repository),
    )


def _others(names: Sequence[str], repository: str) -> str:
    found = quantisations(names)
    if found:
        example = f"{repository}:{untrusted.shown(found[0])}"
        return f"there are {untrusted.listed(found, 30)}; name one after a colon: {example}"
    if names:
        return "it has GGUF files in several parts only, which are not read"
    return f"it has no GGUF files; without the colon, {repository} names other weights"


def _ends_with(stem: str, wanted: str) -> bool:
    return stem == wanted or stem.endswith((f"-{wanted}", f".{wanted}"))


def _is_part(name: str) -> bool:
    return _PART.search(name) is not None


def _shown_stem(name: str) -> str:
    return untrusted.shown(PurePosixPath(name).stem)
