"""Commands of a run: run, tokenize, verify, repair, finalize; heavy imports inside each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from jaxlens import config_values, errors
from jaxlens.cli import options, progress, run_output, terminal
from jaxlens.config import Lens, Null, Tallies
from jaxlens.store.objects import urls
from jaxlens.sweep import preemption


def run(
    *,
    config: options.Files = (),
    model: str | None = None,
    corpus: options.Paths = None,
    out: str | None = None,
    limit: str | None = None,
    rows: Literal["none", "core", "full"] | None = None,
    tallies: Tallies | None = None,
    lens: Lens | None = None,
    shard: str | None = None,
    distributed: Literal["ray"] | None = None,
    workers: str | None = None,
    address: str | None = None,
    null: Null | None = None,
    seed: int | None = None,
    token_counts: options.Paths = None,
    type_means: Path | None = None,
    strict: bool | None = None,
    settings: options.Settings = (),
    dry_run: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Sweep a corpus into a run directory; the same command again resumes.

    Without arguments, the packaged model reads the prose of Python's own help.

    Args:
        config: YAML file; may be repeated, the last wins.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M).
        corpus: Files, directories or globs: .txt, .jsonl, .ndjson, .json, .csv, .tsv, .tar (each
            also .gz, .bz2, .zst), .tgz, .parquet, .arrow; or twins:repeats, twins:plasma or
            prompts:curated (generated corpora).
        out: Run directory, or s3://BUCKET/FOLDER or gs://BUCKET/FOLDER; runs/<first 8 digits of
            the spec's hash> by default.
        limit: Tokens to read, for instance 10M.
        rows: Columns to store: core, full, or none (tallies only).
        tallies: Totals to keep: basic, or study, which answers its questions without rows.
        lens: Implementation: tiled; pallas, with a kernel of the device (experimental); or
            reference to check them. By default the one that suits the device.
        shard: I/N: this process takes the shards i with i mod N = I, counting from 0; or auto: I
            and N from SLURM, Open MPI or Kubernetes, and then shards that others have not done.
        distributed: ray: share the run among workers on a Ray cluster.
        workers: How many workers of a distributed run; auto, one on each accelerator or host, by
            default.
        address: HOST:PORT of a Ray cluster; by default one is started on this host for the run.
        null: Run a null model: random-init, with fresh weights, or shuffled, with the tokens of
            each document in another order.
        seed: Seed of a null, of random twins and of the foreign tokens.
        token_counts: Runs, or folders that tokenize made, of all parts of a corpus that is swept
            in several runs, to be merged: rarity is defined by their counts together.
        type_means: Finished run of the same model whose tallies give the means of token types
            that a run without rows subtracts; those of a sample of the text by default.
        strict: Stop at the first malformed line of the corpus.
        settings: key=value for any other key of the configuration, for instance lens.tile=1024.
        dry_run: Print what the run would cost, and stop.
        output: What is printed.
    """
    options.begin(output)
    flags = {
        "model.path": model,
        "corpus.paths": corpus,
        "out": out,
        "corpus.limit": limit,
        "store.rows": rows,
        "store.tallies": tallies,
        "lens.implementation": lens,
        "shard": shard,
        "null": null,
        "seed": seed,
        "token_counts": token_counts,
        "type_means": None if type_means is None else str(type_means),
        "corpus.strict": strict,
    }
    merged = options.load(config, flags, settings)
    engine = _engine(distributed, workers, address)
    if dry_run:
        from jaxlens.sweep import estimate

        run_output.show_estimate(estimate.estimate(merged))
        return
    from jaxlens.sweep import run as sweep

    stop = preemption.StopRequest(merged.grace)
    with progress.Bar() as bar, preemption.on_signals(stop):
        result = sweep.run(merged, bar, stop, engine=engine)
    run_output.show_result(result)


def _engine(distributed: str | None, workers: str | None, address: str | None) -> Any:
    """What distributes a run; None where this process computes it."""
    if distributed is None:
        for name, value in (("--workers", workers), ("--address", address)):
            if value is not None:
                raise errors.ConfigError(f"{name} without --distributed", "add --distributed ray")
        return None
    if workers not in (None, "auto") and not config_values.is_number(workers):
        raise errors.ConfigError(f"--workers {workers}", "give a number, or auto")
    from jaxlens.sweep.distributed import ray_engine

    count = None if workers in (None, "auto") else int(workers)
    return ray_engine.RayEngine(count, address)


