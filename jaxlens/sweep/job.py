"""A configuration made concrete: model, token file, plan and spec of one sweep."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlens import config as configs
from jaxlens import designs, errors, schema, types
from jaxlens.corpus import ingest, step_inputs, token_file, token_folder
from jaxlens.corpus import plan as plans
from jaxlens.files import scratch as scratches
from jaxlens.lens import identity, numerics, unembedding
from jaxlens.models import loading, tokenizer
from jaxlens.models.checkpoints import checkpoint as weights
from jaxlens.store import layout, run_directory, shards
from jaxlens.sweep import (
    batch_size,
    cache,
    compilation_cache,
    devices,
    nulls,
    resolve,
    temperatures,
    tune,
)
from jaxlens.sweep import step as steps
from jaxlens.tally import bins, sampling, update

RUNS = Path("runs")
"""Where runs go that are given no folder."""


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a sweep needs.

    Attributes:
        config: Where it came from.
        out: Run directory.
        model: On the device.
        unembed: Decoder and head.
        table: The unembedding in tiles; None for the reference lens.
        ingested: Token file.
        plan: Windows, steps and shards.
        words: See ``vocabulary.word_tables``.
        static: What the step closes over.
        spec: What decides the result.
        spec_bytes: The same, canonical JSON.
        spec_hash: Its sha256.
        programs: See ``executables.keep``.
    """

    config: configs.RunConfig
    out: Path
    model: loading.Model
    unembed: types.Unembed
    table: unembedding.Table | None
    ingested: token_folder.Ingested
    plan: plans.Plan
    words: tuple[np.ndarray, np.ndarray]
    static: steps.Static
    spec: dict[str, Any]
    spec_bytes: bytes
    spec_hash: str
    programs: Path | None = None

    def batch(
        self, step: int, tokens: token_file.TokenFile
    ) -> tuple[types.Step, dict[str, np.ndarray]]:
        """A step's input, and the token columns of its rows."""
        return step_inputs.batch(self.plan, step, tokens, self.words, self.config.seed)

    def lookup(self) -> update.Tables:
        """Tables of the tallies."""
        index = self.ingested.index
        counts = index.token_counts if self.static.tallies == "study" else None
        return update.tables(index.vocab_size, counts)

    def tally_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Token columns that the tallies need, padded to the capacity of a step."""
        if self.static.tallies != "study":
            return {}
        digest = self.ingested.index.document_hash[columns["document"]]
        found = {name: columns[name] for name in schema.COLUMNS if name != "token"}
        found = {name: column.astype(np.int32) for name, column in found.items()}
        found["group"] = bins.group_of(digest)
        found["key"] = sampling.key_of(digest, columns["offset"])
        missing = self.plan.capacity - len(digest)
        return {name: np.pad(column, (0, missing)) for name, column in found.items()}

    def tally_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of `tally_columns`."""
        none = {name: np.zeros(0, np.int64) for name in schema.COLUMNS}
        columns = self.tally_columns(none | {"document": np.zeros(0, np.uint32)})
        return {
            n: jax.ShapeDtypeStruct(column.shape, column.dtype) for n, column in columns.items()
        }


def prepare(
    config: configs.RunConfig,
    scratch: Path,
    apart: bool = False,
    ingested: token_folder.Ingested | None = None,
) -> Job:
    """Loads the model, tokenises the corpus if that is not done, and fixes the spec.

    Args:
        config: From ``config.load``.
        scratch: Temporary folder, for a token file that may not replace the run's.
        apart: Whether to touch nothing but the scratch folder.
        ingested: The token file, where it is not to be looked for.

    Raises:
        JaxlensError: See ``errors``; nothing but the token file has been written then.
    """
    numerics.require_compilation()
    devices.offer_cores()
    numerics.require_precision(config.lens.precision)
    if config.out is not None:
        run_directory.refuse_other_files(config.out)
    cached = cache.folder(config.cache)
    programs = compilation_cache.keep(cached)
    checkpoint = nulls.checkpoint(config)
    architecture = checkpoint.architecture
    begun = _begun(config.out)
    if config.out is not None and begun is not None:
        run_directory.require_same_model(config.out, begun, _model_spec(config, architecture))
    resolve.settle(config, architecture, begun)  # refuses before the weights move
    model = loading.from_checkpoint(checkpoint, config.model.dtype)
    if config.lens.tune and begun is None and config.lens.implementation == "tiled":
        config = tune.tune(config, architecture, model.params, cached)
    config = batch_size.fit(config, architecture, model.params, begun)
    if ingested is None:
        ingested = _ingest(config, model, scratch, apart)
    config = _tempered(config, model, ingested)
    words = tokenizer.word_tables(tokenizer.strings(model.tokenizer, architecture.vocab_size))
    job = assemble(config, checkpoint, model, ingested, words, _version(begun, config.out))
    return dataclasses.replace(job, programs=programs)


