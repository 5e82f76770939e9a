"""Readouts as prompts: one line of a batch with its labels, ready for every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlens import arguments, errors
from jaxlens.view.comparison import comparison
from jaxlens.view.figures import files
from jaxlens.view.prompt import prompt, raster

if TYPE_CHECKING:
    from jaxlens import types


def prompt_of(
    readouts: Sequence[types.Readout], line: int = 0, *, model: str = "", text: str | None = None
) -> prompt.Prompt:
    """One prompt of a batch, without its padding.

    Args:
        readouts: Of the same tokens and layers, each by another decoder.
        line: Line of the batch; negative from the end.
        model: Name of the model, for titles.
        text: What was typed; what the tokens spell by default.

    Raises:
        ConfigError: No such line, one that is all padding, or a readout without labels.
    """
    references = known(readouts[0])
    labels = readouts[0].labels
    count = length(references, line)
    readings = {readout.labels.decoder: _reading(readout, line, count) for readout in readouts}
    ids, following = (np.asarray(a)[line, :count] for a in (references.input, references.next))
    follow = () if references.follow is None else _constant(references.follow, line, count)
    token_bytes = _token_bytes(
        labels, [ids, follow, *(r.get("top_id", ()) for r in readings.values())]
    )
    if text is None:
        text = b"".join(token_bytes.get(number, b"") for number in ids.tolist()).decode(
            "utf-8", "replace"
        )
    last = labels.streams - 1
    return prompt.Prompt(
        model=model,
        text=text,
        ids=ids,
        following=following,
        layers=labels.layer_names,
        vocab_size=labels.vocab_size,
        token_bytes=token_bytes,
        readings=readings,
        follow=follow,
        last=labels.layers.index(last) if last in labels.layers else None,
        streams=labels.streams,
    )


def plot(
    readout: types.Readout,
    metric: str | None,
    line: int | Sequence[int] | None,
    path: str | Path | None,
    start: int,
    stop: int | None,
    **look: Any,
) -> Any:
    """The figure of one or more prompts, and its file; see ``types.Readout.plot``."""
    target = None if path is None else files.require(path)
    axes = look.pop("ax")
    _check_look(axes, look)
    lines = _lines(readout, line)
    several = [prompt_of([readout], one).part(start, stop) for one in lines]
    decoder = readout.labels.decoder
    if axes is None:
        look = {name: value for name, value in look.items() if value is not None}
        if len(lines) > 1:
            count = len(known(readout).mask)
            look["names"] = [f"line {one % count}" for one in lines]
        drawn = raster.figure(several, decoder, None if metric is None else (metric,), **look)
    else:
        drawn = _on_axes(axes, several, decoder, metric, look)
    if target is not None:
        files.save(drawn, target)
    return drawn


def _check_look(axes: Any, look: Mapping[str, Any]) -> None:
    """Refuses what matplotlib could not draw with.

    Raises:
        ConfigError: Naming the argument.
    """
    if axes is not None and not callable(getattr(axes, "imshow", None)):
        raise errors.ConfigError(
            f"ax is {arguments.described(axes)}", "give axes of matplotlib, as plt.subplots()[1] is"
        )
    if look["figsize"] is not None:
        inches = arguments.pair(look["figsize"], "figsize", "width and height in inches, (12, 6)")
        if not all(isinstance(one, (int, float, np.number)) and one > 0 for one in inches):
            raise errors.ConfigError(
                f"figsize is {errors.show(look['figsize'])}",
                "give width and height in inches, such as (12, 6)",
            )
    if look["title"] is not None:
        arguments.text(look["title"], "title", "title='logit lens'")
    if look["wrap"] is not None:
        arguments.whole(look["wrap"], "wrap", 1)


def compare(
    pair: tuple[types.Readout, types.Readout],
    lines: tuple[int, int],
    names: tuple[str, str] | None,
    relative_depth: bool,
) -> comparison.Comparison:
    """One prompt of each of two readouts, compared; see ``types.Readout.compare``."""
    if not callable(getattr(pair[1], "present", None)):
        raise errors.ConfigError(
            f"other is {arguments.described(pair[1])}", "give what jaxlens.read_lens returned"
        )
    if names is not None:
        example = "names=('clean', 'patched')"
        one, two = arguments.pair(names, "names", example)
        names = (arguments.text(one, "names", example), arguments.text(two, "names", example))
    depth = arguments.flag(relative_depth, "relative_depth")
    shown = [prompt_of([one], line) for one, line in zip(pair, lines, strict=True)]
    return comparison.compare(shown[0], shown[1], names=names, relative_depth=depth)


def _on_axes(
    axes: Any,
    several: Sequence[prompt.Prompt],
    decoder: str,
    metric: str | None,
    look: Mapping[str, Any],
) -> Any:
    """Draws one prompt into axes of the caller's; returns their figure."""
    if len(several) > 1:
        raise errors.ConfigError("several prompts in one ax", "give line=, one for each ax")
    if look["figsize"] is not None or look["wrap"] is not None:
        raise errors.ConfigError(
            "figsize or wrap with an ax, which has its size", "set them on its figure"
        )
    (shown,) = several
    view = raster.default(shown) if metric is None else shown.view(metric)
    named = view.quantity not in prompt.FOLLOWED
    heading = raster.title(shown, view, named) if look["title"] is None else look["title"]
    raster.panel(axes, shown, decoder, view, named=named, title=heading)
    return axes.figure


