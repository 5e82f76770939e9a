"""What ``jaxlens ablate`` prints: losses by arm and layer, and what was left out."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from jaxlens import errors
from jaxlens.cli import streams, terminal
from jaxlens.store import layout

if TYPE_CHECKING:
    from jaxlens.store import ablation_file
    from jaxlens.sweep.ablation import run

logger = logging.getLogger("jaxlens")

TITLES = {"blocks": "repeated blocks", "copies": "natural copies"}


def show(result: run.Result, warn_of_arms: bool) -> None:
    """Prints the closing summary.

    Args:
        result: What was computed.
        warn_of_arms: Whether to name the arms that were left out for want of a probe.
    """
    found, run_dir = result.ablation, result.folder.parent
    sequences = errors.count(sum(map(len, found.materials.values())), "sequence")
    what = f"{sequences}, {errors.count(len(found.arms), 'arm')}"
    what += f" at {errors.count(len(found.layers), 'layer')}"
    if result.runs_per_second is None:
        terminal.say(f"{result.folder}: finished already, {what}")
    else:
        terminal.say(
            f"{result.folder}: {what}, {result.runs_per_second:,.1f} patched sequences/s, "
            f"{result.tokens_per_second:,.0f} tok/s"
        )
    for material, counts in found.notes.left_out.items():
        for reason, count in counts.items():
            logger.warning(
                "%s: left out %s: %s", TITLES.get(material, material), f"{count:,}", reason
            )
    from jaxlens.store import ablation_file

    without_probe = found.spec["ablation"]["probe_sha256"] is None
    if warn_of_arms and "probe" not in found.arms and without_probe:
        logger.warning(
            "the arms %s need the directions of a probe: jaxlens probe %s",
            ", ".join(sorted(ablation_file.OF_PROBE)),
            run_dir,
        )
    for material, losses in found.materials.items():
        streams.say(_table(material, losses, found))
    terminal.say(f"losses of each sequence: {result.folder}/{ablation_file.RESULT}")
    if (run_dir / layout.SUMMARY).exists():
        terminal.say(f"with intervals: jaxlens study {run_dir}")


def _table(material: str, losses: ablation_file.Losses, found: ablation_file.Ablation) -> str:
    """Mean loss by layer and arm, each copied token weighing the same."""
    means = losses.mean_loss()
    gain = losses.gain()
    shown = "" if math.isnan(gain) else f"; copy gain {gain:.3f} nat"
    lines = [["layer", *found.arms]]
    for row, layer in enumerate(found.layers):
        cells = [terminal.cell(float(value), "{:.3f}") for value in means[:, row]]
        lines.append([str(layer), *cells])
    title = f"{TITLES[material]}: loss of log-probability in nat{shown}"
    return f"\n{title}\n{terminal.aligned(lines)}\n"
