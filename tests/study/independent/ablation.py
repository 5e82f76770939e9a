"""Q3: what copies lose where their source is replaced, from the file of an ablation."""

from __future__ import annotations

import h5py
import numpy as np
from study.independent import bootstrap, rows
from study.independent.lines import Lines

PAIRS = (("embedding", "foreign"), ("embedding", "random"))
PAIRS += tuple(("probe", other) for other in ("random_plane", "foreign_probe", "random_shift"))
LAGS = (1, 16, 64, 256)


def of_run(run, folder):
    lines = Lines()
    with h5py.File(folder / "ablation" / "ablation.h5") as file:
        arms = [name.decode() for name in file["arm"][:]]
        layers = file["layer"][:].tolist()
        for name in ("blocks", "copies"):
            values = {key: file[f"{name}/{key}"][:] for key in file[name] if key != "sequence"}
            material = Material(lines, name, arms, layers, values)
            for stratum, mask in strata(name, values).items():
                material.put(stratum, mask)
            material.of_all(run.middle)
    return lines


def strata(name, values):
    """All sequences, those of each bin of rarity, and those of each lag or bin of lags."""
    found = {"all": np.ones(len(values["lag"]), bool)}
    for b in np.unique(values["rarity"]):
        found[rows.rarity_label(b)] = values["rarity"] == b
    if name == "blocks":
        return found | {f"lag {k}": values["lag"] == k for k in np.unique(values["lag"])}
    for low, high in zip(LAGS, (*LAGS[1:], np.inf), strict=True):
        label = f"lag {low} or more" if np.isinf(high) else f"lag {low} to {high - 1}"
        mask = (values["lag"] >= low) & (values["lag"] < high)
        found |= {label: mask} if mask.any() else {}
    return found


class Material:
    """Lines of one material."""

    def __init__(self, lines, name, arms, layers, values):
        self.lines, self.name, self.arms, self.layers = lines, name, arms, layers
        self.values = values
        self.gain = values["clean"] - values["earlier"]

    def ratio(self, top, bottom, size, mask):
        """Sum over sum of what sequences add, and its error over clusters of sequences."""
        mask = mask & (size > 0)
        if not mask.any():
            return np.nan, np.nan
        clusters, unit = np.unique(self.values["cluster"][mask], return_inverse=True)
        sums = [
            bootstrap.totals((x * size)[mask], unit.ravel(), len(clusters)) for x in (top, bottom)
        ]
        return bootstrap.estimate(np.divide, *sums)

    def mean(self, values, size, mask):
        return self.ratio(values, np.ones(len(values)), size, mask)

    def paired(self, name, signs, stratum, mask):
        """A signed sum of the losses of arms, where all of them are defined."""
        if set(signs) <= set(self.arms):
            places = [self.arms.index(arm) for arm in signs]
            size = self.values["n_targets"][:, places].min(1)
            for row, layer in enumerate(self.layers):
                summed = self.values["loss"][:, places, row].astype(float) @ list(signs.values())
                number = self.mean(summed, size, mask)
                self.lines.put(f"{name}", *number, stratum=stratum, layer=layer)

    def put(self, stratum, mask):
        """Gain, losses and their differences in a stratum."""
        targets = self.values["n_targets"]
        most = targets[mask].sum(0).argmax()
        gain = self.mean(self.gain[:, most], targets[:, most], mask)
        self.lines.put(f"ablation_gain_{self.name}", *gain, stratum=stratum)
        for arm in self.arms:
            self.paired(f"ablation_loss_{self.name}_{arm}", {arm: 1}, stratum, mask)
        for one, other in PAIRS:
            name = f"ablation_difference_{self.name}_{one}_{other}"
            self.paired(name, {one: 1, other: -1}, stratum, mask)

    def of_all(self, middle):
        """Shares of the copy gain, and sums of the disjoint arms."""
        every = np.ones(len(self.gain), bool)
        targets, loss = self.values["n_targets"], self.values["loss"].astype(float)
        for i, arm in enumerate(self.arms):
            for row, layer in enumerate(self.layers):
                number = self.ratio(loss[:, i, row], self.gain[:, i], targets[:, i], every)
                self.lines.put(f"ablation_share_{self.name}_{arm}", *number, layer=layer)
        early = [row for row, layer in enumerate(self.layers) if 0 < layer <= middle]
        for one, other in PAIRS:
            if {one, other} <= set(self.arms):
                i, j = self.arms.index(one), self.arms.index(other)
                lost = (loss[:, i] - loss[:, j])[:, early].mean(1)
                gained, size = self.gain[:, [i, j]].mean(1), targets[:, [i, j]].min(1)
                number = self.ratio(lost, gained, size, every)
                self.lines.put(f"ablation_early_{self.name}_{one}_{other}", *number)
        own = {"probe" if "probe" in self.arms else "embedding": 1, "rest": 1}
        self.paired(f"ablation_sum_{self.name}", own, "all", every)
        name = f"ablation_sum_minus_whole_{self.name}"
        self.paired(name, own | {"whole": -1}, "all", every)