def _lines(readout: types.Readout, line: int | Sequence[int] | None) -> list[int]:
    if line is None:
        return np.flatnonzero(np.any(known(readout).mask, axis=1)).tolist()
    several = arguments.listed(line)
    lines: list[Any] = [line] if several is None else several
    if not lines:
        raise errors.ConfigError("no lines to draw", "name at least one, or None for all")
    return lines


def known(readout: types.Readout) -> types.References:
    """The tokens of a readout, which its arrays must fit.

    Raises:
        ConfigError: It has no labels, or arrays of other shapes.
    """
    labels = readout.labels
    if labels.references is None:
        raise errors.ConfigError(
            "the readout has no labels, which say of what tokens and layers it is",
            "look at what read_lens returned; what comes out of jax.jit needs them back: "
            "out.replace(labels=readout.labels)",
        )
    expected = (len(labels.layers), *labels.references.mask.shape)
    for name, array in readout.present().items():
        if np.shape(array)[:3] != expected:
            raise errors.ConfigError(
                f"{name} has shape {np.shape(array)}, its labels are of {expected}",
                "read only what you need, or look at the whole; plot takes line=, start= and stop=",
            )
    return labels.references


def length(references: types.References, line: int) -> int:
    """Real tokens of a line.

    Raises:
        ConfigError: No such line, or none in it.
    """
    lines = len(references.mask)
    line = arguments.whole(line, "line")
    if not -lines <= line < lines:
        raise errors.ConfigError(
            f"line {line} of a batch of {lines}", f"lines go from 0 to {lines - 1}"
        )
    count = int(np.sum(references.mask[line]))
    if not count:
        raise errors.ConfigError(f"line {line} is all padding", "look at another one")
    return count


def described(readout: types.Readout) -> str:
    """Sizes and quantities in a few words, whatever the arrays are."""
    shapes = {name: np.shape(array) for name, array in readout.present().items()}
    if not shapes:
        return "no quantities"
    first, *others = {shape[:3] for shape in shapes.values()}
    if others or len(first) < 3:
        return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    layers, lines, positions = first
    sizes = (
        errors.count(layers, "layer"),
        errors.count(lines, "line"),
        errors.count(positions, "position"),
    )
    words = " × ".join(sizes)
    labels = readout.labels
    if labels.references is not None:
        tokens = errors.count(int(np.sum(labels.references.mask)), "token")
        words += f", {tokens}, decoder {labels.decoder}"
    return f"{words}; {', '.join(shapes)}"


def _reading(readout: types.Readout, line: int, count: int) -> dict[str, np.ndarray]:
    """What pictures are made of, of one line."""
    known(readout)
    drawn = (*prompt.QUANTITIES, *prompt.FOLLOWED)
    arrays = readout.present()
    return {name: np.asarray(arrays[name])[:, line, :count] for name in drawn if name in arrays}


def _constant(follow: Any, line: int, count: int) -> tuple[int, ...]:
    """Followed tokens of a line; -1 for those that are others at other positions."""
    mine = np.asarray(follow)[line, :count]
    return tuple(np.where((mine == mine[:1]).all(axis=0), mine[0], -1).tolist())


def _token_bytes(labels: types.Labels, ids: Sequence[Any]) -> Mapping[int, bytes]:
    """Bytes of every token that a picture may name."""
    if labels.spell is None:
        return {}
    named = np.unique(np.concatenate([np.ravel(some).astype(np.int64) for some in ids]))
    return labels.spell(named[named >= 0].tolist())
