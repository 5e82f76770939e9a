"""Where the numbers of a report come from: the run, its data, and how to make it again.

The spec was checked when the run was opened. Notes of the environment were checked by nobody: what
is not of the expected kind is left out.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlens import __version__
from jaxlens.store import reader, summary, worker_notes
from jaxlens.store.merged import merged_run, merged_spec, sources
from jaxlens.study import inputs
from jaxlens.study.report import commands, measured
from jaxlens.view import printable


@dataclass(frozen=True)
class Facts:
    """What a report says beside its figures; every value is text.

    Attributes:
        name: Of the run's folder.
        model: Short name of the model.
        corpus: Short name of the corpus.
        n_tokens: Tokens of the run.
        decoder: Of the lens.
        about: What the run is of, for its first lines: pairs of what and value.
        provenance: Pairs of what and value.
        quality: Pairs of what and value.
        settings: Of the run, as a note has them; empty where there is none.
        commands: That make it, with its probe and its ablation, in their order.
        run_hash: The sha256 of its spec.
    """

    name: str
    model: str
    corpus: str
    n_tokens: int
    decoder: str
    about: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    quality: tuple[tuple[str, str], ...]
    settings: Mapping[str, Any]
    commands: tuple[str, ...]
    run_hash: str

    @property
    def of(self) -> str:
        """What figures are of, in a line."""
        return (
            f"model: {self.model}; text: {self.corpus}; {self.n_tokens:,} tokens; "
            f"decoder {self.decoder}"
        )

    def apart_from(self, other: Facts) -> tuple[tuple[str, str], ...]:
        """The provenance where it is not that of another run."""
        return tuple(pair for pair in self.provenance if pair not in other.provenance)


def gather(run_dir: str | Path, made: inputs.RunInfo | None = None) -> Facts:
    """Reads the facts of a run.

    Args:
        run_dir: Run directory.
        made: The run as the study knows it, where there is a study.

    Raises:
        MissingError: There is no run, or it is not finished.
        DataError: It is damaged.
    """
    with reader.open_run(run_dir) as run:
        notes = worker_notes.read(run_dir)
        found = measured.read(run)
        settings = next((n["settings"] for n in notes if isinstance(n.get("settings"), dict)), {})
        return Facts(
            name=printable.line(os.path.basename(os.path.realpath(run_dir))),
            model=printable.line(_model(run.spec, settings)),
            corpus=printable.line(_corpus(run.spec, settings)),
            n_tokens=run.n_tokens,
            decoder=printable.line(str(run.spec["lens"]["decoder"])),
            about=_seen(_about(run, settings)),
            provenance=_seen(_provenance(run, settings, notes, found)),
            quality=_seen(_quality(run, notes, made)),
            settings=settings,
            commands=_merging(run) or commands.of_run(run_dir, settings, found),
            run_hash=run.spec_hash,
        )


def _seen(pairs: Iterator[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((what, printable.line(value)) for what, value in pairs)


def _model(spec: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    path = _at(settings, "model", "path", str)
    named = Path(path).name if path else "model"
    return f"{named} ({spec['model']['sha256'][:8]})"


def _corpus(spec: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    paths = [p for p in _at(settings, "corpus", "paths", list) or () if isinstance(p, str)]
    named = Path(paths[0]).name if paths else "corpus"
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{named}{more} ({spec['corpus']['sha256'][:8]})"


def _about(run: reader.Run, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    spec = run.spec
    shape, corpus, lens = spec["model"]["architecture"], spec["corpus"], spec["lens"]
    yield (
        "model",
        f"{_model(spec, settings)}: {shape['n_layer']} blocks, width {shape['n_embd']}, "
        f"{shape['vocab_size']:,} tokens in the vocabulary",
    )
    yield (
        "text",
        f"{_corpus(spec, settings)}: {run.n_tokens:,} tokens of {corpus['n_documents']:,} "
        f"document{'s' if corpus['n_documents'] != 1 else ''}",
    )
    yield "lens", f"decoder {lens['decoder']}, at the input and after each of the blocks"


def _provenance(
    run: reader.Run,
    settings: Mapping[str, Any],
    notes: Sequence[Mapping[str, Any]],
    found: measured.Measured,
) -> Iterator[tuple[str, str]]:
    spec = run.spec
    model, lens, plan, corpus = (spec[part] for part in ("model", "lens", "plan", "corpus"))
    shape = model["architecture"]
    heads = f"{shape['n_head']} heads, " if "n_head" in shape else ""
    yield "run", f"sha256 {run.spec_hash}"
    if hashes := merged_spec.runs(spec):
        yield "merged of", f"{len(hashes):,} runs, sha256 {', '.join(hashes)}"
    named = _at(settings, "model", "path", str)
    yield "model", f"{named + ', ' if named else ''}sha256 {model['sha256']}"
    yield (
        "sizes",
        f"{shape['n_layer']} blocks, {heads}width {shape['n_embd']}, "
        f"{shape['vocab_size']:,} tokens, {shape['n_positions']:,} positions",
    )
    yield "tokenizer", f"sha256 {spec['tokenizer']['sha256']}"
    paths = [p for p in _at(settings, "corpus", "paths", list) or () if isinstance(p, str)]
    yield "corpus", f"{', '.join(paths) + ', ' if paths else ''}sha256 {corpus['sha256']}"
    yield "context", f"{plan['length']:,} tokens, overlap {plan['overlap']}, BOS {corpus['bos']}"
    yield (
        "lens",
        f"decoder {lens['decoder']}, {lens['implementation']}, operands {lens['precision']}, "
        f"weights {model['dtype']}",
    )
    if lens.get("temperatures"):
        yield "matched temperatures", ", ".join(f"{t:g}" for t in lens["temperatures"])
    yield "seed", str(spec["seed"])
    yield from measured.provenance(found)
    yield from _machines(notes)
    yield "report", f"jaxlens {__version__}"


def _machines(notes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Where it was computed, a line for each kind of machine."""
    lines = []
    for note in notes:
        packages = _at(note, "environment", "packages", dict) or {}
        versions = [f"{name} {packages[name]}" for name in ("jaxlens-logitlens", "jax", "h5py")
                    if isinstance(packages.get(name), str)]  # fmt: skip
        words = [_at(note, "environment", name, str) for name in ("processor", "backend", "system")]
        words += [", ".join(versions), _at(note, "environment", "time", str)]
        lines.append("; ".join(word for word in words if word))
    for line in dict.fromkeys(filter(None, lines)):
        yield "computed on", line


