"""The command ``jaxlens probe``; heavy imports inside."""

from __future__ import annotations

from pathlib import Path

from jaxlens import config_values, errors
from jaxlens.cli import options, probe_output, progress, sources
from jaxlens.sweep import preemption


def probe(
    source: str,
    /,
    *,
    config: options.Files = (),
    model: str | None = None,
    corpus: options.Paths = None,
    out: Path | None = None,
    limit: str | None = None,
    tokens: str = "300k",
    held_out_tokens: str = "60k",
    types: str = "256",
    seed: int = 0,
    memory: str | None = None,
    settings: options.Settings = (),
    output: options.Shown = options.Output(),
) -> None:
    """Fit linear probes of each layer: which tokens can be read there that the lens does not see.

    Discriminants of the own token, of the previous one and of the one two back are fitted in closed
    form on three quarters of the documents, and judged beside the lens on the others. The same
    command again resumes.

    Args:
        source: Run directory; or a model: directory, GGUF file or hub id, with --corpus and --out.
        config: YAML file; may be repeated, the last wins.
        model: Directory, GGUF file or hub id (org/name, or org/name:Q4_K_M) of the run's model,
            which the run does not record.
        corpus: Files, directories or globs, as for run; of a run the tokens are there already.
        out: Run directory to begin for a model; its shards are for jaxlens run to compute.
        limit: Tokens to read, as for run.
        tokens: Positions to learn from, for instance 300k.
        held_out_tokens: Positions to judge on.
        types: Token types to tell apart in each bin of rarity, of 1 nat; all of them where the
            vocabulary is no larger than that.
        seed: Seed of the order of the text, of permuted labels and of the choice of types.
        memory: Bytes of moments to hold at once, for instance 8G; half of what is free by default.
            Devices for which it has room take turns; where it is too little for all layers, the
            text is read several times.
        settings: key=value for any other key of the configuration.
        output: What is printed.
    """
    options.begin(output)
    flags = sources.flags(source, model=model, corpus=corpus, out=out, limit=limit)
    merged = options.load(config, flags, settings)
    counts = {"tokens": tokens, "held_out_tokens": held_out_tokens}
    counts |= {"types": types} | ({} if memory is None else {"memory": memory})
    numbers = {name: _count(name, text) for name, text in counts.items()}
    from jaxlens.sweep.probe import run
    from jaxlens.sweep.probe.spec import Settings

    chosen = Settings(**numbers, seed=seed)
    stop = preemption.StopRequest(merged.grace)
    with progress.Bar() as bar, preemption.on_signals(stop):
        if sources.is_run(source):
            result = run.of_run(source, merged, chosen, bar, stop)
        else:
            result = run.of_model(merged, chosen, bar, stop)
    probe_output.show(result)


def _count(name: str, text: str) -> int:
    """A number such as 300k.

    Raises:
        ConfigError: It is none.
    """
    number = config_values.count(text)
    if number is None:
        option = f"--{name.replace('_', '-')}"
        raise errors.ConfigError(
            f"{option} is {errors.show(text)}", "give a whole number, such as 300000 or 300k"
        )
    return number
