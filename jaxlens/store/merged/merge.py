"""Merging finished runs over parts of a corpus into a small directory that holds no rows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlens import arguments, config, errors
from jaxlens.files import contained, publish, system, temporary
from jaxlens.store import (
    layout,
    reader,
    records,
    specs,
    storage,
)
from jaxlens.store.merged import agreement, fold, merged_spec, sources

_MAX_DOCUMENTS = 2**32


@dataclass(frozen=True)
class Merged:
    """What was merged.

    Attributes:
        out: Directory.
        runs: Directories of the runs, in the order of their rows.
        n_tokens: Tokens of all corpora.
        n_documents: Their documents.
        n_rows: Rows that can be read.
        repeated_documents: Documents whose text is in several runs, counted in each.
        left_out: Set of tallies of the runs that does not add up; empty where all are kept.
        other_counts: Whether rarity is by counts that are not those of the corpora together.
    """

    out: Path
    runs: tuple[Path, ...]
    n_tokens: int
    n_documents: int
    n_rows: int
    repeated_documents: int
    left_out: str
    other_counts: bool


def merge_runs(
    out: str | Path,
    runs: Sequence[str | Path],
    allow_repeated: bool = False,
    disk: system.Disk = system.DISK,
) -> Merged:
    """Merges finished runs whose specs differ in the corpus alone, as parts of one corpus.

    The merged run is a directory of a few files: its spec, the places of its runs, and their totals
    added up. `jaxlens.open_run` reads the rows from the runs themselves. The result does not depend
    on the order of the runs; merged runs among them stand for theirs. The same call again makes
    what is missing or damaged anew.

    Args:
        out: Directory to create.
        runs: Directories of at least two runs.
        allow_repeated: Whether documents may be in several runs; they count in each.
        disk: System calls.

    Raises:
        ConfigError: The runs differ in more than the corpus, share a corpus or documents, keep
            totals that do not add up, or ``out`` holds something else.
        MissingError: A run is not there, not finished, or has no token file.
        DataError: A run is damaged.
        StorageError: The disk is full or failed.
    """
    out_dir = Path(arguments.path(out, "out", "a directory to create"))
    named = arguments.listed(runs)
    if named is None or len(named) < 2:
        raise errors.ConfigError("at least two runs are merged", "name their directories")
    for place in (out_dir, *map(str, named)):
        storage.refuse_url(place, "jaxlens merge", "merge runs in directories")
    return _merge(out_dir, named, arguments.flag(allow_repeated, "allow_repeated"), disk)


def again(out: str | Path, disk: system.Disk = system.DISK) -> Merged:
    """Makes the files of a merged run that are missing or damaged anew, from its own record.

    Raises:
        JaxlensError: See `merge_runs`.
    """
    return _merge(Path(out), [out], True, disk)


def _merge(out_dir: Path, runs: Sequence[Any], allow_repeated: bool, disk: system.Disk) -> Merged:
    parts = _parts(out_dir, _swept(runs))
    spec = _spec(parts, allow_repeated)
    _require_room(out_dir, config.canonical(spec))
    _publish(out_dir, derive(parts, spec), disk)
    return Merged(
        out=out_dir,
        runs=tuple(part.run.path for part in parts),
        n_tokens=spec["corpus"]["n_tokens"],
        n_documents=spec["corpus"]["n_documents"],
        n_rows=sum(part.source.n_rows for part in parts),
        repeated_documents=spec[specs.MERGED]["repeated_documents"],
        left_out=agreement.left_out(parts, spec),
        other_counts=agreement.has_other_counts(parts),
    )


def files_of(run_dir: str | Path) -> dict[str, bytes]:
    """The files that a merged run must have, by its own record of its runs.

    Raises:
        JaxlensError: See `merge_runs`.
    """
    parts = _parts(Path(run_dir), _swept([run_dir]))
    spec = _spec(parts, True)
    places = {
        (source.spec_hash, source.manifest_sha256): source.path
        for source in sources.read(run_dir, layout.read_spec(run_dir))
    }
    as_recorded = []  # by the names that they had, which may be links now
    for part in parts:
        identity = part.source.spec_hash, part.source.manifest_sha256
        path = places.get(identity, part.source.path)
        source = dataclasses.replace(part.source, path=path)
        as_recorded.append(dataclasses.replace(part, source=source))
    return derive(as_recorded, spec)


def derive(parts: Sequence[agreement.Part], spec: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a merged run, in the order in which they are written.

    Args:
        parts: Its runs, in their order.
        spec: Its spec.

    Raises:
        DataError: A run is damaged, or changes meanwhile.
    """
    added = fold.fold((part.run for part in parts), spec)
    for part in parts:
        if sources.identity(part.run.path) != (part.run.spec_hash, part.source.manifest_sha256):
            raise errors.DataError(f"{part.run.path} changes meanwhile", "wait, then merge again")
    spec_bytes = config.canonical(spec)
    of, spec_hash = [part.source for part in parts], config.spec_hash(spec_bytes)
    counts = agreement.token_counts(parts)
    return {
        sources.SOURCES: sources.encode(spec_hash, of),
        **({} if counts is None else {layout.TOKEN_COUNTS: counts}),
        layout.SUMMARY: fold.image(added, spec, spec_hash, of),
        layout.RUN: spec_bytes,
    }


def _spec(parts: Sequence[agreement.Part], allow_repeated: bool) -> dict[str, Any]:
    named = [(str(part.run.path), part.run.spec) for part in parts]
    more = agreement.type_means(parts, merged_spec.kept_tallies(named))
    more |= {"repeated_documents": agreement.count_repeated(parts, allow_repeated)}
    spec = merged_spec.build(named, [part.run.spec_hash for part in parts], more)
    records.parse_spec(config.canonical(spec), "the spec of the merged runs")
    return spec


