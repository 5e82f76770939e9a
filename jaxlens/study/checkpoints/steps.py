"""Training steps of runs: where a run's own is recorded, and the axis that several make."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlens import errors
from jaxlens.files import fetching
from jaxlens.store import worker_notes

GIVEN, REVISION, MODEL, FOLDER, POSITION = (
    "given",
    "revision",
    "model path",
    "run directory",
    "position",
)
"""Where a label comes from; a position in the list stands for a step that is not recorded."""

DECADES = 2
"""Powers of ten beyond which the axis of steps is logarithmic."""

_ZERO = 0.15
"""Where step 0 stands on a logarithmic axis: this share of its length before the first other."""

_NAMED = re.compile(
    r"(?:^|[^a-z])(?:global_?step|step|checkpoint|ckpt|iteration|iter)[-_=]?(\d{1,18})(?![0-9a-z]|[._]\d)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,9})?")
_THOUSANDS = re.compile(r"(?<=\d)[_,](?=\d{3}(?!\d))")


@dataclass(frozen=True)
class Labels:
    """Labels of runs, in the order of the runs.

    Attributes:
        texts: One for each run; unique.
        steps: Their numbers; None where a label is none, so that the axis has categories.
        sources: Where each comes from.
        note: Why runs are numbered by their position; empty where they are not.
    """

    texts: tuple[str, ...]
    steps: tuple[float, ...] | None
    sources: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Axis:
    """A horizontal axis for labels.

    Attributes:
        name: What stands below it.
        order: Runs from left to right.
        at: Place of each of these; evenly spaced where labels are categories.
    """

    name: str
    order: tuple[int, ...]
    at: Float[np.ndarray, " run"]


def number(text: str) -> float | None:
    """The step that a label says: ``1000``, ``1,000``, ``0.5`` or ``step1000``; None without."""
    plain = _THOUSANDS.sub("", text.strip())
    return float(plain) if _NUMBER.fullmatch(plain) else named(plain)


def named(text: str) -> int | None:
    """The step in a name such as ``step1000``, ``checkpoint-1000``, ``step_1000``.

    A number with a unit, such as ``step10k``, is none: what it says is not certain.
    """
    found = _NAMED.findall(text)
    return int(found[-1]) if found else None


def recorded(run_dir: str | Path) -> tuple[int, str] | None:
    """The step that a run's notes or names record, and where.

    The first of these that names a step counts: the hub revision of the model, the last two parts
    of its path, the name of the run directory.
    """
    for source, text in _names(run_dir):
        step = named(text)
        if step is not None:
            return step, source
    return None


def labelled(run_dirs: Sequence[str | Path], given: Sequence[str | None] = ()) -> Labels:
    """Labels of runs: those that are given, else their recorded steps.

    Where neither labels a run, all that are not given are positions in the list, from 1.

    Args:
        run_dirs: Runs.
        given: A label or None for each run; none by default.

    Raises:
        ConfigError: As many labels are not given as there are runs, or one is empty.
    """
    given = given or [None] * len(run_dirs)
    if len(given) != len(run_dirs):
        raise errors.ConfigError(
            f"{errors.count(len(given), 'label')} for {errors.count(len(run_dirs), 'run')}",
            "give a label for each run, in the order of the runs, or LABEL=RUN",
        )
    if any(label is not None and not label.strip() for label in given):
        raise errors.ConfigError("an empty label", "give each run a step, or a name")
    found = [None if label else recorded(run) for run, label in zip(run_dirs, given, strict=True)]
    pairs = list(zip(given, found, strict=True))
    unknown = [run for run, (label, step) in zip(run_dirs, pairs, strict=True)
               if label is None and step is None]  # fmt: skip
    labels = [
        (label.strip(), GIVEN)
        if label is not None
        else (str(place), POSITION)
        if unknown or step is None
        else (str(step[0]), step[1])
        for place, (label, step) in enumerate(pairs, 1)
    ]
    texts, sources = zip(*labels, strict=True) if labels else ((), ())
    numbers = [number(text) for text in texts]
    known = [step for step in numbers if step is not None]
    is_numeric = not unknown and len(known) == len(numbers)
    return Labels(texts, tuple(known) if is_numeric else None, sources, _unknown(unknown))


def require_distinct(run_dirs: Sequence[str | Path], labels: Labels) -> None:
    """Refuses two runs of one label.

    Raises:
        ConfigError: Naming both.
    """
    seen: dict[object, str | Path] = {}
    for i, run in enumerate(run_dirs):
        label = labels.texts[i] if labels.steps is None else labels.steps[i]
        if label in seen:
            raise errors.ConfigError(
                f"{seen[label]} and {run} are both labelled {labels.texts[i]}",
                "name each with --labels, or LABEL=RUN",
            )
        seen[label] = run


def axis(labels: Labels) -> Axis:
    """The axis of labels.

    Steps that span more than two powers of ten are on a logarithmic axis, on which 0 stands apart,
    to the left of all others; labels that are no steps are categories.
    """
    n = len(labels.texts)
    if labels.steps is None:
        name = "checkpoint, as numbered" if labels.note else "checkpoint"
        return Axis(name, tuple(range(n)), np.arange(n, dtype=np.float64))
    order = tuple(sorted(range(n), key=labels.steps.__getitem__))
    steps = np.array([labels.steps[i] for i in order], np.float64)
    positive = steps[steps > 0]
    if not len(positive) or positive[-1] <= 10**DECADES * positive[0]:
        return Axis("step", order, steps)
    at = np.log10(np.where(steps > 0, steps, positive[0]))
    at[steps == 0] -= _ZERO * (at[-1] - at[0])
    apart = "; 0 stands apart" if len(positive) < n else ""
    return Axis(f"step (logarithmic{apart})", order, at)


def _names(run_dir: str | Path) -> Iterator[tuple[str, str]]:
    """What may name a step, and where it stands; nobody vouches for the notes of a run."""
    notes = worker_notes.read(run_dir)
    settings = next((n["settings"] for n in notes if isinstance(n.get("settings"), dict)), {})
    model: Any = settings.get("model")
    if isinstance(model, dict):
        for key, source in (("revision", REVISION), ("path", MODEL)):
            text = model.get(key)
            if isinstance(text, str):
                parts = text.rstrip("/").split("/")[-2:] if source == MODEL else [text]
                yield from ((source, part) for part in reversed(parts))
    yield FOLDER, fetching.name_of(Path(run_dir).absolute()).rstrip("/").rpartition("/")[2]


def _unknown(run_dirs: Sequence[str | Path]) -> str:
    if not run_dirs:
        return ""
    more = f" and {len(run_dirs) - 1} more" if len(run_dirs) > 1 else ""
    return (
        f"no step is recorded of {fetching.name_of(run_dirs[0])}{more}: runs are numbered in the "
        "order in which they are given; --labels names their steps"
    )
