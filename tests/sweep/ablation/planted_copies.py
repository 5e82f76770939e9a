"""A model whose copies are read along a direction that is known, written by hand.

Its stream has three places for each token, A, B and C, and one for each position. The embedding
writes a token into A. Block 0 attends to its own position and writes into B what stands in A. Block
1 attends to the position that follows the earlier occurrence of the current token, which is a fixed
distance back, and writes into C what stands in B. The head reads C. So at layer 0 a copy hangs on
A, at layer 1 on B alone, and from there on on nothing at its source.
"""

import numpy as np

from jaxlens import models

VOCAB, LAG = 24, 8
POSITIONS = 2 * LAG
EMBED = 3 * VOCAB + POSITIONS
A, B, C, PLACE = (i * VOCAB for i in range(4))
SHARP = 60.0
"""Of the attention: what is not meant to be seen has a weight of e**-60."""


def config():
    return {
        "model_type": "gpt2",
        "n_layer": 2,
        "n_head": 1,
        "n_embd": EMBED,
        "n_inner": 4,
        "vocab_size": VOCAB,
        "n_positions": POSITIONS,
        "tie_word_embeddings": False,
    }


def params():
    architecture = models.parse(config())
    made = models.init(architecture, 0)
    made["wte"] = np.zeros((VOCAB, EMBED), np.float32)
    made["wte"][:, A : A + VOCAB] = np.eye(VOCAB)
    made["wpe"] = np.zeros((POSITIONS, EMBED), np.float32)
    made["wpe"][:, PLACE:] = np.eye(POSITIONS)
    for name in ("c_attn", "c_proj"):
        for part in ("attn", "mlp"):
            if name in made["h"][part]:
                made["h"][part][name]["kernel"][:] = 0
    made["h"]["mlp"]["c_fc"]["kernel"][:] = 0
    for block, (source, target, back) in enumerate(((A, B, 0), (B, C, LAG - 1))):
        kernel = made["h"]["attn"]["c_attn"]["kernel"][block]
        query, key, value = (kernel[:, i * EMBED : (i + 1) * EMBED] for i in range(3))
        for position in range(POSITIONS):
            if position >= back:
                query[PLACE + position, position - back] = SHARP
            key[PLACE + position, position] = 1
        value[source : source + VOCAB, :VOCAB] = np.eye(VOCAB)
        made["h"]["attn"]["c_proj"]["kernel"][block][:VOCAB, target : target + VOCAB] = np.eye(
            VOCAB
        )
    made["lm_head"] = {"weight": np.zeros((VOCAB, EMBED), np.float32)}
    made["lm_head"]["weight"][:, C : C + VOCAB] = np.eye(VOCAB)
    return architecture, made


def direction(place, token):
    """The direction of a token at one of its places, other tokens' taken off."""
    vector = np.zeros(EMBED)
    vector[place : place + VOCAB] = -1 / VOCAB
    vector[place + token] += 1
    return vector
