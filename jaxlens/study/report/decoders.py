"""The same text through other decoders: what of a finding belongs to the choice of the lens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlens import errors
from jaxlens.study import inputs, study, table
from jaxlens.study.report import primaries, series
from jaxlens.view.figures import plots

_STYLES = (
    plots.Style(0, "-", "o"),
    plots.Style(3, "--", "s"),
    plots.Style(4, ":", "^"),
)

_PANELS = (
    ("mean_kl_final", "KL(last ‖ layer)", "nat", plots.LINEAR),
    ("mean_kl_final_matched", "the same, matched", "nat", plots.LINEAR),
    ("median_rank_input", "median rank of the input", "rank", plots.RANK),
    ("settled_within_1_share", "final top-1 reached for good", "share", plots.LINEAR),
)


def studies(studied: study.Study, folders: Sequence[str | Path]) -> list[study.Study]:
    """The studies of runs that differ from this one in their decoder alone.

    Raises:
        ConfigError: A run differs in something else, in nothing, or cannot be studied.
        MissingError: A run is not there or not finished.
        DataError: A run is damaged.
    """
    variants = []
    for folder in folders:
        other = study.study(folder)
        _require_variant(studied.run, other.run)
        variants.append(other)
    return variants


def figures(studied: study.Study, variants: Sequence[study.Study]) -> list[plots.Plot]:
    """Curves of each decoder beside those of the others."""
    sources = [series.Source(one) for one in (studied, *variants)]
    panels = tuple(
        plots.Lines(
            title,
            "layer",
            sources[0].layers,
            up,
            tuple(
                source.curve(estimator, source.kinds[0], name=decoder(source.study), style=style)
                for source, style in zip(sources, _STYLES, strict=False)
            ),
            scale,
            why=sources[0].why(estimator, "dilution_rank"),
        )
        for estimator, title, up, scale in _PANELS
    )
    # The first two are one quantity, read in two ways.
    panels = (*plots.alike(*panels[:2]), *panels[2:])
    return [
        plots.Plot(
            "decoders",
            "The same residual streams with other decoders",
            "What changes here is due to the lens, and what stays is due to the model; the last "
            "layer is the model's output in every case.",
            panels,
            series.basis(sources[0], panels) + " Medians over tokens have none.",
        )
    ]


def compared(
    studied: study.Study, variants: Sequence[study.Study]
) -> list[tuple[str, list[tuple[str, table.Result]]]]:
    """Each primary with its line in every study, by decoder."""
    everything = (studied, *variants)
    return [
        (
            line.meaning,
            [
                (decoder(one), match)
                for one in everything
                for match in one.results
                if match.primary and match.estimator == line.estimator
            ],
        )
        for line in primaries.lines(studied)
    ]


def decoder(studied: study.Study) -> str:
    """Name of the decoder of a study's run."""
    return str(studied.run.spec["lens"]["decoder"])


def _require_variant(run: inputs.RunInfo, other: inputs.RunInfo) -> None:
    same: dict[str, Any] = {
        "model": ("model", "sha256"),
        "tokenizer": ("tokenizer", "sha256"),
        "text": ("corpus", "sha256"),
        "context length": ("plan", "length"),
        "overlap": ("plan", "overlap"),
    }
    for what, (section, key) in same.items():
        if run.spec[section].get(key) != other.spec[section].get(key):
            raise errors.ConfigError(
                f"{other.path} has another {what} than {run.path}",
                "a variant has another lens.decoder and is else the same",
            )
    if run.spec["lens"]["decoder"] == other.spec["lens"]["decoder"]:
        raise errors.ConfigError(
            f"{other.path} has the same decoder as {run.path}",
            "make a variant with --set lens.decoder=plain",
        )
