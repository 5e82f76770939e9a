"""An order for an export: what was asked for, checked, and carried out."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxlens import errors
from jaxlens.export import selection
from jaxlens.files import publish, system, temporary
from jaxlens.store import reader, single

if TYPE_CHECKING:
    from jaxlens.export import tables

logger = logging.getLogger("jaxlens")

_SUFFIXES = {"parquet": (".parquet",), "csv": (".csv", ".csv.gz"), "hdf5": (".h5", ".hdf5")}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to export.

    Attributes:
        to: ``parquet``, ``csv`` or ``hdf5``.
        out: File to create, for tallies the folder; beside the run by default.
        layout: ``wide`` or ``long``; wide by default, and not for HDF5.
        quantities: Quantities; all by default.
        layers: Numbers or names of layers; all by default.
        start: First row.
        stop: End of the rows, exclusive.
        tallies: Whether to export the totals instead of the rows.
    """

    to: Literal["parquet", "csv", "hdf5"]
    out: Path | None = None
    layout: selection.Layout | None = None
    quantities: Sequence[str] | None = None
    layers: Sequence[str] | None = None
    start: int | None = None
    stop: int | None = None
    tallies: bool = False


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: File.
        records: Its records.
        columns: Columns of each.
        size: Bytes.
    """

    path: Path
    records: int
    columns: int
    size: int


def export(run_dir: str | Path, order: Order, disk: system.Disk = system.DISK) -> list[Exported]:
    """Writes rows or totals of a run into files of other formats, in bounded memory.

    Raises:
        ConfigError: The order makes no sense, or the target exists.
        MissingError: The run, or a package, is not there.
        DataError: The run is damaged; nothing is left behind.
        StorageError: The target cannot be written; nothing is left behind.
    """
    _check(order)
    with reader.open_run(run_dir) as run:
        target = _target(run_dir, order)
        temporary.remove_leftovers(target.parent, disk)
        if order.tallies:
            return _export_tallies(run, order, target, disk)
        return [_export_rows(run, order, target, disk)]


def ending(to: Literal["parquet", "csv", "hdf5"], tallies: bool) -> str:
    """What the name of an export ends in by default, after that of the run."""
    return "-tallies" if tallies else _SUFFIXES[to][0]


def _export_rows(run: reader.Run, order: Order, target: Path, disk: system.Disk) -> Exported:
    texts = order.to != "hdf5" and run.n_rows > 0 and _has_texts(run)
    selected = selection.select(
        run,
        order.quantities,
        order.layers,
        order.start or 0,
        order.stop,
        order.layout or "wide",
        texts,
    )
    if order.to == "hdf5":
        rows = (selected.names, selected.layers, selected.start, selected.stop)
        size = single.write(run, target, *rows, disk)
        return Exported(target, selected.stop - selected.start, len(selected.names), size)
    _require_arrow()
    from jaxlens.export import formats, tables

    words = _words(run, order) if selected.texts else None
    about = {"spec_hash": run.spec_hash, "layout": selected.layout}
    form = tables.arrow_schema(selection.fields(run, selected), about)
    pieces = tables.tables(run, selected, form, words)
    records, size = formats.write(target, order.to, form, pieces, disk)
    return Exported(target, records, len(form), size)


def _export_tallies(
    run: reader.Run, order: Order, target: Path, disk: system.Disk
) -> list[Exported]:
    """One table a tally, in a folder of their own."""
    assert order.to != "hdf5"
    _require_arrow()
    from jaxlens.export import formats, tallies

    words = _words(run, order) if _has_texts(run) else None
    done: list[Exported] = []
    with _folder(target, done, disk):
        for name in sorted(run.tally):
            path = target / f"{name}.{order.to}"
            form = tallies.form(run, name, words)
            cells = tallies.cells(run, name, words, form)
            records, size = formats.write(path, order.to, form, cells, disk)
            done.append(Exported(path, records, len(form), size))
    return done


@contextlib.contextmanager
def _folder(target: Path, done: list[Exported], disk: system.Disk) -> Generator[None]:
    """A new folder, which goes again if not all of its files could be written."""
    publish.make_directory(target, disk)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, errors.StorageError):
            for file in done:
                publish.remove(file.path, disk)
            os.rmdir(target)
        raise


def _check(order: Order) -> None:
    """Refuses what contradicts itself."""
    wanted = (order.quantities, order.layers, order.start, order.stop, order.layout)
    if order.tallies and any(part is not None for part in wanted):
        raise errors.ConfigError(
            "--tallies exports totals, which have no such choice of rows",
            "leave out --quantities, --layers, --start, --stop and --layout",
        )
    if order.tallies and order.to == "hdf5":
        raise errors.ConfigError(
            "the run has its totals in HDF5 already", "open its summary.h5, group tally"
        )
    if order.to == "hdf5" and order.layout is not None:
        raise errors.ConfigError(
            "HDF5 keeps the axes of the rows and has no layout", "leave out --layout"
        )


def _target(run_dir: str | Path, order: Order) -> Path:
    """Where to write; beside the run by default, never inside it."""
    run = Path(os.path.realpath(run_dir))
    suffixes = _SUFFIXES[order.to]
    named = run.with_name(run.name + ending(order.to, order.tallies))
    target = named if order.out is None else order.out
    if Path(os.path.realpath(target)).is_relative_to(run):
        raise errors.ConfigError(
            f"{target} is inside the run", "write to a path outside of the run directory"
        )
    if not order.tallies and not target.name.endswith(suffixes):
        raise errors.ConfigError(
            f"{target} does not name a file for {order.to}",
            f"let it end in {' or '.join(suffixes)}",
        )
    if os.path.lexists(target):
        raise errors.ConfigError(f"{target} exists", "remove it, or name another --out")
    return target


def _has_texts(run: reader.Run) -> bool:
    try:
        return bool(len(run.corpus.token_strings))
    except errors.MissingError as error:
        logger.warning("no document_id and token_string: %s", error.message)
        return False


def _words(run: reader.Run, order: Order) -> tables.Texts:
    from jaxlens.export import tables

    return tables.texts(run, spreadsheet=order.to == "csv")


def _require_arrow() -> None:
    errors.require_package("pyarrow", "study", "exports to Parquet and CSV")
