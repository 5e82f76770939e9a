"""How a run directory begins, and what is refused where another run began or other files lie."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlens import config, errors
from jaxlens.files import contained, publish, system, temporary
from jaxlens.store import earlier_layout, layout, records, segments, spec_difference

_RUN_NAMES = frozenset(
    {
        *(layout.RUN, layout.TYPE_MEANS, layout.TOKEN_COUNTS),
        *(layout.SHARDS, layout.TOKENS, layout.ENVIRONMENT),
        *layout.DERIVED,
    }
)


class AnotherRun(errors.ConfigError):
    """The directory holds a run with another spec."""


def create_run(
    run_dir: str | Path, spec_bytes: bytes, disk: system.Disk = system.DISK
) -> layout.Spec:
    """Begins a run, or finds that the same run has begun.

    Args:
        run_dir: Directory; created if absent.
        spec_bytes: The spec, canonical JSON.
        disk: System calls.

    Raises:
        ConfigError: The directory holds another run, or files that do not belong to a run.
        DataError: ``RUN.json`` is damaged.
        StorageError: It is not a directory, or cannot be written.
    """
    document, n_shards = records.parse_spec(spec_bytes, "the spec")
    spec = layout.Spec(document, config.spec_hash(spec_bytes), n_shards)
    publish.make_directory(run_dir, disk)
    path = contained.contained(run_dir, layout.RUN)
    if not os.path.lexists(path):
        _refuse_shards_of_another_run(run_dir, spec.hash)
        publish.publish(path, spec_bytes, disk, replace=False)
    # Read back: another worker may have written it at the same moment.
    _require_equal(path, contained.read(path, layout.LARGE), spec_bytes)
    temporary.remove_leftovers(run_dir, disk)
    for name in (layout.SHARDS, layout.TOKENS, layout.ENVIRONMENT):
        folder = contained.contained(run_dir, name)
        publish.make_directory(folder, disk)
        temporary.remove_leftovers(folder, disk)
    earlier_layout.move_shards(run_dir, n_shards, disk)
    for segment in segments.existing(run_dir, n_shards)[1:]:
        folder = contained.contained(run_dir, *layout.segment_parts(segment))
        temporary.remove_leftovers(folder, disk)
    return spec


def require_same_model(run_dir: str | Path, spec: Mapping[str, Any], known: dict[str, Any]) -> None:
    """Refuses another model by what is known of it before it is loaded.

    Args:
        run_dir: Run.
        spec: Its spec.
        known: Some of the fields that ``model`` must have in the spec.

    Raises:
        AnotherRun: Naming the fields that differ.
    """
    model = spec.get("model")
    existing = {name: model.get(name) for name in known} if isinstance(model, dict) else {}
    if existing != known:
        path = contained.contained(run_dir, layout.RUN)
        raise _another_run(path, {"model": existing}, {"model": known})


def require_same_run(run_dir: str | Path, spec_bytes: bytes) -> None:
    """Refuses a directory in which another run has begun; writes nothing.

    Raises:
        AnotherRun: Naming the fields that differ.
        DataError: ``RUN.json`` is damaged.
    """
    path = contained.contained(run_dir, layout.RUN)
    if os.path.lexists(path):
        _require_equal(path, contained.read(path, layout.LARGE), spec_bytes)


def refuse_other_files(run_dir: str | Path) -> None:
    """Refuses a directory that holds files of anything but a run, before a run begins there.

    Files that users keep beside a run that has begun are ignored.

    Raises:
        ConfigError: Naming the first such file.
    """
    spec_path = contained.contained(run_dir, layout.RUN)
    if not os.path.isdir(run_dir) or os.path.lexists(spec_path):
        return
    for name in contained.names(Path(run_dir)):
        if name not in _RUN_NAMES and not temporary.is_temporary(name):
            raise _not_empty(run_dir, name)
    unexplained = next(_unexplained(run_dir), None)
    # Checked last: a concurrent writer that begins the run now writes the spec before all else.
    if unexplained is not None and not os.path.lexists(spec_path):
        raise _not_empty(run_dir, unexplained)


def _require_equal(path: Path, existing: bytes, spec_bytes: bytes) -> None:
    if existing != spec_bytes:
        old, new = (records.parse_spec(raw, str(path))[0] for raw in (existing, spec_bytes))
        raise _another_run(path, old, new)


def _unexplained(run_dir: str | Path) -> Iterator[str]:
    """Files that no run leaves before it has a spec, although their folders have a run's names."""
    token_files = {layout.TOKEN_FILE, layout.TOKEN_INDEX, layout.TOKEN_RECORD}
    for name in contained.names(contained.contained(run_dir, layout.TOKENS)):
        if name not in token_files and not temporary.is_temporary(name):
            yield f"{layout.TOKENS}/{name}"
    shard_files = list(_shard_files(run_dir))
    for path, number in shard_files:
        name = path.rpartition("/")[2]
        if number is None and not temporary.is_temporary(name) and name not in segments.FILES:
            yield path
    if not shard_files:
        yield from sorted(set(layout.DERIVED) & set(contained.names(Path(run_dir))))


def _refuse_shards_of_another_run(run_dir: str | Path, spec_hash: str) -> None:
    refuse_other_files(run_dir)
    for path, number in _shard_files(run_dir):
        if number is not None and path.endswith(".json"):
            with contextlib.suppress(errors.DataError):  # damaged shards are recomputed
                raw = contained.read(contained.contained(run_dir, *path.split("/")), layout.SMALL)
                if records.parse_record(raw, path).spec_hash != spec_hash:
                    raise _not_empty(run_dir, path)


def _shard_files(run_dir: str | Path) -> Iterator[tuple[str, int | None]]:
    """Files among the shards, relative to the run, each with its shard if it is one of a shard."""
    for segment in segments.existing(run_dir):
        with segments.open_folder(run_dir, segment) as opened:
            names = sorted(opened.names())
        for name in names:
            if segment or layout.segment_number(name) is None:
                path = "/".join((*layout.segment_parts(segment), name))
                yield path, layout.part_number(name)


def _not_empty(run_dir: str | Path, name: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"{run_dir} is not empty and does not hold this run: {name}", "use another --out"
    )


def _another_run(path: Path, existing: dict[str, Any], wanted: dict[str, Any]) -> AnotherRun:
    difference, tokens_differ = spec_difference.describe(existing, wanted)
    return AnotherRun(
        f"{path} is of another run: {difference}",
        "name the corpus and the --limit that the run began with, or use another --out: a run "
        "cannot be extended"
        if tokens_differ
        else "use another --out, or the settings that the run began with",
    )
