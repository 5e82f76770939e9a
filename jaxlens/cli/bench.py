"""Commands about this machine: bench, env; heavy imports inside each."""

from __future__ import annotations

from pathlib import Path

from jaxlens import errors
from jaxlens.cli import options
from jaxlens.files import outputs


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


def env(*, output: options.Shown = options.Output()) -> None:
    """Print versions and devices, for a bug report."""
    options.begin(output)
    import json

    from jaxlens.sweep import environment

    print(json.dumps(environment.describe(), indent=2))
