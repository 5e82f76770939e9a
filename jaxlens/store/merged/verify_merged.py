"""Checking merged runs: their own files, and each run that they were made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jaxlens import errors
from jaxlens.files import contained
from jaxlens.store import findings, layout, shards, token_counts_file, verify
from jaxlens.store.hdf5 import compare
from jaxlens.store.merged import merge, merged_spec, sources


def check(
    run_dir: str | Path, level: shards.Level, watch: Callable[[str], None] | None
) -> verify.Report:
    """Checks merged runs; see ``verify.verify``.

    ``full`` also makes the files of the merged run again, and compares them.

    Args:
        run_dir: Merged run.
        level: ``fast`` or ``full``.
        watch: See ``verify.verify``.
    """
    problems = findings.Findings(run_dir, watch)
    spec, of = None, ()
    with problems.checking(layout.RUN):
        spec = layout.read_spec(run_dir)
        if not merged_spec.is_merged(spec.document):
            raise errors.DataError("it is not of merged runs", sources.HINT)
    if problems.items or spec is None:
        return verify.Report(0, 0, tuple(problems.items))
    with problems.checking(sources.SOURCES):
        of = sources.read(run_dir, spec)
    for source in of:
        _check_source(problems, source, level)
    with problems.checking(layout.TOKEN_COUNTS):
        read = token_counts_file.read if level == "full" else None
        token_counts_file.FILE.check(run_dir, spec.document, read)
    with problems.checking(layout.SUMMARY):
        contained.size(contained.contained(run_dir, layout.SUMMARY))
    if level == "full" and not problems.items:
        _check_files(problems)
    rows = sum(source.n_rows for source in of)
    return verify.Report(spec.n_shards, rows, tuple(problems.items))


def _check_source(problems: findings.Findings, source: sources.Source, level: shards.Level) -> None:
    with problems.checking(source.path):
        folder = sources.require_same(problems.run_dir, source)
        if os.path.lexists(folder / sources.SOURCES):
            raise errors.DataError("it holds merged runs itself", sources.HINT)
        found = verify.verify(folder, level, problems.watch)
        for name, what in found.damaged:
            problems.add(f"{source.path}/{name}", what)


def _check_files(problems: findings.Findings) -> None:
    """Compares the files of merged runs, of which all are sound, with what follows from them."""
    with problems.checking(sources.SOURCES):
        files = merge.files_of(problems.run_dir)
        for name, data in files.items():
            with problems.checking(name):
                path = contained.contained(problems.run_dir, name)
                if name == layout.SUMMARY:
                    compare.require_same(path, data)
                elif contained.read(path, len(data)) != data:
                    raise errors.DataError("it is not what follows from the runs", sources.HINT)