def assemble(
    config: configs.RunConfig,
    checkpoint: weights.Checkpoint,
    model: loading.Model,
    ingested: token_folder.Ingested,
    words: tuple[np.ndarray, np.ndarray],
    version: int = schema.FORMAT_VERSION,
) -> Job:
    """Fixes the plan and the spec of a model and a token file.

    Args:
        config: Settled, see ``settle``.
        checkpoint: The model's origin.
        model: On the device.
        ingested: Token file.
        words: See ``vocabulary.word_tables``.
        version: Of the format; a run that has begun keeps its own.

    Raises:
        ConfigError: The plan makes no sense.
    """
    architecture = checkpoint.architecture
    plan = _plan(config, ingested)
    static = steps.static(config, architecture)
    spec = _spec(config, checkpoint, model, ingested, plan, static)
    spec["format_version"] = version
    spec_bytes = configs.canonical(spec)
    spec_hash = configs.spec_hash(spec_bytes)
    unembed = steps.unembed(config, architecture, model.params)
    return Job(
        config=config,
        out=RUNS / spec_hash[:8] if config.out is None else Path(config.out),
        model=model,
        unembed=unembed,
        table=static.prepare(unembed),
        ingested=ingested,
        plan=plan,
        words=words,
        static=static,
        spec=spec,
        spec_bytes=spec_bytes,
        spec_hash=spec_hash,
    )


def _tempered(
    config: configs.RunConfig, model: loading.Model, ingested: token_folder.Ingested
) -> configs.RunConfig:
    """The configuration with the temperatures that the run has, or is to have."""
    if config.lens.temperatures is not None:
        return config
    with ingested.open() as tokens:
        found = temperatures.fit(config, model, tokens)
    lens = dataclasses.replace(config.lens, temperatures=found)
    return dataclasses.replace(config, lens=lens)


def ingest_only(config: configs.RunConfig) -> token_folder.Ingested:
    """The token file of a run, and nothing else.

    Raises:
        JaxlensError: See ``errors``.
    """
    checkpoint = loading.load_checkpoint(config.model.path, config.model.revision)
    with scratches.folder() as scratch:
        found = _ingest(config, loading.from_checkpoint(checkpoint), scratch, apart=False)
        if found.directory == scratch:
            raise errors.ConfigError(
                f"{config.out} is of another run: its corpus differs", "use another --out"
            )
    return found


