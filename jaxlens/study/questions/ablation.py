"""Q3, causally. Along which directions at its source, and at which layers, is a copy read?

``jaxlens ablate`` replaces a part of the stream at the source of copies and records what their
log-probability loses. A direction that copies are read along loses more than one of another token,
or a random one, that is removed at the same place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxlens import designs, errors
from jaxlens.files import contained
from jaxlens.store import ablation_file
from jaxlens.study import inputs
from jaxlens.study.estimators.ablation import DIFFERENCES
from jaxlens.study.stats import bootstrap, clustered_ratio, multiplicity
from jaxlens.study.table import Result, result

LAGS = (1, 16, 64, 256)
"""Edges of the bins of lag of natural copies."""


PRIMARIES = (
    "ablation_early_blocks_embedding_foreign",
    "ablation_early_blocks_probe_random_shift",
)
"""Whether copies are read along the own embedding, and along the probe's directions."""


def load(run: inputs.RunInfo) -> ablation_file.Ablation | None:
    """The finished ablation of a run; None where there is none.

    Raises:
        DataError: It is of another model or corpus than the run, or damaged.
    """
    folder = contained.contained(run.path, ablation_file.FOLDER, "any").parent
    with contextlib.suppress(errors.MissingError):
        found = ablation_file.read(folder)
        for name in ("model", "corpus", "null"):
            if found.spec[name] != run.spec[name]:
                raise errors.DataError(
                    f"{folder} is of another {name} than its run",
                    f"remove it, then run jaxlens ablate {run.path}",
                )
        return found
    return None


def estimate(run: inputs.RunInfo) -> list[Result]:
    """All lines of a run's ablation; none where it has none."""
    found = load(run)
    if found is None:
        return []
    lines = []
    for material, losses in found.materials.items():
        lines_of = _Material(run, found.arms, found.layers, material)
        for stratum, mask in _strata(material, losses):
            part = losses.where(mask)
            lines += [lines_of.gain(part, stratum), *lines_of.losses(part, stratum)]
            lines += lines_of.differences(part, stratum)
            if stratum == "all":
                lines += [*lines_of.shares(part), *lines_of.early(part), *lines_of.sums(part)]
    return lines


_OF_RUN = ("arms", "layers", "probe_sha256")
"""Settings that decide which lines an ablation has, or that follow from the model."""


def require_same_settings(
    run: inputs.RunInfo,
    ours: ablation_file.Ablation,
    other: inputs.RunInfo,
    theirs: ablation_file.Ablation,
) -> None:
    """Refuses two ablations that were not made with the same options.

    Arms and layers may differ: a line that needs one which is not there has no number.

    Raises:
        ConfigError: Naming what differs.
    """
    mine, found = ours.spec["ablation"], theirs.spec["ablation"]
    for name in sorted((mine | found).keys() - set(_OF_RUN)):
        if mine.get(name) != found.get(name):
            raise errors.ConfigError(
                f"the ablation of {other.path} differs from that of {run.path}: {name} is "
                f"{found.get(name)!s:.40}, not {mine.get(name)!s:.40}",
                f"remove {other.path}/{ablation_file.FOLDER}, and make it with the same options",
            )


def absent(run: inputs.RunInfo, lines: list[Result]) -> list[Result]:
    """The primaries that a run without an ablation, or without some of its arms, lacks."""
    known = {line.estimator for line in lines if line.run == run.label}
    made = any(name.startswith("ablation_gain") for name in known)
    why = bootstrap.missing(
        "the ablation lacks repeated blocks or an arm: remove its folder, then jaxlens ablate RUN"
        if made
        else "no ablation was made: jaxlens probe RUN, then jaxlens ablate RUN"
    )
    missing = [name for name in PRIMARIES if name not in known]
    smallest = multiplicity.SMALLEST["copy"]
    return [result(run, name, why, smallest=smallest, primary=True) for name in missing]


def _strata(material: str, losses: ablation_file.Losses) -> Iterator[tuple[str, np.ndarray]]:
    """All sequences, and those of each bin of rarity and of each lag."""
    yield "all", np.ones(len(losses), bool)
    for number in np.unique(losses.rarity).tolist():
        yield inputs.rarity_label(number), losses.rarity == number
    if material == "blocks":
        for lag in np.unique(losses.lag).tolist():
            yield f"lag {lag}", losses.lag == lag
        return
    place = np.searchsorted(LAGS, losses.lag, side="right") - 1
    for i in np.unique(place).tolist():
        last = i == len(LAGS) - 1
        name = f"lag {LAGS[i]} or more" if last else f"lag {LAGS[i]} to {LAGS[i + 1] - 1}"
        yield name, place == i


