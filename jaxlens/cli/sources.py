"""What a command beside the sweep works on: a run, or a model for which one is begun."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

from jaxlens import errors
from jaxlens.store import layout
from jaxlens.store.objects import urls


@contextlib.contextmanager
def readable(*runs: Path) -> Generator[Sequence[Path]]:
    """Directories with runs, while the block lasts: mirrors of those that are in object stores.

    Raises:
        JaxlensError: See ``storage.mirrored``.
    """
    from jaxlens.store import storage

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(storage.readable(run)) for run in runs]


def beside(run: Path, ending: str) -> Path | None:
    """Where the results of a run in an object store go by default: the current directory.

    Args:
        run: Run directory or URL.
        ending: Of the name, after the last part of the URL.

    Returns:
        None for a directory, which has a default of its own.
    """
    return Path(urls.parse(run).last + ending) if urls.is_url(run) else None


def labelled(word: str) -> tuple[str | None, Path]:
    """A run that may have a label: ``RUN``, or ``LABEL=RUN``, whose label holds no ``/``.

    Args:
        word: As it is typed; a directory of that name is a run without a label.
    """
    label, equals, run = word.partition("=")
    if not equals or "/" in label or Path(word).exists():
        return None, Path(word)
    return label, Path(run)


def is_run(source: str) -> bool:
    """Whether it is a run directory; a model otherwise."""
    return (Path(source) / layout.RUN).exists()


def flags(
    source: str,
    *,
    model: str | None,
    corpus: tuple[str, ...] | None,
    out: Path | None,
    limit: str | None,
) -> dict[str, object]:
    """Where model, text and run are, as keys of the configuration.

    Args:
        source: Run directory; or a model: directory, GGUF file or hub id.
        model: Value of ``--model``, of a run alone.
        corpus: Value of ``--corpus``, of a model alone.
        out: Value of ``--out``, the run that is begun for a model.
        limit: Value of ``--limit``, of a model alone.

    Raises:
        ConfigError: An option does not belong to this source, or the run is in an object store.
        MissingError: The source is neither a run nor a model with a run to begin.
    """
    from jaxlens.store import storage

    for place in (source, out):
        storage.refuse_url(place, "this command", "give it a run directory")
    if is_run(source):
        for name, value in {"--corpus": corpus, "--out": out, "--limit": limit}.items():
            if value is not None:
                raise errors.ConfigError(
                    f"{source} is a run, which has its own: {name} was given", f"leave out {name}"
                )
        return {"model.path": model}
    if out is None:
        # With a corpus it was meant as a model, else as a run that is not there.
        kind = errors.MissingError if corpus is None else errors.ConfigError
        raise kind(
            f"{source} holds no run: {layout.RUN} is missing, and no --out is given",
            "name a run directory; or a model, with --corpus FILE and --out DIR",
        )
    if model is not None:
        raise errors.ConfigError(
            f"{source} is no run, and --model was given", "name the model in one place"
        )
    return {
        "model.path": source,
        "corpus.paths": corpus,
        "corpus.limit": limit,
        "out": str(out),
    }