def gate(job: Job, tokens: token_file.TokenFile) -> float:
    """The identity gate on the corpus' own first tokens; the measured difference in nats."""
    length = min(identity.TOKENS, job.plan.length, tokens.index.n_tokens)
    lines = max(1, min(identity.TOKENS, tokens.index.n_tokens) // length)
    sample = tokens.read(0, lines * length).astype(np.int32).reshape(lines, length)
    return loading.check_identity(
        job.model,
        sample,
        implementation=job.static.implementation,
        decoder=job.config.lens.decoder,
        request=job.static.request,
        table=job.table,
    )


def _ingest(
    config: configs.RunConfig, model: loading.Model, scratch: Path, apart: bool
) -> token_folder.Ingested:
    if model.tokenizer is None:
        raise errors.MissingError(
            f"{config.model.path} has no tokenizer", "put its tokenizer.json beside the weights"
        )
    bos_id = None
    if config.corpus.bos == "start":
        bos_id = model.config.bos_token_id
        if bos_id is None:
            raise errors.ConfigError("the model has no BOS token", "use corpus.bos: none")
    vocab_size, digest = model.config.vocab_size, tokenizer.tokenizer_digest(model.tokenizer)
    asked = nulls.of_corpus(config, model, bos_id)
    wanted = ingest.fingerprint(config.corpus, digest, vocab_size, bos_id, asked)
    folder = _token_folder(config, wanted, scratch, apart)
    return ingest.ingest(config.corpus, model.tokenizer, vocab_size, bos_id, folder, wanted, asked)


def _begun(out: str | None) -> dict[str, Any] | None:
    """The spec of the run that has begun there; a damaged one is named later."""
    if out is not None:
        with contextlib.suppress(errors.MissingError, errors.DataError):
            return layout.read_spec(out).document
    return None


def _version(begun: Mapping[str, Any] | None, out: str | None) -> int:
    """The format of a run: the one it began with, if that is known here."""
    found = (begun or {}).get("format_version")
    if begun is None and out is not None:  # perhaps it has lost its spec, but not its shards
        found = shards.stored_format(out)
    return found if type(found) is int and found in schema.FORMATS else schema.FORMAT_VERSION


def _token_folder(config: configs.RunConfig, wanted: str, scratch: Path, apart: bool) -> Path:
    """Where the token file is, or is to be made.

    A run that has begun keeps the tokens it has: others are made apart, and reach it only once
    the spec, which names their hash, has been found to be the same.
    """
    if config.out is None:
        # A run without a name gets one from its spec, which needs the tokens first.
        return scratch if apart else RUNS / ".tokens" / wanted[:16]
    own = Path(config.out) / layout.TOKENS
    if token_folder.find(own, wanted) is not None:
        return own
    begun = (Path(config.out) / layout.RUN).exists()
    return scratch if apart or begun else own


def _plan(config: configs.RunConfig, ingested: token_folder.Ingested) -> plans.Plan:
    return plans.build(
        ingested.index.document_start,
        length=config.plan.length,  # type: ignore[arg-type]
        overlap=config.plan.overlap,
        step_sequences=config.plan.step_sequences,  # type: ignore[arg-type]
        shard_tokens=config.store.shard_tokens,  # type: ignore[arg-type]
    )


def _spec(
    config: configs.RunConfig,
    checkpoint: weights.Checkpoint,
    model: loading.Model,
    ingested: token_folder.Ingested,
    plan: plans.Plan,
    static: steps.Static,
) -> dict[str, Any]:
    """What decides the result, and nothing else: no path, device, version, host or time."""
    return {
        "model": {
            "sha256": weights.digest(checkpoint.params),
            **_model_spec(config, checkpoint.architecture),
        },
        "tokenizer": {"sha256": _tokenizer_digest(model)},
        "corpus": {
            "kind": designs.kind(config.corpus.paths),
            "sha256": ingested.record.sha256,
            "index_sha256": ingested.record.index_sha256,
            "n_tokens": ingested.index.n_tokens,
            "n_documents": ingested.index.n_documents,
            "skipped": ingested.skipped,
            "bos": config.corpus.bos,
            # A spec without kept fields has the bytes that it had before there were any.
            **({"keep": list(config.corpus.keep)} if config.corpus.keep else {}),
        },
        "plan": {
            "length": plan.length,
            "overlap": plan.overlap,
            "step_sequences": plan.step_sequences,
            "steps_per_shard": plan.steps_per_shard,
            "n_steps": plan.n_steps,
            "n_shards": plan.n_shards,
        },
        "lens": {k: v for k, v in dataclasses.asdict(config.lens).items() if k != "tune"},
        "quantities": list(static.request.quantities),
        "store": dataclasses.asdict(config.store),
        "seed": config.seed,
        "null": nulls.record(config),
    }


def _model_spec(config: configs.RunConfig, architecture: types.Architecture) -> dict[str, Any]:
    """What the spec says of a model beside the hash of its weights."""
    return {"dtype": config.model.dtype, "architecture": dataclasses.asdict(architecture)}


def _tokenizer_digest(model: loading.Model) -> str | None:
    return None if model.tokenizer is None else tokenizer.tokenizer_digest(model.tokenizer)
