"""The interactive page of prompts: one file that loads nothing.

Numbers and strings travel as data (see ``pages``), which the script puts in as text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlens import errors
from jaxlens.view import pages, printable
from jaxlens.view.figures import palette
from jaxlens.view.prompt import prompt

COLOURS = 33
"""Steps of the ramp."""

SCRIPTS = ("numbers.js", "pictures.js", "prompt.js")
"""Parts of the script of a page, in their order."""

MISSING, MAX = 65_535, 65_534
"""Codes of thousandths of a nat: none, and this many or more."""


def page(prompts: Sequence[prompt.Prompt], metric: str | None = None) -> str:
    """The page of one or more prompts of one model.

    Args:
        prompts: What to show.
        metric: Name of the metric with which it opens; the first that was read by default.

    Raises:
        ConfigError: They differ in model, decoders or followed tokens, or jinja2 is not installed.
    """
    first = prompts[0]
    for other in prompts[1:]:
        if (other.model, other.decoders, other.follow) != (
            first.model,
            first.decoders,
            first.follow,
        ):
            raise errors.ConfigError("prompts of different models or settings", "show them apart")
    model = "the packaged model" if first.model == "packaged" else first.model
    return pages.page(
        "prompt.html",
        title=f"{printable.line(first.text)[:60]} · {first.model} · logit lens",
        heading=f"Logit lens of {model}",
        model=model,
        styles=[pages.asset("prompt.css"), shades()],
        scripts=[pages.asset(name) for name in SCRIPTS],
        data=_document(prompts, metric),
    )


def shades() -> str:
    """The classes of the ramp."""
    return pages.shades("r", *(palette.ramp(end, COLOURS) for end in (palette.LIGHT, palette.DARK)))


def _document(prompts: Sequence[prompt.Prompt], metric: str | None) -> dict[str, Any]:
    first = prompts[0]
    metrics = _metrics(first)
    names = {int(number): shown.name(number) for shown in prompts for number in shown.token_bytes}
    return {
        "layers": list(first.layers),
        "decoders": list(first.decoders),
        "metrics": metrics,
        "metric": metric or metrics[0]["name"],
        "vocabulary": first.vocab_size,
        "follow": list(first.follow),
        "names": names,
        "colours": COLOURS,
        "light": palette.ramp(palette.LIGHT, COLOURS),
        "dark": palette.ramp(palette.DARK, COLOURS),
        "lines": list(palette.LINES),
        "prompts": [_prompt(shown) for shown in prompts],
    }


def _metrics(shown: prompt.Prompt) -> list[dict[str, Any]]:
    return [{**vars(one), "ticks": one.ticks()} for one in shown.views().values()]


def _prompt(shown: prompt.Prompt) -> dict[str, Any]:
    return {
        "text": printable.line(shown.text),
        "tokens": shown.ids.tolist(),
        "start": shown.start,
        "following": shown.following.tolist(),
        "right": shown.right.astype(int).tolist(),
        "readings": {
            decoder: {name: _packed(name, values) for name, values in reading.items()}
            for decoder, reading in shown.readings.items()
        },
    }


def _packed(name: str, values: np.ndarray) -> dict[str, Any]:
    """Numbers as bytes: ids and ranks as they are, nats in thousandths."""
    if name == "top_id" or name.startswith("rank_"):
        packed = values.astype("<u2" if values.max(initial=0) < MISSING else "<u4")
    else:
        thousandths = np.clip(np.rint(np.abs(values.astype(np.float64)) * 1000), 0, MAX)
        packed = np.where(np.isnan(values), MISSING, thousandths).astype("<u2")
    return {
        "type": packed.dtype.str[1:],
        "shape": list(packed.shape),
        "base64": base64.b64encode(packed.tobytes()).decode(),
    }


def unpack(field: Mapping[str, Any]) -> np.ndarray:
    """The numbers of a packed field, as the page reads them: ranks and ids, or thousandths."""
    raw = base64.b64decode(field["base64"])
    return np.frombuffer(raw, "<" + field["type"]).reshape(field["shape"])
