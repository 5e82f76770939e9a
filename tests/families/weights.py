"""Random weights for the models of ``CASES``, from a seed."""

import numpy as np
import random_model

from jaxlens import models
from jaxlens.models.checkpoints import layout


def random_weights(architecture, seed=0):
    """Weights far from their initialisation, so that no norm is 1 and no bias is 0."""
    random = np.random.default_rng(seed)
    expected = models.leaves(architecture)

    def fresh(leaf):
        values = random.standard_normal(expected.stacked_shape(leaf), np.float32)
        if len(leaf.shape) == 1:
            return values * np.float32(0.3) + np.float32(not leaf.path.endswith("bias"))
        return values * np.float32(leaf.shape[0] ** -0.5 if "kernel" in leaf.path else 1.0)

    return layout.nested({leaf.path: fresh(leaf) for leaf in expected.required()})


def random_state(architecture, seed):
    """Weights of a golden, under the names of transformers; the same bits on every machine."""
    expected = models.leaves(architecture)
    shapes = {
        expected.full_name(leaf, "torch", layer): (
            leaf.shape[::-1] if "torch" in leaf.transposed_in else leaf.shape
        )
        for leaf in expected.required()
        for layer in range(expected.copies(leaf))
    }
    return random_model.random_state(shapes, seed)
