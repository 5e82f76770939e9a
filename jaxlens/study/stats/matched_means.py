"""Means of matched copies and of their controls, each with an interval of its own.

The value of a copy goes with those of its document. The value of a control goes with those of the
control's document, and with those of the copy's, whose controls were chosen to be like it. So a
mean of controls is one over pairs of which those that share a document are correlated, as a matched
difference is (see ``matched``). Clusters of the copies' documents alone cover 34 to 59 % of planted
means of controls.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlens.study.stats import bootstrap, matched


def of_copies(of: matched.Values, level: float = 0.95) -> bootstrap.Estimate:
    """Mean of the matched copies.

    Args:
        of: Values of the matches.
        level: Coverage.
    """
    if not of.n:
        return bootstrap.missing(bootstrap.EMPTY)
    value = float(of.copies.mean())
    deviations = np.broadcast_to(of.copies[:, None] - value, of.held.shape)
    return dataclasses.replace(of, theirs=of.ours).estimate(value, deviations, level)


def of_controls(of: matched.Values, level: float = 0.95) -> bootstrap.Estimate:
    """Mean of the controls, of which those of a match weigh as much as those of any other.

    Args:
        of: Values of the matches.
        level: Coverage.
    """
    if not of.n:
        return bootstrap.missing(bootstrap.EMPTY)
    value = of.mean(of.controls)
    return of.estimate(value, of.controls - value, level)
