"""The interactive page of prompts: one file that loads nothing.

What tokens hold is never markup: numbers and strings travel as JSON in which no ``<`` is left, the
script puts them in as text, and the policy of the page allows that script and that style alone.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlens import __version__, errors
from jaxlens.view import visible
from jaxlens.view.figures import palette
from jaxlens.view.prompt import prompt

COLOURS = 33
"""Steps of the ramp."""

SCRIPTS = ("numbers.js", "pictures.js", "prompt.js")
"""Parts of the script of a page, in their order."""

MISSING, MOST = 65_535, 65_534
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
    named = "the packaged model" if first.model == "packaged" else first.model
    style = asset("prompt.css") + "\n" + shades()
    script = "\n".join(asset(name) for name in SCRIPTS)
    return render(
        asset("prompt.html"),
        title=f"{visible.line(first.text)[:60]} · {first.model} · logit lens",
        heading=f"Logit lens of {named}",
        model=named,
        version=__version__,
        policy=policy([script], [style]),
        style=style,
        script=script,
        data=embedded(_document(prompts, metric)),
    )


def asset(name: str, package: str = "jaxlens.view") -> str:
    """A file that is shipped for pages, from the folder ``assets`` of a package."""
    return (importlib.resources.files(package) / "assets" / name).read_text("utf-8")


def render(template: str, **values: Any) -> str:
    """A page from the text of its template; every value but style, script and data is escaped.

    Raises:
        MissingError: jinja2 is not installed.
    """
    jinja2 = errors.require_package("jinja2", "view", "pages")
    from markupsafe import Markup

    for part in ("style", "script", "data"):
        values[part] = Markup(values.get(part, ""))
    surroundings = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown
    )
    return surroundings.from_string(template).render(values)


def _shown(value: Any) -> Any:
    """A value of a page without what is invisible or changes the direction of writing."""
    return visible.spelled(value) if type(value) is str else value


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Content-Security-Policy that allows these inline texts, images in the page, and no more."""
    allowed = {"script-src": scripts, "style-src": styles}
    rules = ["default-src 'none'"]
    for rule, texts in allowed.items():
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        allowed_here = [f"'sha256-{found}'" for found in hashes] or ["'none'"]
        rules.append(" ".join([rule, *allowed_here]))
    return "; ".join([*rules, "img-src data:", "base-uri 'none'", "form-action 'none'"])


def embedded(document: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or a line."""
    found = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return found.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _document(prompts: Sequence[prompt.Prompt], metric: str | None) -> dict[str, Any]:
    first = prompts[0]
    metrics = _metrics(first)
    names = {int(number): shown.name(number) for shown in prompts for number in shown.spelled}
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
        "text": visible.line(shown.text),
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
        found = values.astype("<u2" if values.max(initial=0) < MISSING else "<u4")
    else:
        thousandths = np.clip(np.rint(np.abs(values.astype(np.float64)) * 1000), 0, MOST)
        found = np.where(np.isnan(values), MISSING, thousandths).astype("<u2")
    return {
        "type": found.dtype.str[1:],
        "shape": list(found.shape),
        "base64": base64.b64encode(found.tobytes()).decode(),
    }


def shades() -> str:
    """A class for each colour, for both themes; paper is light."""

    def rules(selector: str, ends: tuple[float, float]) -> str:
        grounds = enumerate(palette.ramp(ends, COLOURS))
        return "\n".join(
            f"{selector}.r{place} {{ background: {ground}; color: {palette.ink(ground)}; }}"
            for place, ground in grounds
        )

    dark = rules('[data-theme="dark"] ', palette.DARK)
    return f"{rules('', palette.LIGHT)}\n@media screen {{\n{dark}\n}}"


def unpack(field: Mapping[str, Any]) -> np.ndarray:
    """The numbers of a packed field, as the page reads them: ranks and ids, or thousandths."""
    raw = base64.b64decode(field["base64"])
    return np.frombuffer(raw, "<" + field["type"]).reshape(field["shape"])
