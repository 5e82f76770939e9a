"""Command of the ablation: ablate; heavy imports inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from jaxlens import errors
from jaxlens.cli import ablate_output, options, progress
from jaxlens.store import layout
from jaxlens.sweep import preemption

Arm = Literal["probe", "embedding", "foreign", "random", "random_plane", "whole", "rest"]


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

    Of a run, its model and corpus are ablated, into its folder ablation. Of a checkpoint, name a
    corpus and a folder. The same command again resumes.

    Args:
        source: Run directory; or directory or hub id of a GPT-2, packaged for the one that is
            shipped.
        config: YAML file; may be repeated, the last wins.
        model: Directory or hub id of the model of the run.
        corpus: Files, directories or globs to ablate a checkpoint over, as for run.
        out: Folder to ablate a checkpoint into.
        limit: Tokens of the corpus to read, for instance 10M.
        arms: What is replaced; all that there are by default.
        layers: Numbers or names (h.3) of layers, one at a time; all but the last by default.
        blocks: Sequences of repeated random blocks.
        copies: Copies in the text of the corpus, at most.
        seed: Seed of what is drawn.
        settings: key=value for any other key of the configuration.
        output: What is printed.
    """
    options.begin(output)
    is_run = (Path(source) / layout.RUN).exists()
    given = {"--model": model, "--corpus": corpus, "--limit": limit, "--out": out}
    _require_fitting(source, is_run, given)
    flags = {
        "model.path": model if is_run else source,
        "corpus.paths": corpus,
        "corpus.limit": limit,
        "out": None if out is None else str(out),
    }
    merged = options.load(config, flags, settings)
    from jaxlens.sweep.ablation import design, run

    wanted = options.layers(layers)
    chosen = design.Settings(arms, None if wanted is None else tuple(wanted), blocks, copies, seed)
    with progress.Bar() as bar, preemption.on_signals(preemption.StopRequest(merged.grace)):
        if is_run:
            result = run.of_run(source, merged, chosen, bar)
        else:
            result = run.of_checkpoint(merged, chosen, bar)
    ablate_output.show(result, source if is_run else None)


def _require_fitting(source: str, is_run: bool, given: Mapping[str, object]) -> None:
    """Refuses options of the other kind of source.

    Args:
        source: Run or checkpoint.
        is_run: Which of them.
        given: Values of options by name; None where they were not given.

    Raises:
        ConfigError: An option does not belong to the source.
        MissingError: The source is neither a run nor a checkpoint with a folder.
    """
    hints = {
        "--out": "the ablation goes into the folder of the run",
        "--corpus": "the run has the tokens of its corpus",
        "--limit": "the run has the tokens of its corpus",
    }
    for option, why in hints.items() if is_run else ():
        if given[option] is not None:
            raise errors.ConfigError(
                f"{source} is a run, and {option} was given", f"leave out {option}: {why}"
            )
    if not is_run and given["--out"] is None:
        raise errors.MissingError(
            f"{source} holds no run: {layout.RUN} is missing",
            "name a run, or give --corpus and --out to ablate a checkpoint",
        )
    if not is_run and given["--model"] is not None:
        raise errors.ConfigError(
            f"{source} is a checkpoint, and --model was given", "name one of them"
        )
