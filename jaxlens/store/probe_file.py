"""The files of a linear probe in a run's folder ``probe``: its result, and its directions by layer.

``probe.h5`` holds integers alone, by groups of documents, from which the study makes its intervals.
``directions/layer-00.h5`` and so on hold the fitted probe of the own token, for ablations.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxlens import config, errors
from jaxlens.files import contained
from jaxlens.store import begun, directions_file, layout, strict_json
from jaxlens.store.hdf5 import images, reading
from jaxlens.tally import bins

FOLDER = "probe"
RESULT = "probe.h5"
SPEC = "PROBE.json"
DIRECTIONS = "directions"

TARGETS = ("own", "previous", "two_back", "permuted")
"""Tokens that are read: at the position, one and two before it, and the null of permuted labels."""

READOUTS = ("probe", "lens")
STATISTICS = ("positions", "hits_1", "hits_10", "logp")
"""What is counted of held-out positions; ``logp`` is a sum in units of 2^-16 nat."""

MIN_COUNT = 2
"""Training occurrences of a candidate at least; of others there is no mean."""

AXES = ("target", "readout", "statistic", "layer", "rarity", "group")
"""Axes of ``Probe.evaluation``."""

_STORED_AXES = ("layer", "target", "readout", "statistic", "rarity", "group")
"""In the file: one layer stays small, however many there are."""

_LIMIT = 1 << 32
_COUNTS = ("training_positions", "held_out_positions", "training_documents", "held_out_documents")


@dataclass(frozen=True, eq=False)
class Probe:
    """The result of a probe.

    Attributes:
        evaluation: ``[target, readout, statistic, layer, rarity, group]``: held-out positions whose
            target is a candidate, hits within the first 1 and 10 of the candidates, and the sum of
            log-probabilities in 2^-16 nat. Rarity is that of the target token, in bins of 1 nat.
        outside: ``[target, rarity, group]``: held-out positions whose target is no candidate.
        class_token: ``[class]``: token id of each class.
        class_count: ``[target, class]``: training occurrences; a candidate has at least two.
        layer_names: Labels of the layers.
        counts: Sizes of the data: positions and documents, training and held-out.
        spec: What decides the result.
    """

    evaluation: Int64[np.ndarray, "target readout statistic layer rarity group"]
    outside: Int64[np.ndarray, "target rarity group"]
    class_token: Int64[np.ndarray, " class"]
    class_count: Int64[np.ndarray, "target class"]
    layer_names: tuple[str, ...]
    counts: Mapping[str, int]
    spec: Mapping[str, Any]

    def of(self, target: str, readout: str, statistic: str) -> np.ndarray:
        """``[layer, rarity, group]`` of the evaluation."""
        places = TARGETS.index(target), READOUTS.index(readout), STATISTICS.index(statistic)
        return self.evaluation[places]


def path(run_dir: str | Path, *parts: str) -> Path:
    """A file of the probe of a run."""
    return contained.contained(run_dir, FOLDER, *parts)


def directions_path(run_dir: str | Path, layer: int) -> Path:
    """The directions of a layer."""
    return path(run_dir, DIRECTIONS, directions_name(layer))


def directions_name(layer: int) -> str:
    """``layer-00.h5``."""
    return f"layer-{layer:02d}.h5"


def hint(run_dir: str | Path, where: Path) -> str:
    """What helps where a file of a finished probe is damaged."""
    return begun.make_again(where, f"jaxlens probe {run_dir}")


def exists(run_dir: str | Path) -> bool:
    """Whether the run has a finished probe."""
    return path(run_dir, RESULT).is_file()


def image(probe: Probe) -> bytes:
    """The bytes of ``probe.h5``, with their checksum."""
    spec_bytes = config.canonical(probe.spec)
    arrays = {
        "evaluation": np.moveaxis(probe.evaluation, AXES.index("layer"), 0),
        "outside": probe.outside,
        "class_token": probe.class_token,
        "class_count": probe.class_count,
        "layer_name": np.array([name.encode() for name in probe.layer_names], "S"),
    }
    axes = {
        "evaluation": _STORED_AXES,
        "outside": ("target", "rarity", "group"),
        "class_token": ("class",),
        "class_count": ("target", "class"),
        "layer_name": ("layer",),
    }
    attributes = {
        "spec": spec_bytes.decode("ascii"),
        "spec_hash": config.spec_hash(spec_bytes),
        "targets": ",".join(TARGETS),
        "readouts": ",".join(READOUTS),
        "statistics": ",".join(STATISTICS),
        **probe.counts,
    }
    return reading.seal(images.arrays_image(arrays, attributes, axes))


def read(run_dir: str | Path) -> Probe:
    """Reads the result of a probe.

    Raises:
        MissingError: There is none.
        DataError: It is damaged, or of another version.
    """
    where = path(run_dir, RESULT)
    try:
        with errors.hinted(hint(run_dir, where)):
            arrays, attributes = _read(where)
    except errors.MissingError as error:
        raise errors.MissingError(
            f"{run_dir} has no finished probe", f"make one with jaxlens probe {run_dir}"
        ) from error
    with errors.hinted(hint(run_dir, where)), reading.reading(where):
        raw = str(attributes["spec"]).encode("ascii")
        if config.spec_hash(raw) != attributes["spec_hash"]:
            raise ValueError("its spec is not that of its hash")
        return _checked(arrays, attributes, parse_spec(raw, str(where)))


def read_of_run(run_dir: str | Path) -> Probe | None:
    """Reads the probe of a run, if it has a finished one.

    Raises:
        DataError: It is damaged, or of another run than the one in whose folder it is.
    """
    if not exists(run_dir):
        return None
    probe = read(run_dir)
    if config.spec_hash(config.canonical(probe.spec["run"])) != layout.read_spec(run_dir).hash:
        raise errors.DataError(
            f"{path(run_dir, RESULT)} is of another run",
            f"remove its folder, and make a probe of this run: jaxlens probe {run_dir}",
        )
    return probe


def _checked(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any], spec: dict[str, Any]
) -> Probe:
    names = {"targets": TARGETS, "readouts": READOUTS, "statistics": STATISTICS}
    for name, known in names.items():
        if attributes[name] != ",".join(known):
            raise ValueError(f"its {name} are {attributes[name]!s:.80}")
    layer_names = tuple(label.decode("utf-8") for label in arrays["layer_name"])
    evaluation, outside = arrays["evaluation"], arrays["outside"]
    sizes = (bins.FREQUENCY_BINS, bins.GROUPS)
    n_classes = len(arrays["class_token"])
    shapes = {
        "evaluation": (len(layer_names), *map(len, names.values()), *sizes),
        "outside": (len(TARGETS), *sizes),
        "class_count": (len(TARGETS), n_classes),
        "class_token": (n_classes,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype != np.int64:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}")
    probe = Probe(
        evaluation=np.moveaxis(evaluation, 0, AXES.index("layer")),
        outside=outside,
        class_token=arrays["class_token"],
        class_count=arrays["class_count"],
        layer_names=layer_names,
        counts={name: int(attributes[name]) for name in _COUNTS},
        spec=spec,
    )
    _require_sense(probe)
    return probe


def _require_sense(probe: Probe) -> None:
    """Refuses counts that no held-out positions add up to.

    Raises:
        ValueError: Naming what makes no sense.
    """
    positions, first, ten, logp = np.moveaxis(probe.evaluation, AXES.index("statistic"), 0)
    judged = positions[:, 0, 0]
    total = judged.sum((1, 2), dtype=np.float64) + probe.outside.sum((1, 2), dtype=np.float64)
    lowest = -float(bins.FIXED_POINT_LIMIT) * bins.ONE
    sense = {
        "positions": (positions == judged[:, None, None]).all() and (judged >= 0).all(),
        "hits": (first >= 0).all() and (first <= ten).all() and (ten <= positions).all(),
        "logp": (logp <= 0).all() and (logp >= lowest * positions).all(),
        "outside": (probe.outside >= 0).all() and total.max() <= probe.counts[_COUNTS[1]],
        "class_count": (probe.class_count >= 0).all(),
    }
    for name, holds in sense.items():
        if not holds:
            raise ValueError(f"its {name} make no sense")


def read_directions(run_dir: str | Path, layer: int) -> directions_file.Directions:
    """Reads the directions of the own token at a layer.

    Args:
        run_dir: Run with a finished probe.
        layer: Number of the residual stream, 0 the embedding.

    Raises:
        MissingError: There are none.
        DataError: They are damaged, or of another probe than ``probe.h5``.
    """
    result = path(run_dir, RESULT)
    with errors.hinted(hint(run_dir, result)):
        spec_hash = _read(result)[1].get("spec_hash")
    with _of_layer(run_dir, layer, spec_hash) as contents:
        return directions_file.read(contents)


def check_directions(run_dir: str | Path, layer: int, spec_hash: str) -> None:
    """Checks the directions of a layer without reading their numbers.

    Args:
        run_dir: Run with a finished probe.
        layer: Number of the residual stream.
        spec_hash: Of the probe.

    Raises:
        MissingError: There are none.
        DataError: They are damaged, of another layer, or of another probe.
    """
    with _of_layer(run_dir, layer, spec_hash):
        pass


@contextlib.contextmanager
def _of_layer(
    run_dir: str | Path, layer: int, spec_hash: int | str | None
) -> Generator[reading.Contents]:
    """The open file of a layer; errors of the block are those of the file."""
    where = directions_path(run_dir, layer)
    try:
        with (
            errors.hinted(hint(run_dir, where)),
            directions_file.opened(where, layer, spec_hash) as contents,
        ):
            yield contents
    except errors.MissingError as error:
        again = f"run the same jaxlens probe {run_dir} again: it makes them again"
        raise errors.MissingError(error.message, again) from error


def _read(where: Path) -> tuple[dict[str, np.ndarray], dict[str, int | str]]:
    """Arrays and attributes of a file that ends with its checksum."""
    with reading.open_sealed(where) as contents, reading.reading(where):
        stored = {name: item for name, item in contents.datasets.items() if not item.is_scale}
        arrays = {name: reading.whole(item, _LIMIT) for name, item in stored.items()}
        return arrays, {name: contents.attribute(name) for name in contents.file.attrs}


def parse_spec(raw: bytes, name: str) -> dict[str, Any]:
    """The document of ``PROBE.json``.

    Raises:
        DataError: It is damaged.
    """
    document = strict_json.parse(raw, name)
    if not isinstance(document.get("run"), dict) or not isinstance(document.get("probe"), dict):
        raise errors.DataError(
            f"{name} is damaged: {json.dumps(document)[:80]}", begun.start_anew(Path(name).parent)
        )
    return document
