"""What the study knows of a run: its tallies, its sizes, and what kind of run it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxlens import designs, errors
from jaxlens.store import reader, token_counts_file
from jaxlens.study import demeaned, fold, mean_stream, positions
from jaxlens.study.stats import binned
from jaxlens.tally import axes, bins, definitions

TRAINED, RANDOM_INIT, SHUFFLED = "trained", "random-init", "shuffled"

FIRST_EDITION = "needs the second edition of the tallies: a new run with --tallies study, or rows"


@dataclass(frozen=True, eq=False)
class RunInfo:
    """What kind of run it is.

    Attributes:
        path: Run directory.
        label: ``trained``, or the kind of null run with its seed.
        kind: ``trained``, ``random-init`` or ``shuffled``.
        spec: What the run computes.
        layer_names: Labels of the layers.
    """

    path: Path
    label: str
    kind: str
    spec: Mapping[str, Any]
    layer_names: tuple[str, ...]

    @property
    def n_layers(self) -> int:
        """Number of residual streams."""
        return len(self.layer_names)

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        return int(self.spec["model"]["architecture"]["vocab_size"])

    @property
    def depths(self) -> np.ndarray:
        """Depth of each layer, from 0 to 1."""
        return np.arange(self.n_layers) / (self.n_layers - 1)

    @property
    def middle(self) -> int:
        """The layer at mid depth."""
        return definitions.mid_depth(self.n_layers)

    @property
    def corpus(self) -> str:
        """Kind of the corpus, see ``designs``."""
        return str(self.spec["corpus"].get("kind", designs.TEXT))


@dataclass(frozen=True, eq=False)
class Inputs(RunInfo):
    """A run over text, as the questions see it.

    Attributes:
        tallies: The study's tallies, int64.
        n_types: Token types that occur, by bin of rarity; None where it is not known.
        token_counts: Occurrences of each token by which rarity is defined; None where they are not
            known.
        within: Products by group of what the means of token types leave; None without rows.
        mean_stream: What the mean stream of each layer makes of the next tokens; None without rows,
            or without a probe.
        positions: A sample of positions with two ranks; None without rows, and of some documents.
    """

    tallies: fold.Tallies
    n_types: Int[np.ndarray, " frequency"] | None = None
    token_counts: Int[np.ndarray, "fold vocab"] | None = None
    within: demeaned.Products | None = None
    mean_stream: mean_stream.Surprisal | None = None
    positions: positions.Positions | None = None

    def lacks(self, *names: str) -> str:
        """Why something cannot be estimated from tallies of these names, or nothing."""
        return "" if all(name in self.tallies for name in names) else FIRST_EDITION

    @property
    def group_rows(self) -> Int[np.ndarray, " group"]:
        """Positions that count, by group of documents."""
        return self.measured("kl_final")[1][:, 0]

    def measured(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Fixed-point sums and counts of a measure, ``[group, layer]``."""
        i = axes.MEASURES.index(name)
        return self.tallies["group_sum"][i], self.tallies["group_count"][i]

    def by_frequency(self, name: str) -> np.ndarray:
        """Mean of a measure by rarity, ``[frequency, layer]``; NaN where nothing was counted."""
        i = axes.MEASURES.index(name)
        return binned.mean(*(self.tallies[f"frequency_{kind}"][i] for kind in ("sum", "count")))

    def has(self, name: str) -> bool:
        """Whether a measure was recorded at all."""
        return bool(self.measured(name)[1].any())

    def ranks(self, reference: str) -> np.ndarray:
        """Histogram of ln rank, ``[layer, frequency, stratum, rank_bin]``."""
        i = definitions.BY_NAME["rank_histogram"].source.index(f"rank_{reference}")
        return self.tallies["rank_histogram"][i]


def load(path: str | Path, documents: Bool[np.ndarray, " document"] | None = None) -> Inputs:
    """Reads a finished run, and folds its rows where it keeps no such tallies.

    Args:
        path: Run directory.
        documents: Those that count, of which the rows are folded; all by default.

    Raises:
        MissingError: There is no run, or it is not finished.
        ConfigError: It has neither the rows nor the tallies.
        DataError: It is damaged.
    """
    with reader.open_run(path) as run:
        if documents is None:
            tallies = fold.tallies(run)
        else:
            fold.require_rows(run)
            tallies = fold.of_rows(run, documents)
        counts = token_counts_file.of_run(run)
        return Inputs(
            **vars(run_info(run)),
            tallies=tallies,
            n_types=_types_by_rarity(tallies["type_count"], counts),
            token_counts=counts,
            within=demeaned.products(run, tallies, documents),
            mean_stream=mean_stream.surprisal(run, documents),
            positions=positions.sample(run) if documents is None else None,
        )


