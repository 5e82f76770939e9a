"""Command of the ablation: ablate; heavy imports inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from jaxlens.cli import ablate_output, options, progress, sources
from jaxlens.sweep import preemption

Arm = Literal[
    "probe",
    "embedding",
    "foreign",
    "random",
    "random_plane",
    "foreign_probe",
    "random_shift",
    "whole",
    "rest",
]


def ablate(
    source: str,
    /,
    *,
    config: options.Files = (),
    model: str | None = None,
    corpus: options.Paths = None,
    out: Path | None = None,
    limit: str | None = None,
    arms: Annotated[tuple[Arm, ...] | None, Parameter(consume_multiple=1)] = None,
    layers: options.Words = None,
    blocks: int = 160,
    copies: int = 512,
    seed: int = 0,
    settings: options.Settings = (),
    output: options.Shown = options.Output(),
) -> None:
    """Replace the stream where copied tokens stood before, and measure what the copies lose.

    Of a run, its model and corpus are ablated, into its folder ablation. Of a model, name a corpus
    and a run directory to begin. The same command again resumes.

    Args:
        source: Run directory; or a model: directory, GGUF file or hub id, with --corpus and --out.
        config: YAML file; may be repeated, the last wins.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M) of the run's model,
            which the run does not record.
        corpus: Files, directories or globs, as for run; of a run the tokens are there already.
        out: Run directory to begin for a model; its shards are for jaxlens run to compute.
        limit: Tokens to read, as for run.
        arms: What is replaced; all that there are by default.
        layers: Numbers or names (h.3) of layers, one at a time; all but the last by default.
        blocks: Sequences of repeated random blocks.
        copies: Copies in the text of the corpus, at most.
        seed: Seed of what is drawn.
        settings: key=value for any other key of the configuration.
        output: What is printed.
    """
    options.begin(output)
    flags = sources.flags(source, model=model, corpus=corpus, out=out, limit=limit)
    merged = options.load(config, flags, settings)
    from jaxlens.sweep.ablation import design, run

    wanted = options.layers(layers)
    chosen = design.Settings(arms, None if wanted is None else tuple(wanted), blocks, copies, seed)
    with progress.Bar() as bar, preemption.on_signals(preemption.StopRequest(merged.grace)):
        if sources.is_run(source):
            result = run.of_run(source, merged, chosen, bar)
        else:
            result = run.of_model(merged, chosen, bar)
    ablate_output.show(result, warn_of_arms=arms is None)