@dataclass(frozen=True, eq=False)
class _Material:
    """Lines of one material: the run that they are of, its arms and layers, and the name."""

    run: inputs.RunInfo
    arms: tuple[str, ...]
    layers: tuple[int, ...]
    name: str

    def gain(self, losses: ablation_file.Losses, stratum: str) -> Result:
        """The clean copy gain."""
        arm = int(losses.n_targets.sum(0).argmax())
        size = losses.n_targets[:, arm]
        gained = (losses.clean - losses.earlier)[:, arm]
        mean = _mean(gained, size, losses.cluster)
        return result(self.run, f"ablation_gain_{self.name}", mean, stratum=stratum)

    def losses(self, losses: ablation_file.Losses, stratum: str) -> Iterator[Result]:
        """The loss of each arm at each layer."""
        for i, arm in enumerate(self.arms):
            for row, layer in enumerate(self.layers):
                size = losses.n_targets[:, i]
                mean = _mean(losses.loss[:, i, row], size, losses.cluster)
                name = f"ablation_loss_{self.name}_{arm}"
                yield result(self.run, name, mean, layer=layer, stratum=stratum)

    def shares(self, losses: ablation_file.Losses) -> Iterator[Result]:
        """The loss of each arm over the copy gain of the same tokens."""
        for i, arm in enumerate(self.arms):
            size = losses.n_targets[:, i]
            gained = (losses.clean - losses.earlier)[:, i]
            for row, layer in enumerate(self.layers):
                lost = losses.loss[:, i, row]
                name = f"ablation_share_{self.name}_{arm}"
                share = _share(lost, gained, size, losses.cluster)
                yield result(self.run, name, share, layer=layer)

    def differences(self, losses: ablation_file.Losses, stratum: str) -> Iterator[Result]:
        """Differences of arms, paired by sequence."""
        for arm, other in DIFFERENCES:
            if arm in self.arms and other in self.arms:
                name = f"ablation_difference_{self.name}_{arm}_{other}"
                yield from self._paired(name, losses, {arm: 1.0, other: -1.0}, stratum)

    def early(self, losses: ablation_file.Losses) -> Iterator[Result]:
        """Differences of arms over the layers to mid depth, as a share of the copy gain.

        Layer 0 is left out: there the stream is the embedding, and what removes it is known.
        """
        wanted = range(1, self.run.middle + 1)
        rows = [self.layers.index(layer) for layer in wanted if layer in self.layers]
        lacking = f"needs the losses at all layers from 1 to {self.run.middle}"
        for arm, other in DIFFERENCES:
            if not {arm, other} <= set(self.arms):
                continue
            pair = [self.arms.index(name) for name in (arm, other)]
            size = losses.n_targets[:, pair].min(1)
            gained = (losses.clean - losses.earlier)[:, pair].mean(1)
            lost = (losses.loss[:, pair[0]] - losses.loss[:, pair[1]])[:, rows].mean(1)
            name = f"ablation_early_{self.name}_{arm}_{other}"
            yield result(
                self.run,
                name,
                _share(lost, gained, size, losses.cluster)
                if len(rows) == len(wanted)
                else bootstrap.missing(lacking),
                smallest=multiplicity.SMALLEST["copy"],
                primary=name in PRIMARIES
                and self.run.kind == inputs.TRAINED
                and self.run.corpus == designs.TEXT,
            )

    def sums(self, losses: ablation_file.Losses) -> Iterator[Result]:
        """The losses of disjoint arms added up, and that sum beside the whole."""
        own = "probe" if "probe" in self.arms else "embedding"
        if {own, "rest"} <= set(self.arms):
            sign = {own: 1.0, "rest": 1.0}
            yield from self._paired(f"ablation_sum_{self.name}", losses, sign)
            if "whole" in self.arms:
                name = f"ablation_sum_minus_whole_{self.name}"
                yield from self._paired(name, losses, sign | {"whole": -1.0})

    def _paired(
        self,
        name: str,
        losses: ablation_file.Losses,
        sign: dict[str, float],
        stratum: str = "all",
    ) -> Iterator[Result]:
        """A signed sum of arms, over the sequences in which all of them are defined."""
        numbers = [self.arms.index(arm) for arm in sign]
        size = losses.n_targets[:, numbers].min(1)
        for row, layer in enumerate(self.layers):
            values = losses.loss[:, numbers, row] @ np.array(list(sign.values()))
            mean = _mean(values, size, losses.cluster)
            yield result(self.run, name, mean, layer=layer, stratum=stratum)


def _mean(
    values: Float[np.ndarray, " sequence"],
    size: Int[np.ndarray, " sequence"],
    cluster: Int[np.ndarray, " sequence"],
) -> bootstrap.Estimate:
    """A mean over copied tokens, of the sequences that have any."""
    some = size > 0
    return clustered_ratio.mean(values[some].astype(np.float64), size[some], cluster[some])


def _share(
    lost: Float[np.ndarray, " sequence"],
    gained: Float[np.ndarray, " sequence"],
    size: Int[np.ndarray, " sequence"],
    cluster: Int[np.ndarray, " sequence"],
) -> bootstrap.Estimate:
    some = size > 0
    columns = (np.asarray(x[some], np.float64) for x in (lost * size, gained * size, size))
    losses, gains, sizes = clustered_ratio.totals(cluster[some], *columns)
    return clustered_ratio.ratio(losses, gains, sizes)
