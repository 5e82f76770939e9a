"""From a run, or from a checkpoint and a corpus, to what an ablation computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.config import RunConfig
from jaxlens.corpus import token_folder
from jaxlens.lens import numerics
from jaxlens.models import loading, tokenizer
from jaxlens.store import ablation_file, layout
from jaxlens.sweep import (
    batch_size,
    cache,
    compilation_cache,
    devices,
    nulls,
    prepare,
    reopen,
    resolve,
    tokens,
)
from jaxlens.sweep.job import Job


def of_run(run_dir: str | Path, config: RunConfig, temporary: Path) -> Job:
    """The job of a run, whose model and tokens are checked to be those that it began with.

    Args:
        run_dir: Run; its spec decides what is computed.
        config: Where the model is, and on which devices to compute.
        temporary: Folder for temporary files.

    Raises:
        ConfigError: The model is not that of the run.
        DataError: The token file of the run is missing or damaged.
    """
    begun = layout.read_spec(run_dir)
    ingested = token_folder.find_whole(Path(run_dir) / layout.TOKENS, begun.document)
    if ingested is None:
        raise errors.DataError(
            f"{run_dir}: its token file is missing or damaged", "jaxlens repair makes it again"
        )
    return reopen.reopen(run_dir, begun, config, temporary, ingested, "ablate", read_only=True)


def of_checkpoint(config: RunConfig, temporary: Path) -> Job:
    """The job of a checkpoint over a corpus; its token file is made in the folder of the ablation.

    Args:
        config: Model, corpus, and as ``out`` the folder.
        temporary: Folder for a token file that may not replace that of another ablation.

    Raises:
        JaxlensError: See ``errors``.
    """
    assert config.out is not None
    folder = Path(config.out)
    if (folder / layout.RUN).exists():
        raise errors.ConfigError(
            f"{folder} is a run", f"jaxlens ablate {folder} ablates its model over its corpus"
        )
    numerics.require_compilation()
    devices.offer_cores()
    numerics.require_precision(config.lens.precision)
    compilation_cache.enable(cache.folder(config.cache))
    checkpoint = nulls.checkpoint(config)
    resolved = resolve.resolve(config, checkpoint.architecture, None)
    model = loading.from_checkpoint(checkpoint, config.model.dtype)
    resolved = batch_size.fit_batch_to_memory(resolved, model.params)
    has_begun = (folder / ablation_file.SPEC).exists()
    ingested = tokens.read_or_make(config, model, temporary, read_only=has_begun)
    words = tokenizer.word_tables(
        tokenizer.strings(model.tokenizer, checkpoint.architecture.vocab_size)
    )
    return prepare.assemble(resolved, checkpoint, model, ingested, words)


def document(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """The spec of an ablation: what decides its numbers, and no path, device or batch.

    Args:
        job: Model, tokens and plan.
        settings: Of the ablation.
    """
    lens = job.spec["lens"]
    return {
        "format_version": ablation_file.VERSION,
        **{name: job.spec[name] for name in ("model", "tokenizer", "corpus", "null")},
        "plan": {name: job.spec["plan"][name] for name in ("length", "overlap")},
        "lens": {name: lens[name] for name in ("precision", "residuals")},
        "ablation": settings,
    }
