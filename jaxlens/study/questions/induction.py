"""Q3 without a corpus: copies that were planted, beside the same token where it was not to come.

In ``twins:repeats`` the token to come stood one block before; its control is the same token in the
first block, which nothing announced. In ``twins:plasma`` it is the noun at its second place, and
its control the noun at its first. Sequences are the clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxlens import designs
from jaxlens.store import reader
from jaxlens.study import inputs, readings, table
from jaxlens.study.questions import copying
from jaxlens.study.stats import bootstrap, shape
from jaxlens.study.table import Result, result

QUESTION = "Q3"

CUT = copying.CUT


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

    def where(self, chosen: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(value[chosen] for value in vars(self).values()))


def load(run: reader.Run) -> Pairs:
    """The pairs of a run over twins.

    Args:
        run: With rows of ``rank_next``.

    Raises:
        ConfigError: It has none.
        DataError: It is damaged.
    """
    ranks = np.concatenate([batch["rank_next"] for batch in run.batches(["rank_next"])])
    documents = run.corpus.documents
    found: list[tuple[int, int, int, int, int]] = []
    for number, identifier in enumerate(documents.id.tolist()):
        design = designs.parse(identifier.decode("utf-8", "replace"))
        if design is None or design.bin is None:
            continue
        start, stop = int(documents.start[number]), int(documents.start[number + 1])
        ids = run.corpus.tokens(start, stop)
        for copy, control in _places(design, ids, run.corpus.token_strings):
            found.append((start + copy, start + control, number, design.bin, design.lag or 0))
    table = np.array(found, np.int64).reshape(-1, 5)
    copy, control = (ranks[table[:, i]].astype(np.int64) for i in (0, 1))
    return Pairs(copy, control, table[:, 2], table[:, 3], table[:, 4])


def _places(
    design: designs.Design, ids: Int[np.ndarray, " n"], strings: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Places in a document of the positions before a copy, each with that of its control."""
    if design.lag is not None:
        # The first token of the second block is announced by nothing.
        for place in range(design.lag, min(2 * design.lag, len(ids)) - 1):
            if ids[place + 1] == ids[place + 1 - design.lag]:
                yield place, place - design.lag
        return
    noun = f" {design.name}".encode()
    at = np.flatnonzero(strings[ids] == noun)
    if len(at) == 2 and at[0] > 0:
        yield int(at[1]) - 1, int(at[0]) - 1


def answer(of: inputs.Made, pairs: Pairs) -> list[Result]:
    """Each cell of the design, all of them together, and the curves by lag."""
    lines = list(_cell(of, pairs, "all"))
    for lag in np.unique(pairs.lag):
        mine = pairs.where(pairs.lag == lag)
        name = f"lag {lag}" if lag else "all"
        lines += _curves(of, mine, name)
        for number in np.unique(mine.bin):
            label = f"frequency bin {number}" + (f", {name}" if lag else "")
            lines += _cell(of, mine.where(mine.bin == number), label)
    return lines


def _cell(of: inputs.Made, pairs: Pairs, stratum: str) -> Iterator[Result]:
    note = "frequency bin 0 is the rarest"
    for name, (meaning, unit, values, used) in _measures(pairs).items():
        rows = slice(None) if used is None else used
        found = bootstrap.clustered_mean(values[rows], pairs.sequence[rows])
        tested = name in ("twins_gain", "twins_prominence")
        yield result(
            of, QUESTION, name, meaning, found, unit=unit, stratum=stratum, tested=tested, note=note
        )


def _measures(pairs: Pairs) -> dict[str, tuple[str, str, np.ndarray, np.ndarray | None]]:
    """Meaning, unit and values of each measure, and of which pairs."""
    copy, control = pairs.copy, pairs.control
    depth = copying.retrieval_depth(copy, CUT)
    reached = depth <= 1
    within = f"are within the first {CUT} at the last layer"
    return {
        f"twins_retrieved_{CUT}": (
            f"share of copies that {within}",
            "1",
            reached.astype(np.float64),
            None,
        ),
        f"twins_control_{CUT}": (
            f"share of controls that {within}",
            "1",
            (control[:, -1] <= CUT).astype(np.float64),
            None,
        ),
        f"twins_depth_{CUT}": (
            f"depth from which those copies stay within the first {CUT}",
            "depth",
            depth,
            reached,
        ),
        "twins_gain": (
            "ln rank of the control minus that of the copy, at the last layer",
            "nat",
            _ln(control[:, -1]) - _ln(copy[:, -1]),
            None,
        ),
        "twins_prominence": (
            "prominence of ln rank along depth, copy minus control",
            "nat",
            shape.prominence(_ln(copy)) - shape.prominence(_ln(control)),
            None,
        ),
    }


def _curves(of: inputs.Made, pairs: Pairs, stratum: str) -> list[Result]:
    lines = []
    for name, ranks in (("copy", pairs.copy), ("control", pairs.control)):
        lines += table.by_layer(
            of,
            QUESTION,
            f"twins_mean_ln_rank_{name}",
            f"mean ln rank of the token to come, {name}",
            [
                bootstrap.clustered_mean(_ln(ranks[:, layer]), pairs.sequence)
                for layer in range(of.n_layers)
            ],
            unit="nat",
            stratum=stratum,
        )
    return lines


def _ln(ranks: np.ndarray) -> Float[np.ndarray, "..."]:
    return np.log(np.maximum(ranks, 1))


def verdict(results: list[Result]) -> str:
    """What the planted copies say, from the lines of the trained run."""
    share, control, depth, gain = (
        next(r for r in results if r.estimator == name and r.stratum == "all")
        for name in (
            f"twins_retrieved_{CUT}",
            f"twins_control_{CUT}",
            f"twins_depth_{CUT}",
            "twins_gain",
        )
    )
    if not np.isfinite(share.estimate):
        return f"No planted copy was found{f': {readings.reason(share)}' if share.note else ''}."
    words = (
        f"Of the planted copies {readings.spelled(share)} are within the first {CUT} at the last "
        f"layer, of their controls {readings.spelled(control)}; ln rank of the control minus that "
        f"of the copy is {readings.spelled(gain)} nat: {readings.direction(gain)}."
    )
    cells = [r for r in results if r.estimator == depth.estimator and r.stratum != "all"]
    known = [r for r in cells if np.isfinite(r.estimate)]
    if np.isfinite(depth.estimate):
        words += (
            " The copies that are within the first "
            f"{CUT} in the end stay there from depth {readings.spelled(depth)} on."
        )
    if len(known) < 2:
        return words
    first, last = (pick(known, key=lambda r: r.estimate) for pick in (min, max))
    return (
        f"{words} The earliest cell is {first.stratum} at {first.estimate:.3g}, the latest "
        f"{last.stratum} at {last.estimate:.3g}."
    )
