"""Finding everything that is wrong with a run; whatever the bytes are, the answer is a report."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxlens import errors, schema
from jaxlens.files import contained, publish
from jaxlens.store import bounds, finalize, layout, records, shards
from jaxlens.store.hdf5 import compare, reading

MOST_NAMED = 100
"""Missing shards that are named one by one."""


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        shards: Shards of the plan.
        rows: Rows of the shards that are sound.
        damaged: Files, relative to the run, each with what is wrong with it.
        missing: Shards that a run which is not finished lacks yet; those that a finished one
            lacks are damage.
        finished: Whether any of the files that end a run is there. Without them, shards that are
            not there are not there yet.
    """

    shards: int
    rows: int
    damaged: tuple[tuple[str, str], ...]
    missing: int = 0
    finished: bool = True

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with what is there."""
        return not self.damaged

    @property
    def ok(self) -> bool:
        """Whether the run is finished and nothing is wrong."""
        return self.sound and self.finished


def verify(
    run_dir: str | Path, level: shards.Level = "full", watch: Callable[[str], None] | None = None
) -> Report:
    """Checks a run, or what is there of one that is not finished.

    ``fast`` compares the manifest, the records and the sizes. ``full`` reads every byte: the
    hash of each shard and of the token file, the checksum of each dataset, the coverage of the
    corpus, and whether the derived files follow from the shards.

    Args:
        run_dir: Run.
        level: ``fast`` or ``full``.
        watch: Is told the name of each file before it is looked at, one after the other.

    Raises:
        MissingError: There is no such directory, or no run in it.
    """
    if not os.path.isdir(run_dir):
        raise errors.MissingError(f"{run_dir} is no directory", "check the path")
    if not any(os.path.lexists(os.path.join(run_dir, n)) for n in (layout.RUN, layout.SHARDS)):
        raise errors.MissingError(f"{run_dir} holds no run", "check the path")
    # Asked first, and only once: the run may be going on.
    finished = any(os.path.lexists(os.path.join(run_dir, name)) for name in layout.DERIVED)
    found = _Findings(run_dir, watch)
    spec = _identity(found)
    there = _there(found, spec, finished)
    entries = _shards(found, spec, there, level)
    for shard, what in records.misplaced(entries):
        found.add(_part(shard), what)
    whole = not found.items
    _foreign(found, spec.n_shards)
    if finished:
        _manifest(found, spec, entries)
    tokens = os.path.join(run_dir, layout.TOKENS, layout.TOKEN_RECORD)
    # Before the first shard they may be on the way.
    if finished or there or os.path.lexists(tokens):
        _tokens(found, spec, entries if whole else [], level)
    if level == "full":
        if whole and finished:
            _derived(found)
        _notes(found)
    rows = sum(entry.rows for entry in entries)
    missing = 0 if finished else spec.n_shards - len(there)
    return Report(spec.n_shards, rows, tuple(found.items), missing, finished)


class _Findings:
    """A list of files with what is wrong with them."""

    def __init__(self, run_dir: str | Path, watch: Callable[[str], None] | None) -> None:
        self.run_dir = run_dir
        self.watch = watch
        self.items: list[tuple[str, str]] = []

    def add(self, name: str, what: str) -> None:
        self.items.append((name, what))

    @contextlib.contextmanager
    def checking(self, name: str) -> Generator[None]:
        """Makes an error of the block a finding about the file."""
        if self.watch is not None:
            self.watch(name)
        try:
            yield
        except errors.JaxlensError as error:
            path = os.path.join(os.path.realpath(self.run_dir), name)
            self.add(name, error.message.replace(path, "").strip(" :,"))


def elect(run_dir: str | Path) -> collections.Counter[str]:
    """Hashes of the specs that the records of a run and its manifest say it is of."""
    votes: collections.Counter[str] = collections.Counter()
    numbers: list[int] = []
    with contextlib.suppress(errors.JaxlensError):
        numbers = layout.shards_there(run_dir, records.MOST_SHARDS)
    for number in numbers:
        with contextlib.suppress(errors.JaxlensError):
            votes[layout.read_record(run_dir, number).spec_hash] += 1
    with contextlib.suppress(errors.JaxlensError):
        votes[layout.read_manifest(run_dir, len(numbers))[0]] += 1
    return votes


def _identity(found: _Findings) -> layout.Spec:
    """The spec; where ``RUN.json`` is damaged, what the shards tell of it."""
    votes = elect(found.run_dir)
    elected = votes.most_common(1)[0][0] if votes else ""
    with found.checking(layout.RUN):
        spec = layout.read_spec(found.run_dir)
        if votes[spec.hash] or votes.total() < 2:
            return spec
        what = f"its sha256 is {spec.hash[:8]}..., the shards belong to {elected[:8]}..."
        found.add(layout.RUN, what)
    numbers = sorted(n for name in _names(found) if (n := layout.part_number(name)) is not None)
    return layout.Spec({}, elected, numbers[-1] + 1 if numbers else 0)


def _there(found: _Findings, spec: layout.Spec, finished: bool) -> list[int]:
    """Shards to look at; of a finished run, those that are missing become findings.

    Of a run that is not finished these are the shards that are committed: a record alone is a
    shard on its way.
    """
    there: list[int] = []
    with contextlib.suppress(errors.JaxlensError):
        there = layout.shards_there(found.run_dir, spec.n_shards)
    if not finished:
        return [n for n in there if os.path.lexists(os.path.join(found.run_dir, _part(n)))]
    if spec.n_shards and not there:
        found.add(layout.SHARDS, f"holds none of {spec.n_shards} shards")
    else:
        _name_missing(found, spec.n_shards, there)
    return there


def _shards(
    found: _Findings, spec: layout.Spec, there: list[int], level: shards.Level
) -> list[records.Record]:
    """Checks shards; returns the records of those that are sound."""

    def check(shard: int) -> tuple[records.Record | None, _Findings]:
        mine = _Findings(found.run_dir, found.watch)
        with mine.checking(f"{layout.SHARDS}/{layout.sidecar_name(shard)}"):
            if half := shards.half(found.run_dir, shard):
                mine.add(
                    f"{layout.SHARDS}/{half}", "is missing, the other half of its pair is there"
                )
                return None, mine
            entry = shards.read_record(found.run_dir, shard, spec.hash)
            with mine.checking(_part(shard)):
                if level == "full":
                    _read_everything(found.run_dir, spec, entry)
                else:
                    shards.check_size(found.run_dir, entry)
                return entry, mine
        return None, mine

    entries = []
    workers = min(8, os.cpu_count() or 1) if found.watch is None else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for entry, findings in pool.map(check, there):
            found.items += findings.items
            entries += [entry] if entry else []
    return entries


def _name_missing(found: _Findings, n_shards: int, there: list[int]) -> None:
    known = set(there)
    missing = (shard for shard in range(n_shards) if shard not in known)
    for shard in itertools.islice(missing, MOST_NAMED):
        found.add(_part(shard), "is missing")
    if (more := n_shards - len(known) - MOST_NAMED) > 0:
        found.add(layout.SHARDS, f"{more} more shards are missing")


def _read_everything(run_dir: str | Path, spec: layout.Spec, entry: records.Record) -> None:
    """Reads all datasets, so that HDF5 compares their checksums, and checks the row numbers."""
    path = layout.shard_path(run_dir, entry.shard)
    with shards.open_shard(run_dir, entry) as found, reading.reading(path):
        shards.read_form(found)
        if spec.document:
            if found.attribute("format_version") != layout.format_version(spec):
                raise ValueError(f"its format is not that of {layout.RUN}")
            shards.tallies(found, spec.document)
        sizes = bounds.sizes(spec.document, entry.token_stop)
        for name, dataset in found.datasets.items():
            for start, block in reading.blocks(dataset):
                first = entry.token_start + start
                if name in schema.QUANTITIES:
                    bounds.check_rows(path, name, block, sizes)
                if name == "row" and (block != np.arange(first, first + len(block))).any():
                    raise ValueError("its rows are not those of its token range")


def _manifest(found: _Findings, spec: layout.Spec, entries: list[records.Record]) -> None:
    with found.checking(layout.MANIFEST):
        spec_hash, listed = layout.read_manifest(found.run_dir, len(entries))
        if spec_hash != spec.hash:
            found.add(layout.MANIFEST, f"belongs to another run, {spec_hash[:8]}...")
        numbers = [entry.shard for entry in listed]
        if len(numbers) != spec.n_shards or numbers != list(range(len(numbers))):
            found.add(layout.MANIFEST, "does not list every shard once, in order")
        by_number = {entry.shard: entry for entry in listed}
        for entry in entries:
            if by_number.get(entry.shard, entry) != entry:
                found.add(_part(entry.shard), f"is not what {layout.MANIFEST} lists")


def _derived(found: _Findings) -> None:
    with found.checking(layout.SHARDS):
        derived = finalize.derive(found.run_dir, hashed=False)
        for name in (layout.SUMMARY, layout.INDEX):
            with found.checking(name):
                _compare(contained.contained(found.run_dir, name), derived.files[name])


def _compare(path: Path, data: bytes | None) -> None:
    """Compares contents: another version of HDF5 may have laid the same out in other bytes."""
    if data is None:
        if os.path.lexists(path):
            raise errors.DataError("it is out of date", "jaxlens finalize rebuilds it")
        return
    if finalize.holds(path, data):
        return
    with (
        reading.open_sealed(path, virtual=True) as there,
        reading.open_image(data, virtual=True) as expected,
        reading.reading(path),
    ):
        if different := compare.same_contents(expected, there):
            raise ValueError(f"{different} is not what follows from the shards")


def _tokens(
    found: _Findings, spec: layout.Spec, entries: list[records.Record], level: shards.Level
) -> None:
    record = f"{layout.TOKENS}/{layout.TOKEN_RECORD}"
    with found.checking(record):
        tokens = layout.read_tokens(found.run_dir)
        corpus = spec.document.get("corpus")
        for name, value in vars(tokens).items():
            if isinstance(corpus, dict) and corpus.get(name, value) != value:
                found.add(record, f"{name} is not that of {layout.RUN}")
        files = {layout.TOKEN_FILE: tokens.sha256, layout.TOKEN_INDEX: tokens.index_sha256}
        for name, expected in files.items():
            with found.checking(f"{layout.TOKENS}/{name}"):
                _check_hash(layout.token_path(found.run_dir, name), expected, level)
        with found.checking(f"{layout.TOKENS}/{layout.TOKEN_FILE}"):
            size = contained.size(layout.token_path(found.run_dir))
            if size != tokens.n_tokens * np.dtype(tokens.dtype).itemsize:
                found.add(record, f"promises {tokens.n_tokens} tokens of {tokens.dtype}")
        last = entries and entries[-1].shard == spec.n_shards - 1
        if last and entries[-1].token_stop != tokens.n_tokens:
            what = f"ends at token {entries[-1].token_stop} of {tokens.n_tokens}"
            found.add(_part(entries[-1].shard), what)
        if entries and entries[0].tokens_sha256 != tokens.sha256:
            found.add(record, "is of another token file than the shards")


def _notes(found: _Findings) -> None:
    """Notes of workers; they cannot be made again, and no result depends on them."""
    names: list[str] = []
    with found.checking(layout.ENVIRONMENT):
        names = layout.notes_there(found.run_dir)
    for name in names:
        try:
            layout.read_note(found.run_dir, name)
        except errors.JaxlensError as error:
            what = error.message.partition(" is ")[2] or error.message
            what = f"is {what}; a note, no result depends on it: remove it"
            found.add(f"{layout.ENVIRONMENT}/{name}", what)


def _check_hash(path: Path, expected: str, level: shards.Level) -> None:
    with contained.opened(path) as descriptor:
        if level == "full" and contained.sha256(path, descriptor) != expected:
            raise errors.DataError(
                "its sha256 is not that recorded", "jaxlens repair recomputes it"
            )


def _foreign(found: _Findings, n_shards: int) -> None:
    for name in _names(found):
        number = layout.part_number(name)
        if number is None and not publish.is_temporary(name):
            found.add(f"{layout.SHARDS}/{name}", "is no file of a run")
        elif number is not None and number >= n_shards:
            found.add(f"{layout.SHARDS}/{name}", f"is beyond the {n_shards} shards of the plan")


def _names(found: _Findings) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(errors.JaxlensError):
        names = contained.names(contained.contained(found.run_dir, layout.SHARDS))
    return names


def _part(shard: int) -> str:
    return f"{layout.SHARDS}/{layout.shard_name(shard)}"
