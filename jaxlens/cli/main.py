"""The command line: one function a command, no logic; heavy imports inside each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from cyclopts import App

import jaxlens
from jaxlens import config as configs
from jaxlens import errors, interrupts
from jaxlens.cli import examples, inspect, options, streams
from jaxlens.cli import output as terminal
from jaxlens.files import memory, outputs
from jaxlens.sweep import preemption as graces

app = App(
    name="jaxlens",
    help="Corpus-scale logit lens: what each layer of GPT-2 would predict if it stopped there.",
    version=jaxlens.__version__,
    default_parameter=options.DEFAULTS,
    help_format="plaintext",
    # `main` says how to go on.
    suppress_keyboard_interrupt=False,
)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a function a command, whose help ends with examples."""
    app.command(function, help_epilogue=examples.epilogue(function.__name__))
    return function


for looks in (inspect.show, inspect.prompts, inspect.study, inspect.compare, inspect.report):
    _command(looks)
_command(inspect.export)


@_command
def run(
    *,
    config: options.Files = (),
    model: str | None = None,
    corpus: options.Paths = None,
    out: Path | None = None,
    limit: str | None = None,
    rows: Literal["none", "core", "full"] | None = None,
    tallies: Literal["basic", "study"] | None = None,
    lens: Literal["tiled", "reference"] | None = None,
    shard: str | None = None,
    null: configs.Null | None = None,
    seed: int | None = None,
    strict: bool | None = None,
    settings: options.Settings = (),
    dry_run: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Sweep a corpus into a run directory; the same command again resumes.

    Without arguments, the packaged model reads the prose of Python's own help.

    Args:
        config: YAML file; may be repeated, the last wins.
        model: Directory or hub id of a GPT-2.
        corpus: Files, directories or globs: .txt, .jsonl (also .gz, .bz2, .zst), .parquet; or
            twins:repeats, twins:plasma or prompts:curated, which are made.
        out: Run directory; runs/<first 8 digits of the spec's hash> by default.
        limit: Tokens to read, for instance 10M.
        rows: Columns to store: core, full, or none (tallies only).
        tallies: Totals to keep: basic, or study, which answers its questions without rows.
        lens: Implementation: tiled, or reference to check it.
        shard: I/N: this process takes the shards i with i mod N = I, counting from 0.
        null: Run a null model: random-init, with fresh weights, or shuffled, with the tokens of
            each document in another order.
        seed: Seed of a null, of random twins and of the foreign tokens.
        strict: Stop at the first malformed line of the corpus.
        settings: key=value for any other key of the configuration, for instance lens.tile=1024.
        dry_run: Print what the run would cost, and stop.
        output: What is printed.
    """
    options.begin(output)
    flags = {
        "model.path": model,
        "corpus.paths": corpus,
        "out": None if out is None else str(out),
        "corpus.limit": limit,
        "store.rows": rows,
        "store.tallies": tallies,
        "lens.implementation": lens,
        "shard": shard,
        "null": null,
        "seed": seed,
        "corpus.strict": strict,
    }
    merged = options.load(config, flags, settings)
    if dry_run:
        from jaxlens.sweep import estimate

        terminal.show_estimate(estimate.estimate(merged))
        return
    from jaxlens.sweep import run as sweep

    with terminal.Bar() as bar, graces.on_signals(graces.Grace(merged.grace)) as grace:
        result = sweep.run(merged, bar, grace)
    terminal.show_result(result)


@_command
def bench(
    shape: str | None = None,
    /,
    *,
    config: options.Files = (),
    model: str | None = None,
    precision: str | None = None,
    rows: str | None = None,
    rounds: int = 5,
    sweep: bool = False,
    json: Path | None = None,
    picture: Path | None = None,
    settings: options.Settings = (),
    output: options.Shown = options.Output(),
) -> None:
    """Measure this machine: the whole sweep and its stages, beside what it can do.

    Args:
        shape: gpt2, gpt2-medium, gpt2-large or gpt2-xl, with random weights; gpt2 by default.
        config: YAML file; may be repeated, the last wins.
        model: Directory or hub id of a GPT-2 to measure instead of a shape.
        precision: Operands of the lens: float32, tf32, bf16x3 or bfloat16.
        rows: Columns to store: core, full, or none (tallies only).
        rounds: Repetitions, of which the median counts.
        sweep: Measure a grid of step sizes, precisions and tiles around the configuration.
        json: File to which a JSON line for each measurement is added.
        picture: File for a roofline: .png, .svg or .pdf.
        settings: key=value for any other key of the configuration, for instance plan.length=512.
        output: What is printed.
    """
    options.begin(output)
    flags = {"model.path": model, "lens.precision": precision, "store.rows": rows}
    merged = options.load(config, flags, settings)
    if shape is not None and model is not None:
        raise errors.ConfigError("a shape and a model were given", "give one of them")
    shape = shape or ("gpt2" if model is None else None)
    from jaxlens.bench import measure as benchmark
    from jaxlens.cli import bench_output
    from jaxlens.view.figures import files as pictures
    from jaxlens.view.figures import roofline

    if picture is not None:
        pictures.require(picture)
    if json is not None:
        outputs.require(json)
    reports = []
    for number, one in enumerate(benchmark.grid(shape, merged) if sweep else [merged]):
        report = benchmark.measure(shape, one, rounds)
        reports.append(report)
        if json is not None:
            bench_output.add_json_line(report, json)
        if sweep:
            bench_output.show_line(report, heading=number == 0)
        else:
            bench_output.show(report)
    if picture is not None:
        roofline.draw(*benchmark.roofline(reports), picture)


@_command
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
        untrusted: Read it in a process with limits, as befits what a stranger made.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.store import untrusted as guarded
    from jaxlens.store import verify as checks

    check = guarded.verify_untrusted if untrusted else checks.verify
    terminal.show_verification(check(run_dir, "fast" if fast else "full"), run_dir)


@_command
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

    What to compute stands in the run; where model and corpus are does not. The corpus is needed
    only where the token file itself is damaged.

    Args:
        run_dir: Run directory.
        config: YAML file; may be repeated, the last wins.
        model: Directory or hub id of the run's model.
        corpus: Files, directories or globs of the run's corpus.
        limit: Tokens to read, as for the run.
        settings: key=value for any other key of the configuration.
        output: What is printed.
    """
    options.begin(output)
    flags = {"model.path": model, "corpus.paths": corpus, "corpus.limit": limit}
    merged = options.load(config, flags, settings)
    from jaxlens.sweep import repair as repairs

    with terminal.Bar() as bar, graces.on_signals(graces.Grace(merged.grace)) as grace:
        done = repairs.repair(run_dir, merged, bar, grace)
    terminal.show_repair(done, run_dir)


@_command
def finalize(run_dir: Path, /, *, output: options.Shown = options.Output()) -> None:
    """Rebuild the derived files of a run: MANIFEST, summary.h5, index.h5.

    Args:
        run_dir: Run directory.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.store import finalize as derive

    derive.finalize(run_dir)
    terminal.say(f"finalized {run_dir}")


@_command
def convert(
    source: str,
    target: Path,
    /,
    *,
    to: Literal["orbax", "safetensors", "msgpack"],
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    output: options.Shown = options.Output(),
) -> None:
    """Convert a checkpoint; at float32 the weights keep every bit.

    Args:
        source: Model directory or hub id.
        target: Directory to create.
        to: Format to write.
        dtype: Type to store.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.models import loading
    from jaxlens.models.checkpoints import checkpoint

    found = loading.load_checkpoint(source)
    checkpoint.save(target, found.architecture, found.params, to, dtype, found.directory)
    terminal.say(f"wrote {to} weights to {target}")


@_command
def tokenize(
    *,
    config: options.Files = (),
    model: str | None = None,
    corpus: options.Paths = None,
    out: Path,
    limit: str | None = None,
    null: configs.Null | None = None,
    seed: int | None = None,
    strict: bool | None = None,
    settings: options.Settings = (),
    output: options.Shown = options.Output(),
) -> None:
    """Make the token file of a run ahead of time; run does it when needed.

    Args:
        config: YAML file; may be repeated, the last wins.
        model: Directory or hub id whose tokenizer is used.
        corpus: Files, directories or globs; or a corpus that is made, as for run.
        out: Run directory; the token file goes to its folder tokens.
        limit: Tokens to read, for instance 10M.
        null: Null model, as for run; shuffled makes other tokens.
        seed: Seed of a null and of random twins.
        strict: Stop at the first malformed line of the corpus.
        settings: key=value for any other key of the configuration.
        output: What is printed.
    """
    options.begin(output)
    flags = {"model.path": model, "corpus.paths": corpus, "corpus.limit": limit}
    flags |= {"out": str(out), "null": null, "seed": seed, "corpus.strict": strict}
    merged = options.load(config, flags, settings)
    from jaxlens.sweep import job

    terminal.show_tokens(job.ingest_only(merged))


@_command
def env(*, output: options.Shown = options.Output()) -> None:
    """Print versions and devices, for a bug report."""
    options.begin(output)
    import json

    from jaxlens.sweep import environment

    print(json.dumps(environment.describe(), indent=2))


@_command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and options with Tab.

    Args:
        shell: Which shell; source what is printed, or keep it where the shell looks for such.
    """
    print(app.generate_completion(shell=shell))


def main(words: Sequence[str] | None = None) -> None:
    """Entry point: every error is one line, a hint and a stable exit code."""
    given = list(sys.argv[1:] if words is None else words)
    with interrupts.watched() as watch:
        code = _main(given, watch, supervised=words is None)
    if code:
        sys.exit(code)


def _main(given: Sequence[str], watch: interrupts.Watch, supervised: bool) -> int:
    """Status of a command."""
    code = 0
    try:
        streams.prepare()
        if "--debug" not in given:
            # Where the tokenizer library panics, which becomes an error of ours, it adds pages.
            os.environ["RUST_BACKTRACE"] = "0"
        if supervised:
            memory.supervise()
        app(options.positional_dash(given), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `| head`
        pass
    except SystemExit as ended:  # rich ends the process at a broken pipe by itself
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
    except (Exception, KeyboardInterrupt) as error:
        watch.end()
        # What a signal has led to, an error of a library for instance, is not reported by itself.
        code = options.report(watch.error or error, given)
    finally:
        watch.end()
        streams.settle()
    return code