def tokenize(
    *,
    config: options.Files = (),
    model: str | None = None,
    corpus: options.Paths = None,
    out: str,
    limit: str | None = None,
    null: Null | None = None,
    seed: int | None = None,
    strict: bool | None = None,
    settings: options.Settings = (),
    output: options.Shown = options.Output(),
) -> None:
    """Make the token file of a run ahead of time; run does it when needed.

    Args:
        config: YAML file; may be repeated, the last wins.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M) whose
            tokenizer is used.
        corpus: Files, directories or globs; or a corpus that is made, as for run.
        out: Run directory or URL; the token file goes to its folder tokens.
        limit: Tokens to read, for instance 10M.
        null: Null model, as for run; shuffled makes other tokens.
        seed: Seed of a null and of random twins.
        strict: Stop at the first malformed line of the corpus.
        settings: key=value for any other key of the configuration.
        output: What is printed.
    """
    options.begin(output)
    flags = {"model.path": model, "corpus.paths": corpus, "corpus.limit": limit}
    flags |= {"out": out, "null": null, "seed": seed, "corpus.strict": strict}
    merged = options.load(config, flags, settings)
    from jaxlens.sweep import tokens

    run_output.show_tokens(tokens.tokenize(merged))


def verify(
    run_dir: Path,
    /,
    *,
    fast: bool = False,
    untrusted: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Check a run: every shard, every row, every derived file.

    Args:
        run_dir: Run directory.
        fast: Compare sizes and the manifest only, without reading the shards.
        untrusted: Read it in a process with limits; for runs from people you do not know.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.store import storage, verify
    from jaxlens.store import untrusted as guarded

    if untrusted:
        storage.refuse_url(run_dir, "--untrusted", "leave it out only if you know who made the run")
    check = guarded.verify_untrusted if untrusted else verify.verify
    with storage.readable(run_dir) as run:
        report = check(run, "fast" if fast else "full")
    run_output.show_verification(report, urls.shown(run_dir))


def repair(
    run_dir: Path,
    /,
    *,
    config: options.Files = (),
    model: str | None = None,
    corpus: options.Paths = None,
    limit: str | None = None,
    settings: options.Settings = (),
    output: options.Shown = options.Output(),
) -> None:
    """Recompute what is damaged in a run, bit for bit, and nothing else.

    The run records what to compute, but not where model and corpus are. The corpus is needed
    only where the token file itself is damaged.

    Args:
        run_dir: Run directory.
        config: YAML file; may be repeated, the last wins.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M) of the run's model.
        corpus: Files, directories or globs of the run's corpus.
        limit: Tokens to read, as for the run.
        settings: key=value for any other key of the configuration.
        output: What is printed.
    """
    options.begin(output)
    flags = {"model.path": model, "corpus.paths": corpus, "corpus.limit": limit}
    merged = options.load(config, flags, settings)
    from jaxlens.store import storage
    from jaxlens.sweep import repair

    storage.refuse_url(run_dir, "jaxlens repair", run_output.REPAIR_OBJECTS)
    stop = preemption.StopRequest(merged.grace)
    with progress.Bar() as bar, preemption.on_signals(stop):
        done = repair.repair(run_dir, merged, bar, stop)
    run_output.show_repair(done, run_dir)


def finalize(run_dir: Path, /, *, output: options.Shown = options.Output()) -> None:
    """Rebuild the derived files of a run: MANIFEST, summary.h5, index.h5.

    Of merged runs, all files of their directory are rebuilt from the runs.

    Args:
        run_dir: Run directory.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.store import finalize, storage
    from jaxlens.store.merged import merge, sources

    with storage.mirrored(run_dir, writable=True) as mirror:
        place = mirror or storage.Directory(run_dir)
        if sources.is_merged(place.path):
            merge.again(place.path)
        else:
            finalize.finalize(place.path, place.disk)
    terminal.say(f"finalized {urls.shown(run_dir)}")
