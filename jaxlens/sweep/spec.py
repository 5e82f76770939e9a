"""The spec of a run: what decides its result, and no path, device, version, host or time."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlens import config as run_config
from jaxlens import designs, errors, schema, types
from jaxlens.config import RunConfig
from jaxlens.corpus import plan, token_folder
from jaxlens.models import loading, tokenizer
from jaxlens.models.checkpoints.checkpoint import Checkpoint
from jaxlens.store import layout, shards
from jaxlens.sweep import nulls, resolve, step


def build(
    resolved: resolve.Resolved,
    checkpoint: Checkpoint,
    model: loading.Model,
    ingested: token_folder.Ingested,
    plan: plan.Plan,
    config: step.StepConfig,
    version: int,
) -> dict[str, Any]:
    """The spec as JSON values.

    Args:
        resolved: The configuration, its temperatures fitted.
        checkpoint: The model's origin.
        model: With its tokenizer.
        ingested: Token file.
        plan: Of the token file.
        config: Of a step.
        version: Of the format.
    """
    settings = resolved.config
    return {
        "format_version": version,
        "model": {
            "sha256": checkpoint.sha256,
            **of_model(settings, checkpoint.architecture),
        },
        "tokenizer": {"sha256": _tokenizer_digest(model)},
        "corpus": {
            "kind": designs.kind(settings.corpus.paths),
            "sha256": ingested.record.sha256,
            "index_sha256": ingested.record.index_sha256,
            "n_tokens": ingested.index.n_tokens,
            "n_documents": ingested.index.n_documents,
            "skipped": ingested.skipped,
            "bos": settings.corpus.bos,
            # A spec without kept fields has the bytes that it had before there were any.
            **({"keep": list(settings.corpus.keep)} if settings.corpus.keep else {}),
        },
        "plan": {
            "length": plan.length,
            "overlap": plan.overlap,
            "step_sequences": plan.step_sequences,
            "steps_per_shard": plan.steps_per_shard,
            "n_steps": plan.n_steps,
            "n_shards": plan.n_shards,
        },
        "lens": dataclasses.asdict(settings.lens),
        "quantities": list(config.request.quantities),
        "store": dataclasses.asdict(settings.store),
        "seed": settings.seed,
        "null": nulls.record(settings),
        # A spec of one device has the bytes that it had before several could share a model.
        **({"mesh": {"model": count}} if (count := settings.mesh.model or 1) > 1 else {}),
    }


def of_model(config: RunConfig, architecture: types.Architecture) -> dict[str, Any]:
    """What the spec says of a model beside the hash of its weights."""
    return {"dtype": config.model.dtype, "architecture": architecture.spec()}


def read_existing(out: str | None) -> dict[str, Any] | None:
    """The spec of the run that has begun there; None where there is none, or a damaged one.

    A damaged spec is reported later, when the run's own is compared with it.
    """
    if out is not None:
        with contextlib.suppress(errors.MissingError, errors.DataError):
            return layout.read_spec(out).document
    return None


def format_version(existing_spec: Mapping[str, Any] | None, out: str | None) -> int:
    """The format of a run: the one it began with, if that is known."""
    recorded = (existing_spec or {}).get("format_version")
    if existing_spec is None and out is not None:  # it may have lost its spec, not its shards
        recorded = shards.stored_format(out)
    # A damaged spec may hold true, or 3.0.
    known = [version for version in schema.FORMATS if type(recorded) is int and recorded == version]
    return known[0] if known else schema.FORMAT_VERSION


def restore_config(spec: Mapping[str, Any], config: RunConfig, run_dir: str | Path) -> RunConfig:
    """The configuration of a run.

    Args:
        spec: Of the run; it decides what is computed.
        config: Where model and corpus are, and on which devices to compute.
        run_dir: Run.

    Raises:
        DataError: The spec is of another version, or damaged.
    """
    try:
        keep = tuple(spec["corpus"].get("keep", ()))
        corpus = dataclasses.replace(config.corpus, bos=spec["corpus"]["bos"], keep=keep)
        if (kind := spec["corpus"]["kind"]) in designs.CORPORA:  # it needs no place
            corpus = dataclasses.replace(corpus, paths=(kind,))
        if (null := spec["null"]["kind"]) not in typing.get_args(run_config.Null):
            raise KeyError(f"null {null!r:.40}")
        configured = RunConfig(
            model=dataclasses.replace(config.model, dtype=spec["model"]["dtype"]),
            corpus=corpus,
            plan=run_config.PlanConfig(
                **{k: spec["plan"][k] for k in ("length", "overlap", "step_sequences")}
            ),
            # The temperatures are those that the run began with; another model has others.
            lens=run_config.LensConfig(
                **{k: v for k, v in spec["lens"].items() if k != "temperatures"}
            ),
            store=run_config.StoreConfig(**_tupled(spec["store"])),
            mesh=run_config.MeshConfig(spec.get("mesh", {"model": 1})["model"]),
            out=str(run_dir),
            seed=spec["seed"],
            null=null,
            devices=config.devices,
            cache=config.cache,
        )
        run_config.require_types(configured)
        return configured
    except (KeyError, TypeError, errors.ConfigError) as error:
        raise errors.DataError(
            f"{run_dir}: {layout.RUN} is of another version, or damaged: {error}",
            "use the version of jaxlens that made it",
        ) from error


def _tupled(section: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}


def _tokenizer_digest(model: loading.Model) -> str | None:
    return None if model.tokenizer is None else tokenizer.tokenizer_digest(model.tokenizer)
