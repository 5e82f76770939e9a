"""Random weights of any family."""

import numpy as np

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
