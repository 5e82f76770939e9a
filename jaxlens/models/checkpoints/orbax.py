"""Orbax checkpoints: our stacked parameters in the folder ``orbax``."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import errors, types
from jaxlens.files import memory, untrusted
from jaxlens.models.checkpoints import checks, layout
from jaxlens.models.checkpoints import stream as streams

FOLDER = "orbax"

_CHUNK_BYTES = 64 * 2**20
_LARGEST_POINTER = 1024
_AGAIN = "fetch the model again"


def save(directory: Path, params: types.Params, label: str) -> None:
    """Writes ``directory/orbax``.

    Raises:
        StorageError: The operating system refused.
    """
    import orbax.checkpoint

    # Orbax writes one chunk an array by default: programs that restore a part would read it all.
    pieces = orbax.checkpoint.SaveArgs(chunk_byte_size=_CHUNK_BYTES)
    try:
        with _quiet(), orbax.checkpoint.StandardCheckpointer() as checkpointer:
            folder = (directory / FOLDER).absolute()
            checkpointer.save(folder, params, save_args=jax.tree.map(lambda _: pieces, params))
    except OSError as error:
        raise errors.StorageError(
            f"{label}: {error.strerror}", "check the free space and the permissions"
        ) from error


def load(directory: Path, expected: layout.Layout, label: str) -> types.Params:
    """Restores ``directory/orbax`` as float32 NumPy arrays.

    Raises:
        DataError: It is damaged or does not fit.
    """
    with _reading(directory, expected, label) as (restore, where, stored):
        leaves = {leaf.path: restore(leaf.path) for leaf in expected.required()}
        leaves |= {path: restore(path) for path in stored().keys() - leaves.keys()}
    return checks.require(layout.nested(leaves), expected, where)


def stream(directory: Path, expected: layout.Layout, label: str) -> streams.Leaves:
    """The same leaves one after another, in the order of their paths.

    Raises:
        DataError: It is damaged or does not fit; leaves before the one at fault have been given.
    """
    with _reading(directory, expected, label) as (restore, where, stored):

        def checked(path: str) -> np.ndarray:
            value = restore(path)
            checks.require_finite(value, path, where)
            return value

        # Orbax leaves threads behind where it lists what is damaged: one leaf is tried before.
        checked(min(expected.required(), key=_size).path)
        for path in streams.kept(stored(), checked, expected, where):
            yield path, checked(path)


def _size(leaf: layout.Leaf) -> int:
    return math.prod(leaf.shape)


@contextlib.contextmanager
def _reading(directory: Path, expected: layout.Layout, label: str) -> Generator[tuple[Any, ...]]:
    """What restores a leaf, what to call the folder, and what says all that it holds."""
    import orbax.checkpoint

    folder, where = (directory / FOLDER).absolute(), f"{label}/{FOLDER}"
    _require_files(folder, where)
    _refuse_foreign(folder, expected, where)
    handler = orbax.checkpoint.PyTreeCheckpointHandler()
    with _quiet(), orbax.checkpoint.Checkpointer(handler) as checkpointer:

        def restore(path: str) -> np.ndarray:
            shape = expected.stacked_shape(expected.by_path[path])
            return _restore(checkpointer, folder, path, shape, where)

        def stored() -> dict[str, tuple[tuple[int, ...], str]]:
            found = _stored(checkpointer, folder, where)
            checks.require_shapes(found, expected, where)
            return found

        yield restore, where, stored


def _require_files(folder: Path, where: str) -> None:
    """Refuses pipes, which Orbax would wait for, and oversized metadata, which it would parse."""

    def fail(error: OSError) -> None:
        raise errors.StorageError(f"{where}: {error.strerror}", untrusted.READABLE) from error

    if not folder.is_dir():
        raise errors.DataError(f"{where}: no directory", _AGAIN)
    for parent, _, names in os.walk(folder, onerror=fail):
        for name in names:
            status = (Path(parent) / name).stat()
            if not stat.S_ISREG(status.st_mode):
                raise errors.DataError(
                    f"{where}/{untrusted.shown(name)}: not a regular file", _AGAIN
                )
            if status.st_size <= _LARGEST_POINTER:
                with untrusted.opened(Path(parent) / name, f"{where}/{untrusted.shown(name)}"):
                    pass  # a Git LFS pointer is refused
            if name.endswith("METADATA") and status.st_size > untrusted.MAX_JSON_BYTES:
                raise errors.DataError(
                    f"{where}/{untrusted.shown(name)}: {status.st_size} bytes, "
                    f"at most {untrusted.MAX_JSON_BYTES}",
                    _AGAIN,
                )


def _refuse_foreign(folder: Path, expected: layout.Layout, where: str) -> None:
    """Refuses a tree that another program saved, with what it holds.

    Raises:
        DataError: None of its leaves is one of ours.
    """
    paths = declared(folder, where)
    if paths and not any(path in expected.by_path for path in paths):
        raise errors.DataError(
            f"{where}: not in jaxlens' own layout; it holds {untrusted.listed(paths, 3)}",
            "restore it with Orbax, then pass the parameters: jaxlens.load_model(tree, config=...)",
        )


def declared(folder: Path, where: str) -> list[str]:
    """Paths of the leaves that ``_METADATA`` lists; none where it cannot be made out.

    Read without Orbax, which leaves threads behind where a checkpoint is damaged.
    """
    if not untrusted.is_there(folder / "_METADATA"):
        return []
    try:
        metadata = untrusted.read_json(folder / "_METADATA", where)
        leaves = metadata["tree_metadata"].values()
        return ["/".join(str(part["key"]) for part in leaf["key_metadata"]) for leaf in leaves]
    except (errors.JaxlensError, AttributeError, KeyError, TypeError):
        return []  # what is wrong with it is told where it is restored


def _restore(
    checkpointer: Any, folder: Path, path: str, shape: tuple[int, ...], where: str
) -> np.ndarray:
    """One leaf, as float32.

    Orbax would read all leaves at once, but where one cannot be read it leaves the others behind
    in threads, whose tracebacks then appear on stderr.
    """
    from orbax import checkpoint

    arguments = checkpoint.RestoreArgs(restore_type=np.ndarray, dtype=jnp.dtype("float32"))
    wanted = checkpoint.args.PyTreeRestore(
        item=layout.nested({path: jax.ShapeDtypeStruct(shape, jnp.float32)}),
        restore_args=layout.nested({path: arguments}),
        partial_restore=True,
    )
    try:
        _require_declared(folder, path, shape, where)
        return layout.flat(checkpointer.restore(folder, args=wanted))[path]
    except errors.DataError:
        raise
    except Exception as error:
        memory.reraise(error)
        # Orbax and TensorStore have no common exception for a damaged checkpoint, and their
        # messages are pages long.
        kind = type(error).__name__
        raise errors.DataError(
            f"{where}: tensor {path} is missing, damaged or does not fit ({kind})", _AGAIN
        ) from error


def _require_declared(folder: Path, path: str, shape: tuple[int, ...], where: str) -> None:
    """Looks at what an array's own header declares: restoring would allocate all of it.

    Orbax shows the headers of all arrays at once only, see ``_restore``.

    Raises:
        DataError: Another shape, or chunks beyond it.
    """
    import tensorstore

    inside: dict[str, Any] = {"driver": "file", "path": f"{folder}/"}
    if (folder / "manifest.ocdbt").exists():
        inside = {"driver": "ocdbt", "base": inside, "path": ""}
    inside["path"] += path.replace("/", ".") + "/"
    metadata = untrusted.read_json(folder / "_METADATA", where)
    kind = "zarr3" if metadata.get("use_zarr3") else "zarr"
    array = tensorstore.open({"driver": kind, "kvstore": inside}, read=True).result()
    checks.require_shape(array.shape, shape, f"{where}: tensor {path}")
    layouts = array.chunk_layout
    for chunk in (layouts.read_chunk.shape, layouts.write_chunk.shape):
        if any((part or 0) > whole for part, whole in zip(chunk or (), shape, strict=False)):
            raise errors.DataError(f"{where}: tensor {path} has a chunk of shape {chunk}", _AGAIN)


def _stored(checkpointer: Any, folder: Path, where: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> (shape, dtype) of all that an Orbax checkpoint holds."""
    try:
        tree = layout.flat(checkpointer.metadata(folder).item_metadata.tree)
        return {path: (leaf.shape, jnp.dtype(leaf.dtype).name) for path, leaf in tree.items()}
    except Exception as error:
        memory.reraise(error)
        raise errors.DataError(f"{where}: damaged ({type(error).__name__})", _AGAIN) from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keeps Orbax's log off stderr; what goes wrong comes as an exception anyway."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
