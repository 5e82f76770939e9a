"""What a benchmark prints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlens import errors
from jaxlens.files import outputs

if TYPE_CHECKING:
    from jaxlens.bench.compiled.program import Compiled
    from jaxlens.bench.report import Report


def show(report: Report) -> None:
    """A table of stages, then the rates to compare them with."""
    settings = ", ".join(f"{key} {value}" for key, value in report.settings.items())
    print(f"{report.shape} on {errors.count(report.devices, 'device')}: {settings}")
    print(f"{'stage':<10} {'tok/s':>12} {'spread':>8} {'of multiply rate':>17}")
    for stage in ("sweep", "forward", "lens", "fetch", "publish"):
        share = f"{report.of_multiply(stage):.0%}" if stage in report.flops else ""
        print(f"{stage:<10} {report.rate(stage):>12,.0f} {_spread(report, stage):>8} {share:>17}")
    print(f"matrix multiply  {report.multiply_flops / 1e12:.3f} TFLOP/s")
    print(f"copy             {report.copy_bytes / 1e9:.1f} GB/s")
    print(f"compilation      {report.compile_seconds:.1f} s")
    memory = ", ".join(
        f"{size / 2**30:.2f} GiB {where}" for where, size in report.peak_bytes.items()
    )
    print(f"peak memory      {memory}")
    print(f"accuracy         {_accuracy(report)}")


def show_line(report: Report, heading: bool) -> None:
    """One line of a grid."""
    if heading:
        print(
            f"{'sequences':>9} {'precision':>9} {'tile':>5} {'tok/s':>10} {'spread':>7}  accuracy"
        )
    settings = report.settings
    print(
        f"{settings['step_sequences']:>9} {settings['precision']:>9} {settings['tile']:>5} "
        f"{report.rate('sweep'):>10,.0f} {_spread(report, 'sweep'):>7}  {_accuracy(report)}",
        flush=True,
    )


def show_compiled(report: Compiled, heading: bool) -> None:
    """One line of a table of programs that were compiled and not run."""
    if heading:
        settings = report.settings
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        shared = f" x {settings['mesh']}, which share the model" if "mesh" in settings else ""
        print(
            f"compiled for {report.target}{shared}, not run: {settings['implementation']} lens, "
            f"{settings['precision']} operands, "
            f"{settings['dtype']} weights, {settings['residuals']} streams; {versions}"
        )
        print(
            "step: memory beside the weights; bounds: what the bandwidth and the multiplies of the "
            "device allow; s/step: the least by both"
        )
        if not report.is_flops_stated:
            print("MFLOP/token follow from the model's sizes: kernels for GPUs do not state theirs")
        print(
            f"{'model':<12} {'weights':>9} {'step':>9} {'sequences':>16} {'tile':>5} {'block':>5} "
            f"{'MB/token':>9} {'MFLOP/token':>11} {'memory bound':>13} {'compute bound':>13} "
            f"{'s/step':>7}"
        )
    settings = report.settings
    sequences = f"{settings['step_sequences']} of {settings['length']}"
    tokens = settings["step_sequences"] * settings["length"]
    seconds = tokens / min(report.memory_bound, report.compute_bound)
    print(
        f"{report.model:<12} {report.weights_bytes / 2**30:>5.1f} GiB "
        f"{report.step_bytes / 2**30:>5.1f} GiB {sequences:>16} "
        f"{settings['tile'] or '':>5} {settings['block'] or '':>5} "
        f"{report.bytes_moved / 1e6:>9.2f} {report.flops / 1e6:>11,.0f} "
        f"{report.memory_bound:>7,.0f} tok/s {report.compute_bound:>7,.0f} tok/s {seconds:>7.2g}",
        flush=True,
    )


def add_json_line(report: Report | Compiled, path: Path) -> None:
    """Adds a line to a file.

    Raises:
        StorageError: It cannot be written.
    """
    outputs.append(path, (json.dumps(dataclasses.asdict(report)) + "\n").encode())


def _spread(report: Report, stage: str) -> str:
    seconds = sorted(report.seconds[stage])
    return f"±{(seconds[-1] - seconds[0]) / 2 / seconds[len(seconds) // 2]:.0%}"


def _accuracy(report: Report) -> str:
    accuracy = report.accuracy
    return (
        f"{accuracy['nats']:.2g} nat, {accuracy['ranks']:.2%} of ranks and "
        f"{accuracy['top']:.2%} of best tokens equal to the reference"
    )
