"""Every estimator of the study: its name, question, meaning, unit, and kind of interval.

What ``schema`` is for columns this is for the lines of the study's table: questions refer to
estimators by name. ``ESTIMATORS`` has all of them, and ``FAMILIES`` their definitions, with
placeholders where one definition serves several measures or ranks. Each question has a module with
its table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jaxlens.study.estimators import (
    ablation,
    copying,
    discarding,
    probing,
    rarity,
    uncertainty,
)
from jaxlens.study.estimators.definition import (
    BOOTSTRAP,
    CLUSTERED,
    COPY_COVARIATES,
    CROSSING,
    FALLING,
    HELD,
    NONE,
    ON_DEMAND,
    PAIRED,
    RECORDED,
    RECOVERED,
    RETRIEVAL_RANKS,
    RETRIEVED,
    ROBUST,
    ROOM,
    TWO_WAY,
    TYPES,
    WILSON,
    WITHIN,
    Estimator,
    Members,
)

__all__ = [
    "BOOTSTRAP",
    "CLUSTERED",
    "COPY_COVARIATES",
    "CROSSING",
    "ESTIMATORS",
    "FALLING",
    "FAMILIES",
    "HELD",
    "NONE",
    "ON_DEMAND",
    "PAIRED",
    "RECORDED",
    "RECOVERED",
    "RETRIEVAL_RANKS",
    "RETRIEVED",
    "ROBUST",
    "ROOM",
    "TWO_WAY",
    "TYPES",
    "WILSON",
    "WITHIN",
    "Estimator",
    "Members",
]

_TABLES = tuple(one.TABLE for one in (uncertainty, discarding, probing, rarity, copying, ablation))


def _families() -> Iterator[tuple[Estimator, Members]]:
    for table in _TABLES:
        for group, meanings in table.items():
            for name, meaning in meanings.items():
                rest = group.unit, group.interval, group.tested
                yield Estimator(name, group.question, meaning, *rest), group.members


FAMILIES: tuple[tuple[Estimator, Members], ...] = tuple(_families())
"""Definitions, in the order of the questions, with what their placeholders stand for."""


def _members() -> Iterator[Estimator]:
    for family, members in FAMILIES:
        for values in members:
            name, meaning = (text.format(**values) for text in (family.name, family.meaning))
            yield dataclasses.replace(family, name=name, meaning=meaning)


ESTIMATORS = {estimator.name: estimator for estimator in _members()}
"""Every estimator by its name."""
