"""What ``jaxlens probe`` prints: recall by layer, of the probe and of the lens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jaxlens import errors
from jaxlens.cli import streams, terminal

if TYPE_CHECKING:
    from jaxlens.sweep.probe import run

COLUMNS = (
    ("own", "probe", "own"),
    ("own", "lens", "own, lens"),
    ("previous", "probe", "previous"),
    ("previous", "lens", "previous, lens"),
    ("two_back", "probe", "two back"),
    ("two_back", "lens", "two back, lens"),
    ("permuted", "probe", "permuted labels"),
)
"""Target and readout of each column, and its title."""


def show(result: run.Result) -> None:
    """Sizes, recall at 1 by layer, and where the files are."""
    probe, counts = result.probe, result.probe.counts
    learnt = errors.count(counts["training_positions"], "position")
    judged = errors.count(counts["held_out_positions"], "position")
    documents = errors.count(counts["held_out_documents"], "held-out document")
    rate = result.positions_per_second
    speed = "finished already" if rate is None else f"{rate:,.0f} positions/s"
    terminal.say(f"{result.out}: {speed}, {learnt} to learn from, {judged} of {documents}")
    lines = [["recall at 1", *(title for _, _, title in COLUMNS)]]
    for layer, name in enumerate(probe.layer_names):
        cells = [_recall(result, target, readout, layer) for target, readout, _ in COLUMNS]
        lines.append([name, *(terminal.cell(cell, "{:.3f}") for cell in cells)])
    streams.say(terminal.aligned(lines))
    n_classes = errors.count(len(probe.class_token), "token type")
    outside = int(probe.outside[0].sum())
    terminal.say(
        f"among {n_classes}; {errors.count(outside, 'held-out position')} of other types are left "
        "out"
    )
    terminal.say(f"counts by rarity and group of documents: {result.out}/probe/probe.h5")


def _recall(result: run.Result, target: str, readout: str, layer: int) -> float:
    hits, positions = (
        int(result.probe.of(target, readout, name)[layer].sum()) for name in ("hits_1", "positions")
    )
    return hits / positions if positions else math.nan