def _types_by_rarity(
    occurrences: Int[np.ndarray, " vocab"], counts: Int[np.ndarray, "fold vocab"]
) -> Int[np.ndarray, " frequency"]:
    """Types that occur, by bin of rarity; in both bins where the two folds disagree."""
    used = np.flatnonzero(occurrences)
    number = bins.rarity_table(counts)[:, used] >> bins.FIXED_POINT_BITS
    number = np.clip(number, 0, bins.FREQUENCY_BINS - 1)
    return np.array([(number == i).any(0).sum() for i in range(bins.FREQUENCY_BINS)])


def rarity_label(i: int) -> str:
    """Name of a bin of rarity."""
    last = i == bins.FREQUENCY_BINS - 1
    return f"rarity {i} nat or more" if last else f"rarity {i} to {i + 1} nat"


def run_info(run: reader.Run) -> RunInfo:
    """What kind of run it is."""
    null = run.spec.get("null") or {}
    kind = str(null.get("kind", "none"))
    seed = f" (seed {null.get('seed', run.spec.get('seed'))})"
    return RunInfo(
        path=run.path,
        label=TRAINED if kind == "none" else kind + seed,
        kind=TRAINED if kind == "none" else kind,
        spec=run.spec,
        layer_names=run.layer_names,
    )


_ALIKE = {
    "tokenizer": ("tokenizer", "sha256"),
    "decoder": ("lens", "decoder"),
    "context length": ("plan", "length"),
    "overlap": ("plan", "overlap"),
    "BOS token": ("corpus", "bos"),
    "table of token counts": ("token_counts", "sha256"),
}


def require_trained(run: RunInfo) -> None:
    """Refuses a null run in the place of the run that it is a null of.

    Raises:
        ConfigError: Naming it.
    """
    if run.kind != TRAINED:
        raise errors.ConfigError(
            f"{run.path} is itself a {run.kind} run",
            "name the trained run first, and this one with --null",
        )


def require_comparable(run: RunInfo, null: RunInfo) -> None:
    """Refuses a null run that is not the same measurement of the same text.

    Raises:
        ConfigError: Naming what differs.
    """
    if null.kind == TRAINED:
        raise errors.ConfigError(
            f"{null.path} is not a null run", "make one with jaxlens run --null random-init"
        )
    for what, (section, key) in _ALIKE.items():
        ours, theirs = ((side.spec.get(section) or {}).get(key) for side in (run, null))
        if ours != theirs:
            raise errors.ConfigError(
                f"{null.path} has another {what} than {run.path}: {theirs!s:.40}, not {ours!s:.40}",
                "make the null run with the same settings",
            )
    _require_same_model(run, null)
    if run.corpus != null.corpus:
        raise errors.ConfigError(
            f"{null.path} is of {null.corpus}, {run.path} of {run.corpus}",
            "make the null run with the same --corpus",
        )
    if run.corpus in designs.CORPORA:  # drawn anew with each seed
        return
    # Shuffled tokens make another token file, of the same documents.
    for key in ("n_tokens", "n_documents") + (("sha256",) if null.kind == RANDOM_INIT else ()):
        if run.spec["corpus"][key] != null.spec["corpus"][key]:
            raise errors.ConfigError(
                f"{null.path} is of another text than {run.path}: its {key} differs",
                "make the null run with the same corpus and limit",
            )


def _require_same_model(run: RunInfo, null: RunInfo) -> None:
    ours, theirs = run.spec["model"], null.spec["model"]
    if null.kind == SHUFFLED and ours["sha256"] != theirs["sha256"]:
        raise errors.ConfigError(
            f"{null.path} is of another model than {run.path}", "shuffle the text, not the weights"
        )
    if ours["architecture"] != theirs["architecture"]:
        differing = [
            key
            for key, value in ours["architecture"].items()
            if theirs["architecture"].get(key) != value
        ]
        raise errors.ConfigError(
            f"{null.path} is of a model with another {', '.join(differing[:3])}",
            "make the null run with the same --model",
        )
