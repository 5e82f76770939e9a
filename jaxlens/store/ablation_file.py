"""``ablation.h5``, the result of an ablation; offline code reads it without JAX.

It ends with the sha256 of the rest, and holds the spec and its hash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxlens import config, errors
from jaxlens.files import contained, publish
from jaxlens.store import begun, strict_json
from jaxlens.store.hdf5 import buffers, reading, writing

FOLDER = "ablation"
"""Where an ablation goes in the folder of its run."""

SPEC, RESULT = "ABLATION.json", "ablation.h5"
VERSION = 1

ARMS = (
    "probe",
    "embedding",
    "foreign",
    "random",
    "random_plane",
    "foreign_probe",
    "random_shift",
    "whole",
    "rest",
)
"""All arms, in the order of the files."""

OF_PROBE = frozenset({"probe", "random_plane", "foreign_probe", "random_shift"})
"""Those that exist where a probe has left directions."""

MATERIALS = ("blocks", "copies")
"""Repeated random blocks, and copies in the text of the corpus."""

MAX_BYTES = 1 << 32
"""Most bytes of a variable."""

_VARIABLES: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "loss": (
        ("sequence", "arm", "layer"),
        "nat",
        "mean loss of log-probability of the copied tokens, clean minus patched",
    ),
    "n_targets": (("sequence", "arm"), "1", "copied tokens for which the arm is defined"),
    "clean": (("sequence", "arm"), "nat", "mean clean log-probability of those copied tokens"),
    "earlier": (
        ("sequence", "arm"),
        "nat",
        "mean clean log-probability of those tokens at their earlier occurrence",
    ),
    "rarity": (("sequence",), "1", "bin of rarity of the copied tokens, 1 nat wide"),
    "lag": (("sequence",), "1", "tokens from the source to its copy"),
    "cluster": (("sequence",), "1", "sequence of blocks, or document of the corpus"),
    "group": (("sequence",), "1", "group of documents; of blocks the number of the sequence"),
    "source": (("sequence",), "1", "position of the first source"),
    "target": (("sequence",), "1", "position that predicts the first copied token"),
    "copied": (("sequence",), "id", "first copied token"),
}
"""Axes, unit and meaning of each variable of a material."""


@dataclass(frozen=True, eq=False)
class Losses:
    """What one material lost.

    Attributes:
        loss: Mean over the copied tokens of a sequence, nat; NaN where the arm is not defined.
        n_targets: Copied tokens for which it is.
        clean: Their mean log-probability without a patch.
        earlier: The same at their earlier occurrence.
        rarity: Bin of rarity.
        lag: Tokens from source to copy.
        cluster: What sequences of one document share.
    """

    loss: Float[np.ndarray, "sequence arm layer"]
    n_targets: Int[np.ndarray, "sequence arm"]
    clean: Float[np.ndarray, "sequence arm"]
    earlier: Float[np.ndarray, "sequence arm"]
    rarity: Int[np.ndarray, " sequence"]
    lag: Int[np.ndarray, " sequence"]
    cluster: Int[np.ndarray, " sequence"]

    def __len__(self) -> int:
        return len(self.lag)

    def where(self, mask: np.ndarray) -> Losses:
        """Some of the sequences."""
        return Losses(*(value[mask] for value in vars(self).values()))

    def mean_loss(self) -> Float[np.ndarray, "arm layer"]:
        """Mean loss over all copied tokens; NaN of an arm that is defined for none."""
        count = self.n_targets.sum(0)[:, None]
        total = np.where(np.isnan(self.loss), 0.0, self.loss * self.n_targets[:, :, None]).sum(0)
        none = np.full(total.shape, np.nan)
        return np.divide(total, count, out=none, where=np.broadcast_to(count, total.shape) > 0)

    def gain(self) -> float:
        """Mean clean log-probability of a copy minus that of its earlier occurrence.

        Over the copied tokens of the arm that is defined for most of them; NaN for no tokens.
        """
        if not self.n_targets.size or not self.n_targets.any():
            return math.nan
        arm = int(self.n_targets.sum(0).argmax())
        count = self.n_targets[:, arm]
        difference = (self.clean - self.earlier)[:, arm][count > 0]
        return float(np.average(difference, weights=count[count > 0]))


@dataclass(frozen=True)
class Notes:
    """What the numbers of an ablation rest on.

    Attributes:
        mean_positions: Positions of the corpus that the mean stream is over.
        left_out: Counts of what could not be used, by reason, of each material.
    """

    mean_positions: int
    left_out: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, eq=False)
class Ablation:
    """A finished ablation.

    Attributes:
        spec: What it computed.
        arms: Names, in the order of the axis.
        layers: Numbers of the streams, in the order of the axis.
        materials: By name; those without sequences are left out.
        notes: What the numbers rest on.
    """

    spec: Mapping[str, Any]
    arms: tuple[str, ...]
    layers: tuple[int, ...]
    materials: Mapping[str, Losses]
    notes: Notes


def write(
    folder: str | Path,
    spec_bytes: bytes,
    materials: Mapping[str, Mapping[str, np.ndarray]],
    layer_names: Sequence[str],
    mean: Float[np.ndarray, "layer embed"],
    notes: Notes,
) -> None:
    """Publishes ``ablation.h5``; the same values give the same bytes.

    Args:
        folder: Of the ablation.
        spec_bytes: Canonical JSON; its arms and layers are those of the axes.
        materials: Of each material the variables of this module.
        layer_names: Names of the layers of the axis.
        mean: What took the place of the stream, at each of the layers.
        notes: What the numbers rest on.

    Raises:
        StorageError: The disk refuses.
    """
    spec = json.loads(spec_bytes)
    buffer = buffers.Buffer()
    about = {
        "spec": spec_bytes.decode("ascii"),
        "spec_hash": config.spec_hash(spec_bytes),
        "mean_positions": notes.mean_positions,
        "left_out": json.dumps(notes.left_out, sort_keys=True),
    }
    with writing.new_file(buffer) as file:
        writing.describe(file, "Logit lens, ablation at the source of copies", about, VERSION)
        scales = {"layer": writing.scale(file, "layer", np.array(_layers(spec), np.int32))}
        writing.attach(writing.label_dataset(file, "layer_name", layer_names), ("layer",), scales)
        scales["arm"] = writing.label_dataset(file, "arm", _arms(spec))
        writing.make_scale(scales["arm"], "arm")
        scales["embed"] = writing.scale(file, "embed", np.arange(mean.shape[1], dtype=np.int32))
        item = writing.dataset(file, "mean", mean, compress=True)
        writing.explain(item, "1", "mean stream that takes the place of what is removed")
        writing.attach(item, ("layer", "embed"), scales)
        for material, variables in materials.items():
            group = writing.new_group(file, material)
            count = len(variables["lag"])
            inner = scales | {"sequence": writing.scale(group, "sequence", np.arange(count))}
            for name, (axes, unit, meaning) in _VARIABLES.items():
                item = writing.dataset(group, name, variables[name], compress=True)
                writing.explain(item, unit, meaning)
                writing.attach(item, axes, inner)
    publish.publish(contained.contained(folder, RESULT), reading.seal(buffer.image()))


def read(folder: str | Path) -> Ablation:
    """A finished ablation.

    Raises:
        MissingError: There is none.
        DataError: It is damaged.
    """
    path = contained.contained(folder, RESULT)
    hint = begun.make_again(path, f"jaxlens ablate {Path(folder).parent}")
    with errors.hinted(hint), _opened(path) as contents, reading.reading(path):
        raw = str(contents.attribute("spec"))
        if config.spec_hash(raw.encode("ascii")) != contents.attribute("spec_hash"):
            raise ValueError("its spec is not that of its hash")
        spec = strict_json.parse(raw.encode("ascii"), str(path))
        materials = {
            material: Losses(
                **{
                    name: reading.whole(contents.datasets[f"{material}/{name}"], MAX_BYTES)
                    for name in Losses.__dataclass_fields__
                }
            )
            for material in MATERIALS
            if f"{material}/loss" in contents.datasets
        }
        left_out = strict_json.parse(str(contents.attribute("left_out")).encode(), str(path))
        notes = Notes(int(contents.attribute("mean_positions")), left_out)
        found = Ablation(spec, _arms(spec), _layers(spec), materials, notes)
        for losses in materials.values():
            if losses.loss.shape[1:] != (len(found.arms), len(found.layers)):
                raise ValueError("its losses are not those of its arms and layers")
        return found


def _opened(path: Path) -> reading.Contents:
    try:
        return reading.open_sealed(path)
    except errors.MissingError as error:
        raise errors.MissingError(
            f"{path.parent} holds no finished ablation: {RESULT} is missing", "run jaxlens ablate"
        ) from error


def is_finished(folder: str | Path, spec_hash: str) -> bool:
    """Whether the ablation of a spec is there, whole.

    Raises:
        StorageError: The system refused to read.
    """
    path = contained.contained(folder, RESULT)
    try:
        with reading.open_sealed(path) as contents, reading.reading(path):
            return contents.attribute("spec_hash") == spec_hash
    except (errors.MissingError, errors.DataError):
        return False


def _arms(spec: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, spec["ablation"]["arms"]))


def _layers(spec: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, spec["ablation"]["layers"]))