def _swept(runs: Sequence[Any]) -> Iterator[Path]:
    """The directories of runs that were swept; a merged run stands for its own."""
    for one in runs:
        run_dir = Path(arguments.path(one, "runs", "the directory of a run"))
        if not sources.is_merged(run_dir):
            yield run_dir
            continue
        for source in sources.read(run_dir, layout.read_spec(run_dir)):
            yield sources.require_same(run_dir, source)


def _parts(out_dir: Path, run_dirs: Iterator[Path]) -> list[agreement.Part]:
    """The runs, found alike, in an order of their own: that of the hashes of their tokens."""
    parts = [_part(out_dir, run_dir) for run_dir in run_dirs]
    if len(parts) > sources.MOST:
        raise errors.ConfigError(f"{len(parts)} runs", f"merge at most {sources.MOST:,}")
    merged_spec.require_alike([(str(part.run.path), part.run.spec) for part in parts])
    documents = sum(part.source.n_documents for part in parts)
    if documents >= _MAX_DOCUMENTS and any(part.source.n_rows for part in parts):
        raise errors.ConfigError(
            f"the runs have {documents:,} documents",
            f"rows number at most {_MAX_DOCUMENTS - 1:,}: merge fewer, or runs with --rows none",
        )
    return sorted(parts, key=lambda part: part.run.spec["corpus"]["sha256"])


def _part(out_dir: Path, run_dir: Path) -> agreement.Part:
    merged_spec.require_fields(str(run_dir), layout.read_spec(run_dir).document)
    spec_hash, manifest_sha256 = sources.identity(run_dir)
    run = reader.Run(run_dir)
    index, corpus = run.corpus, run.spec["corpus"]
    if run.n_tokens != corpus["n_tokens"]:
        raise errors.DataError(
            f"{run_dir} has {run.n_tokens} tokens, {layout.RUN} says {corpus['n_tokens']}",
            "jaxlens verify names what is damaged",
        )
    source = sources.Source(
        path=sources.relative(out_dir, run_dir),
        spec_hash=spec_hash,
        manifest_sha256=manifest_sha256,
        n_tokens=run.n_tokens,
        n_documents=len(index.documents),
        n_rows=run.n_rows,
    )
    del run.corpus  # ids and fields of all documents
    return agreement.Part(run, source, index.documents.hash, index.token_counts)


def _require_room(out_dir: Path, spec_bytes: bytes) -> None:
    """Refuses a directory that holds anything but these merged runs, or what is left of them.

    One inside a run is refused too: `jaxlens verify` would find files there that belong to no run.
    """
    for above in Path(os.path.realpath(out_dir)).parents:
        if os.path.lexists(above / layout.RUN):
            raise errors.ConfigError(
                f"{out_dir} lies inside a run, {above}", "name a directory beside the runs"
            )
    if os.path.lexists(out_dir) and not out_dir.is_dir():
        raise errors.ConfigError(
            f"{out_dir} is not a directory", "name a directory to create before the runs"
        )
    if os.path.lexists(out_dir / layout.SHARDS):
        raise errors.ConfigError(
            f"{out_dir} holds a run of its own, which is not replaced",
            "name a directory to create before the runs",
        )
    if os.path.lexists(out_dir / layout.RUN):
        _require_these(out_dir, spec_bytes)
    elif os.path.lexists(out_dir) and not sources.is_merged(out_dir):
        for name in contained.names(out_dir):
            if not temporary.is_temporary(name):
                raise errors.ConfigError(
                    f"{out_dir} is not empty and does not hold these merged runs: {name}",
                    "name another directory to create",
                )


def _require_these(out_dir: Path, spec_bytes: bytes) -> None:
    path = contained.contained(out_dir, layout.RUN)
    if contained.read(path, layout.LARGE) != spec_bytes:
        raise errors.ConfigError(
            f"{path} is of another run, of other merged runs, or damaged",
            "name another directory to create; if these runs were merged there, remove "
            f"{layout.RUN} and merge them again",
        )


def _publish(out_dir: Path, files: Mapping[str, bytes], disk: system.Disk) -> None:
    """Writes the files that are not there yet; without the spec, the last, there is no run.

    The first file says which runs are merged here: where another process merges others, one of the
    two is refused before it has written anything else.
    """
    publish.make_directory(out_dir, disk)
    temporary.remove_leftovers(out_dir, disk)
    for name, data in files.items():
        path = contained.contained(out_dir, name)
        if name == sources.SOURCES:
            _claim(out_dir, path, data, disk)
        elif name == layout.RUN:
            publish.publish(path, data, disk, replace=False)
        elif not contained.holds(path, data):
            publish.publish(path, data, disk)
    _require_these(out_dir, files[layout.RUN])


def _claim(out_dir: Path, path: Path, data: bytes, disk: system.Disk) -> None:
    """Writes the record of the runs, unless there is a sound one of others.

    Raises:
        ConfigError: There is.
    """
    publish.publish(path, data, disk, replace=False)
    if contained.holds(path, data):
        return
    with contextlib.suppress(errors.MissingError, errors.DataError):
        raw = contained.read(path, layout.LARGE)
        other = records.parse_note(raw, str(path)).get("spec_hash")
        if other != records.parse_note(data, str(path))["spec_hash"]:
            raise errors.ConfigError(
                f"{out_dir} is of other merged runs",
                "name another directory to create; if nobody is merging those now, "
                f"remove {sources.SOURCES} and merge again",
            )
    publish.publish(path, data, disk)  # damaged, or of these runs before they changed