def _quality(
    run: reader.Run, notes: Sequence[Mapping[str, Any]], made: inputs.RunInfo | None
) -> Iterator[tuple[str, str]]:
    spec = run.spec
    corpus, plan = spec["corpus"], spec["plan"]
    yield "tokens", f"{run.n_tokens:,} of {corpus['n_documents']:,} documents, each exactly once"
    skipped = corpus.get("skipped") or {}
    words = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()))
    yield "skipped documents or lines", words or "none"
    computed = plan["n_steps"] * plan["step_sequences"] * plan["length"]
    if not plan["overlap"] and computed:
        yield "padding", f"{1 - run.n_tokens / computed:.1%} of the computed positions"
    if isinstance(made, inputs.Inputs):
        counted = int(made.group_rows.sum())
        yield (
            "positions of the study",
            f"{counted:,}, {counted / max(run.n_tokens, 1):.2%} of the tokens; the first of each "
            "context is left out",
        )
        yield "groups of documents", f"{int(np.count_nonzero(made.group_rows)):,} hold any"
    yield "rows", f"{run.n_rows:,} stored" if run.n_rows else "none stored, totals only"
    yield "clipped in sums", summary.clipped(run.tally)
    shards = f"records and sizes of {plan['n_shards']:,} shards, "
    yield (
        "checked",
        f"spec, {'' if merged_spec.is_merged(spec) else shards}sha256 of the totals; "
        "jaxlens verify checks every byte",
    )
    gates = [g for note in notes if (g := _at(note, "measured", "identity_gate_nat", float))]
    if gates:
        yield "last layer against the model", f"{max(gates):.2g} nat apart at most"


def _merging(run: reader.Run) -> tuple[str, ...]:
    """The command that merged runs; nothing of a run that was swept."""
    if not isinstance(run, merged_run.MergedRun):
        return ()
    folders = [sources.directory(run.path, source) for source in run.sources]
    words = ["jaxlens", "merge", *map(str, (run.path, *folders))]
    return (printable.line(shlex.join(words)),)


def _at(note: Mapping[str, Any], section: str, key: str, kind: type) -> Any:
    """A value of a note, or None where it is not of its kind."""
    part = note.get(section)
    value = part.get(key) if isinstance(part, Mapping) else None
    return value if isinstance(value, kind) else None
