"""Q3 without a corpus: copies that were planted, beside the same token where it was not to come.

In ``twins:repeats`` the token to come stood one block before; its control is the same token in the
first block, which nothing announced. In ``twins:plasma`` it is the noun at its second place, and
its control the noun at its first. Sequences are the clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxlens import designs
from jaxlens.store import reader
from jaxlens.study import inputs, readings, table
from jaxlens.study.estimators import RETRIEVED
from jaxlens.study.questions import copying
from jaxlens.study.stats import bootstrap, shape
from jaxlens.study.table import Result, result


@dataclass(frozen=True, eq=False)
class Pairs:
    """Positions before a copy, and before the same token as a control.

    Attributes:
        copy: Ranks of the token to come, ``[pair, layer]``.
        control: The same at the control.
        sequence: Document of each pair.
        bin: Its frequency bin, 0 the rarest.
        lag: Tokens since the token stood last; 0 where the design has none.
    """

    copy: Int[np.ndarray, "pair layer"]
    control: Int[np.ndarray, "pair layer"]
    sequence: Int[np.ndarray, " pair"]
    bin: Int[np.ndarray, " pair"]
    lag: Int[np.ndarray, " pair"]

    def where(self, mask: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(value[mask] for value in vars(self).values()))


def load(run: reader.Run) -> Pairs:
    """The pairs of a run over repeated tokens, a corpus of ``designs.BINNED``.

    Args:
        run: With rows of ``rank_next``.

    Raises:
        ConfigError: It has none.
        DataError: It is damaged.
    """
    ranks = np.concatenate([batch["rank_next"] for batch in run.batches(["rank_next"])])
    documents = run.corpus.documents
    rows: list[tuple[int, int, int, int, int]] = []
    for number, identifier in enumerate(documents.id.tolist()):
        design = designs.parse(identifier.decode("utf-8", "replace"))
        if design is None or design.bin is None:
            continue
        start, stop = int(documents.start[number]), int(documents.start[number + 1])
        ids = run.corpus.tokens(start, stop)
        for copy, control in _pairs(design, ids, run.corpus.token_strings):
            rows.append((start + copy, start + control, number, design.bin, design.lag or 0))
    copies, controls, sequence, bins, lags = np.array(rows, np.int64).reshape(-1, 5).T
    copy, control = (ranks[positions].astype(np.int64) for positions in (copies, controls))
    return Pairs(copy, control, sequence, bins, lags)


def _pairs(
    design: designs.Design, ids: Int[np.ndarray, " n"], strings: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Positions in a document before a copy, each with that of its control."""
    if design.lag is not None:
        # The first token of the second block is announced by nothing.
        for copy in range(design.lag, min(2 * design.lag, len(ids)) - 1):
            control = copy - design.lag
            if ids[copy + 1] == ids[control + 1]:
                yield copy, control
        return
    noun = f" {design.name}".encode()
    nouns = np.flatnonzero(strings[ids] == noun)
    if len(nouns) == 2 and nouns[0] > 0:
        yield int(nouns[1]) - 1, int(nouns[0]) - 1


def estimate(run: inputs.RunInfo, pairs: Pairs) -> list[Result]:
    """Each cell of the design, all of them together, and the curves by lag."""
    lines = _cell(run, pairs, "all")
    for lag in np.unique(pairs.lag):
        of_lag = pairs.where(pairs.lag == lag)
        name = f"lag {lag}" if lag else "all"
        lines += _curves(run, of_lag, name)
        for number in np.unique(of_lag.bin):
            stratum = f"frequency bin {number}" + (f", {name}" if lag else "")
            lines += _cell(run, of_lag.where(of_lag.bin == number), stratum)
    return lines


def _cell(run: inputs.RunInfo, pairs: Pairs, stratum: str) -> list[Result]:
    lines = []
    for name, (values, used) in _measures(pairs).items():
        mean = bootstrap.clustered_mean(values[used], pairs.sequence[used])
        note = "frequency bin 0 is the rarest"
        lines.append(result(run, name, mean, stratum=stratum, note=note))
    return lines


def _measures(pairs: Pairs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values of each measure, and which pairs have one."""
    copy, control = pairs.copy, pairs.control
    # A token that is never retrieved counts as retrieved one layer beyond the last: leaving it out
    # would compare the easy copies with the easy controls.
    depth, control_depth = (copying.retrieval_depth(ranks, RETRIEVED) for ranks in (copy, control))
    every = np.ones(len(depth), bool)
    prominence = [shape.prominence(copying.ln_rank(ranks)) for ranks in (copy, control)]
    return {
        f"twins_retrieved_{RETRIEVED}": ((depth <= 1).astype(np.float64), every),
        f"twins_control_{RETRIEVED}": ((control[:, -1] <= RETRIEVED).astype(np.float64), every),
        f"twins_depth_{RETRIEVED}": (depth, depth <= 1),
        f"twins_depth_difference_{RETRIEVED}": (depth - control_depth, every),
        "twins_gain": (copying.ln_rank(control[:, -1]) - copying.ln_rank(copy[:, -1]), every),
        "twins_prominence": (prominence[0] - prominence[1], every),
    }


def _curves(run: inputs.RunInfo, pairs: Pairs, stratum: str) -> list[Result]:
    lines = []
    for name, ranks in (("copy", pairs.copy), ("control", pairs.control)):
        means = [
            bootstrap.clustered_mean(copying.ln_rank(ranks[:, layer]), pairs.sequence)
            for layer in range(run.n_layers)
        ]
        lines += table.by_layer(run, f"twins_mean_ln_rank_{name}", means, stratum=stratum)
    return lines


def verdict(results: list[Result]) -> str:
    """What the planted copies say, from the lines of the trained run."""
    share, control, depth, gain = (
        next(r for r in results if r.estimator == name and r.stratum == "all")
        for name in (
            f"twins_retrieved_{RETRIEVED}",
            f"twins_control_{RETRIEVED}",
            f"twins_depth_{RETRIEVED}",
            "twins_gain",
        )
    )
    if not np.isfinite(share.estimate):
        return f"No planted copy was found{f': {readings.reason(share)}' if share.note else ''}."
    words = (
        f"Of the planted copies {readings.format_number(share)} are within the first "
        f"{RETRIEVED} at the last layer, of their controls {readings.format_number(control)}; "
        f"ln rank of the control minus that of the copy is "
        f"{readings.format_number(gain)} nat: {readings.direction(gain)}."
    )
    cells = [r for r in results if r.estimator == depth.estimator and r.stratum != "all"]
    known = [r for r in cells if np.isfinite(r.estimate)]
    if np.isfinite(depth.estimate):
        words += (
            " The copies that are within the first "
            f"{RETRIEVED} in the end stay there from depth {readings.format_number(depth)} on."
        )
    words += _sooner(results)
    if len(known) < 2:
        return words
    first, last = (pick(known, key=lambda r: r.estimate) for pick in (min, max))
    return (
        f"{words} The earliest cell is {first.stratum} at {first.estimate:.3g}, the latest "
        f"{last.stratum} at {last.estimate:.3g}."
    )


def _sooner(results: list[Result]) -> str:
    """The difference of the depths, with those that are never retrieved."""
    name = f"twins_depth_difference_{RETRIEVED}"
    line = next(r for r in results if r.estimator == name and r.stratum == "all")
    if not np.isfinite(line.estimate):
        return ""
    return (
        " Where copies and controls that never get there count as one layer beyond the last, the "
        f"depth of a copy minus that of its control is {readings.format_number(line)}: "
        f"{readings.direction(line)}."
    )
