"""The design of an ablation: its settings made concrete, its material, its arms, its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxlens import arguments, errors
from jaxlens.corpus import token_file
from jaxlens.models import tokenizer
from jaxlens.sweep.ablation import arms as ablation_arms
from jaxlens.sweep.ablation import blocks, copies, directions, passages, sequences
from jaxlens.sweep.job import Job
from jaxlens.tally import bins

PART = 32
"""Sequences of a part, which is computed and published as a whole."""

MAX_SEQUENCES = 1_000_000
"""Of each material: all of them are drawn before the first is computed."""

NOT_PROBED = "copied tokens without directions of the probe"


@dataclass(frozen=True)
class Settings:
    """What to ablate.

    Attributes:
        arms: Names of ``ablation_file.ARMS``; all that there are by default.
        layers: Numbers or names of streams; all but the last by default.
        blocks: Sequences of repeated blocks, at most ``MAX_SEQUENCES``.
        copies: Copies of the corpus, at most; at most ``MAX_SEQUENCES``.
        seed: Of what is drawn.
    """

    arms: tuple[str, ...] | None = None
    layers: tuple[int | str, ...] | None = None
    blocks: int = 160
    copies: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """Sequences that are computed and published as a whole.

    Attributes:
        number: In the order of all parts.
        material: One of ``ablation_file.MATERIALS``.
        sequences: At most ``PART`` of one group.
    """

    number: int
    material: str
    sequences: sequences.Sequences


@dataclass(frozen=True, eq=False)
class Design:
    """What an ablation computes.

    Attributes:
        names: Arms.
        layers: Numbers of the streams.
        material: Sequences by material.
        arms: Directions of the arms.
    """

    names: tuple[str, ...]
    layers: tuple[int, ...]
    material: dict[str, sequences.Material]
    arms: ablation_arms.Arms

    def parts(self) -> list[Part]:
        """All parts, in their order."""
        cut = [
            (material, group.part(slice(start, start + PART)))
            for material, made in self.material.items()
            for group in made.groups
            for start in range(0, len(group), PART)
        ]
        return [Part(number, *part) for number, part in enumerate(cut)]

    def n_runs(self, part: Part) -> int:
        """Patched runs of the model in a part."""
        return len(part.sequences) * len(self.names) * len(self.layers)

    def n_tokens(self, part: Part) -> int:
        """Tokens that the model sees for a part: two clean runs, and each arm at each layer."""
        return part.sequences.tokens.size * (2 + len(self.names) * len(self.layers))

    def shapes(self, part: Part) -> dict[str, tuple[int, ...]]:
        """Shapes of what `compute.part` returns."""
        n, arms = len(part.sequences), len(self.names)
        shapes: dict[str, tuple[int, ...]] = {"loss": (n, arms, len(self.layers))}
        return shapes | {name: (n, arms) for name in ("n_targets", "clean", "earlier")}


def settings_of_spec(
    settings: Settings, layer_names: Sequence[str], probe: directions.Directions | None
) -> dict[str, Any]:
    """The settings as the spec has them: every value that decides a number.

    Raises:
        ConfigError: They make no sense.
    """
    for name in ("blocks", "copies"):
        arguments.whole(getattr(settings, name), name, 0, MAX_SEQUENCES)
    if not settings.blocks and not settings.copies:
        raise errors.ConfigError("neither blocks nor copies are asked for", "give one of them")
    return {
        "arms": list(ablation_arms.choose(settings.arms, probe is not None)),
        "layers": list(_layers(settings.layers, layer_names)),
        "blocks": settings.blocks,
        "copies": settings.copies,
        "seed": arguments.whole(settings.seed, "seed"),
        "mean_tokens": passages.MEAN_TOKENS,
        "searched_tokens": passages.SEARCHED_TOKENS,
        "probe_sha256": None if probe is None else probe.sha256,
    }


def _layers(wanted: Sequence[int | str] | None, names: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the streams, each once, in rising order."""
    every = range(len(names) - 1)
    if wanted is None:
        return tuple(every)
    numbers = set()
    for word in wanted:
        number = names.index(word) if word in names else word
        if number not in every:
            raise errors.ConfigError(
                f"there is no layer {errors.show(word)} whose stream a copy could read",
                f"give numbers from 0 to {len(every) - 1}, or names such as {names[0]}",
            )
        numbers.add(int(number))
    return tuple(sorted(numbers))


def make(
    job: Job,
    tokens: token_file.TokenFile,
    settings: dict[str, Any],
    probe: directions.Directions | None,
) -> Design:
    """Draws the material, and the directions of the arms.

    Args:
        job: Model, tokens and plan.
        tokens: Open token file.
        settings: From `settings_of_spec`.
        probe: Directions of a probe.
    """
    rarity = bins.type_rarity(tokens.index.token_counts)
    usable, seed = _usable(job), settings["seed"]
    # Blocks can be drawn of what the probe has directions of; copies are as the text has them.
    drawn = usable if probe is None else usable & probe.has(np.arange(len(usable)))
    bos = job.model.config.bos_token_id if job.config.corpus.bos != "none" else None
    length = job.plan.length
    material = {
        "blocks": blocks.make(
            rarity, drawn, count=settings["blocks"], seed=seed, length=length, bos=bos
        ),
        "copies": copies.find(tokens, job.plan, count=settings["copies"], seed=seed),
    }
    embedding = ablation_arms.centred(np.asarray(job.unembed.token_embedding))
    foreign = directions.foreign_tokens(rarity, usable, seed)
    of_probe = None if probe is None else directions.foreign_tokens(rarity, drawn, seed)
    arms = ablation_arms.Arms(embedding, foreign, seed, probe, of_probe)
    return Design(tuple(settings["arms"]), tuple(settings["layers"]), material, arms)


def _usable(job: Job) -> Bool[np.ndarray, " vocab"]:
    """Tokens of the corpus that stand for text: special ones are none."""
    usable = job.ingested.index.token_counts.sum(0) > 0
    special = [t for t in tokenizer.added_ids(job.model.tokenizer) if t < len(usable)]
    usable[special] = False
    return usable


def variables(
    made: sequences.Material,
    values: Sequence[dict[str, np.ndarray]],
    index: token_file.Index | None,
) -> dict[str, np.ndarray]:
    """The variables of a material, as ``ablation_file`` has them.

    Args:
        made: Sequences.
        values: Of each of its parts, in their order.
        index: Of the token file, whose documents are the clusters; None where they are not.
    """

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(group, name) for group in made.groups])

    about = {name: joined(name) for name in ("rarity", "lag", "cluster")}
    about["group"] = about["cluster"]
    if index is not None:
        about["group"] = bins.group_of(index.document_hash[about["cluster"]])
    for name in ("source", "target", "copied"):
        about[name] = np.concatenate([getattr(group, name)[:, 0] for group in made.groups])
    return {
        **{name: np.concatenate([value[name] for value in values]) for name in values[0]},
        **{name: value.astype(np.int32) for name, value in about.items()},
    }


def left_out(design: Design, found: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, int]]:
    """Counts of what could not be used, by material.

    Args:
        design: The design.
        found: Variables of each material.
    """
    counts = {material: dict(made.left_out) for material, made in design.material.items()}
    if "probe" in design.names:
        for material, values in found.items():
            groups = design.material[material].groups
            total = sum(group.target.size for group in groups)
            lacking = total - int(values["n_targets"][:, design.names.index("probe")].sum())
            counts[material] |= {NOT_PROBED: lacking} if lacking else {}
    return counts
