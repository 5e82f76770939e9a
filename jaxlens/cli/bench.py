"""Commands about this machine: bench, env; heavy imports inside each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxlens import errors
from jaxlens.cli import options, terminal
from jaxlens.config import Lens, RunConfig
from jaxlens.files import outputs


def bench(
    *shapes: str,
    config: options.Files = (),
    model: str | None = None,
    precision: str | None = None,
    rows: str | None = None,
    lens: Lens | None = None,
    rounds: int = 5,
    sweep: bool = False,
    compile_only: str | None = None,
    json: Path | None = None,
    picture: Path | None = None,
    settings: options.Settings = (),
    output: options.Shown = options.Output(),
) -> None:
    """Measure this machine: the whole sweep and its stages, beside what it can do.

    Args:
        shapes: gpt2, gpt2-medium, gpt2-large or gpt2-xl, with random weights; gpt2 by default.
            One, or several with --compile-only.
        config: YAML file; may be repeated, the last wins.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M) to measure
            instead of a shape.
        precision: Operands of the lens: float32, tf32, bf16x3 or bfloat16.
        rows: Columns to store: core, full, or none (tallies only).
        lens: Implementation: tiled, pallas (a kernel of the device), or reference.
        rounds: Repetitions, of which the median counts.
        sweep: Measure a grid of step sizes, precisions and tiles around the configuration.
        compile_only: Measure nothing, but compile the step for v5e, v6e, h100 or h200, none of
            which need be here, and say what it needs, moves and computes.
        json: File to which a JSON line for each measurement is added.
        picture: File for a roofline: .png, .svg or .pdf.
        settings: key=value for any other key of the configuration, for instance plan.length=512.
        output: What is printed.
    """
    options.begin(output)
    flags = {"model.path": model, "lens.precision": precision, "store.rows": rows}
    flags |= {"lens.implementation": lens}
    merged = options.load(config, flags, settings)
    if shapes and model is not None:
        raise errors.ConfigError("a shape and a model were given", "give one of them")
    if compile_only is not None:
        if sweep or picture is not None:
            raise errors.ConfigError(
                "--compile-only measures nothing", "leave out --sweep and --picture"
            )
        _compile_only(shapes or (("gpt2",) if model is None else ()), merged, compile_only, json)
        return
    if len(shapes) > 1:
        raise errors.ConfigError(
            "several shapes were given", "give one of them, or --compile-only DEVICE for a table"
        )
    _measure(shapes[0] if shapes else None, model, merged, rounds, sweep, json, picture)


def _measure(
    shape: str | None,
    model: str | None,
    merged: RunConfig,
    rounds: int,
    sweep: bool,
    json: Path | None,
    picture: Path | None,
) -> None:
    shape = shape or ("gpt2" if model is None else None)
    from jaxlens.bench import measure, roofline
    from jaxlens.cli import bench_output
    from jaxlens.view.figures import files
    from jaxlens.view.figures.roofline import draw

    if picture is not None:
        files.require(picture)
    if json is not None:
        outputs.require(json)
    reports = []
    for number, one in enumerate(measure.grid(shape, merged) if sweep else [merged]):
        report = measure.measure(shape, one, rounds)
        reports.append(report)
        if json is not None:
            bench_output.add_json_line(report, json)
        if sweep:
            bench_output.show_line(report, heading=number == 0)
        else:
            bench_output.show(report)
    if picture is not None:
        draw(*roofline.points(reports), picture)
        terminal.say(f"wrote {picture}")


def _compile_only(shapes: Sequence[str], merged: RunConfig, target: str, json: Path | None) -> None:
    if json is not None:
        outputs.require(json)
    import jax

    # What is compiled for need not be here, and what is here need not be woken.
    jax.config.update("jax_platforms", "cpu")
    from jaxlens.bench import random_model
    from jaxlens.bench.compiled import program
    from jaxlens.cli import bench_output
    from jaxlens.models import loading

    named = [(shape, random_model.architecture(shape)) for shape in shapes]
    if not named:
        where = merged.model
        loaded = loading.load_checkpoint(where.path, where.revision, read=False)
        named = [(merged.model.path, loaded.architecture)]
    for number, (name, architecture) in enumerate(named):
        report, _ = program.compile_step(name, architecture, merged, target)
        bench_output.show_compiled(report, heading=number == 0)
        if json is not None:
            bench_output.add_json_line(report, json)


def env(*, output: options.Shown = options.Output()) -> None:
    """Print versions and devices, for a bug report."""
    options.begin(output)
    import json

    from jaxlens.sweep import environment

    print(json.dumps(environment.describe(), indent=2))
