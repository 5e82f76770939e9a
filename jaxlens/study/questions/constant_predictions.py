"""Q1: what predictions that are the same at every position make of the first step.

At its matched temperature the input layer predicts next to nothing, so that the first step of the
mean KL(last layer || layer) is also what the frequencies of tokens make, or one vector that is the
same at every position. Both stand beside it here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxlens.study import table
from jaxlens.study.inputs import TRAINED, Inputs
from jaxlens.study.stats import binned, bootstrap, shape
from jaxlens.study.table import Result, result

NOT_CALIBRATED = "the last layer is not calibrated"
NO_MEAN_STREAM = "needs rows, and the means that jaxlens probe RUN keeps"

_UNIGRAM = ("unigram_share", "jump_share_beyond_unigram")
_MEAN_STREAM = ("mean_stream_share", "jump_share_beyond_mean_stream")


def estimate(run: Inputs) -> list[Result]:
    """Frequencies of the corpus, and the mean stream of each layer.

    Such a prediction is as far from the last layer as its cross-entropy is from the mean entropy of
    the last. What the last layer expects of it is taken as what the tokens that come next make of
    it: that is so if the last layer is calibrated, as a trained one nearly is and one of fresh
    weights is not.
    """
    return [*_unigram(run), *_mean_stream(run)]


def _unigram(run: Inputs) -> list[Result]:
    why = run.lacks("next_rarity_sum", "next_rarity_count")
    if run.kind != TRAINED:
        why = NOT_CALIBRATED
    if why:
        absent = bootstrap.missing(why)
        return [result(run, name, absent) for name in ("unigram_kl_final", *_UNIGRAM)]
    sums, counts = (run.tallies[f"next_rarity_{what}"] for what in ("sum", "count"))
    distance = bootstrap.bootstrap(_distance, (sums, counts, *_entropy(run)), counts)
    return [
        result(run, "unigram_kl_final", distance),
        *_of_first_step(run, _UNIGRAM, sums, counts),
    ]


def _mean_stream(run: Inputs) -> list[Result]:
    found = run.mean_stream
    why = NOT_CALIBRATED if run.kind != TRAINED else NO_MEAN_STREAM if found is None else ""
    if why or found is None:
        absent = bootstrap.missing(why)
        return [result(run, name, absent) for name in ("mean_stream_kl_final", *_MEAN_STREAM)]
    distances = [
        bootstrap.bootstrap(_distance, (sums, found.count, *_entropy(run)), found.count)
        for sums in found.total.T
    ]
    after_first = found.total[:, 1]
    return [
        *table.by_layer(run, "mean_stream_kl_final", distances),
        *_of_first_step(run, _MEAN_STREAM, after_first, found.count),
    ]


def _entropy(run: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the entropy of the last layer, by group."""
    sums, counts = run.measured("entropy")
    return sums[:, -1], counts[:, -1]


def _distance(*totals: np.ndarray) -> np.ndarray:
    """Mean KL(last layer || prediction), from sums and counts of surprisal and of entropy."""
    return binned.mean(totals[0], totals[1]) - binned.mean(totals[2], totals[3])


def _of_first_step(
    run: Inputs, names: tuple[str, str], sums: np.ndarray, counts: np.ndarray
) -> list[Result]:
    """What a prediction makes of the first step, and the jump share beyond it.

    Args:
        run: The run.
        names: Estimators of the two.
        sums: Minus its log-probability of the next token, by group, fixed point.
        counts: Positions of these.
    """

    def share(*totals: np.ndarray) -> np.ndarray:
        curve = binned.mean(totals[4], totals[5])
        return (curve[..., 0] - _distance(*totals)) / (curve[..., 0] - curve[..., 1])

    def beyond(*totals: np.ndarray) -> np.ndarray:
        curve = binned.mean(totals[4], totals[5])
        curve[..., 0] = np.minimum(curve[..., 0], _distance(*totals))
        return shape.jump_share(curve)

    functions: tuple[Callable[..., np.ndarray], ...] = (share, beyond)
    tallies = (sums, counts, *_entropy(run), *run.measured("kl_final_matched"))
    return [
        result(run, name, bootstrap.bootstrap(function, tallies, counts))
        for name, function in zip(names, functions, strict=True)
    ]
