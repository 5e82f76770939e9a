"""Readouts whose tokens are hostile and whose numbers are random, with and without padding."""

import numpy as np
from view.hostile import TOKENS, prompt_of

from jaxlens import types
from jaxlens.api.readout import Readout

COUNT = len(TOKENS)


def readout_of(lengths=(COUNT,), n_layers=4, seed=0, follow=(0, 8), tokens=TOKENS, spell=True):
    """A line for each length, all of which read the tokens from the first one on."""
    shown = [prompt_of(tokens, n_layers, seed + i, follow, ("plain",)) for i in range(len(lengths))]
    count = len(tokens)
    mask = np.arange(count)[None] < np.array(lengths)[:, None]
    ids = np.where(mask, np.arange(count)[None], -1).astype(np.int32)
    following = np.pad(ids[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    arrays = {}
    for name in shown[0].readings["plain"]:
        if name.endswith("_follow") and not follow:
            continue
        values = np.stack([one.readings["plain"][name] for one in shown], 1)
        away = np.broadcast_to(mask if name != "rank_next" else following >= 0, values.shape[1:3])
        missing = np.nan if values.dtype.kind == "f" else -1 if name == "top_id" else 0
        values[:, ~away] = missing
        arrays[name] = values
    every = np.broadcast_to(np.array(follow, np.int32), (*mask.shape, len(follow)))
    references = types.References(
        input=ids,
        next=following,
        foreign=np.full_like(ids, -1),
        copy=np.full_like(ids, -1),
        mask=mask,
        follow=every if follow else None,
    )
    known = dict(enumerate(tokens))
    labels = types.Labels(
        references,
        tuple(range(n_layers)),
        n_layers,
        "plain",
        count,
        (lambda asked: {number: known[number] for number in asked}) if spell else None,
    )
    return Readout(**arrays, labels=labels)
