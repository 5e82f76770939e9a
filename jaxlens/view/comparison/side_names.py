"""Names of the two sides of a comparison: what tells them apart."""

from __future__ import annotations

from jaxlens.view import printable
from jaxlens.view.prompt import prompt

_MAX_CHARACTERS = 40
"""Characters of a text that names a side."""


def tell_apart(
    first: prompt.Prompt, second: prompt.Prompt, decoders: tuple[str, str]
) -> tuple[str, str]:
    """Models, decoders and texts that differ, as a name for each side."""
    differing: list[tuple[str, str]] = []
    if first.model != second.model:
        differing.append((first.model or "first", second.model or "second"))
    if decoders[0] != decoders[1]:
        differing.append(decoders)
    if first.text != second.text:
        differing.append(_short_texts(first.text, second.text))
    if not differing:
        return "first", "second"
    one, two = (", ".join(side) for side in zip(*differing, strict=True))
    return one, two


def _short_texts(first: str, second: str) -> tuple[str, str]:
    """Texts on a line each, cut around the place where they begin to differ."""
    begin = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
    start = (
        max(0, begin - _MAX_CHARACTERS // 2)
        if max(len(first), len(second)) > _MAX_CHARACTERS
        else 0
    )

    def cut(text: str) -> str:
        shown = printable.line(text[start : start + _MAX_CHARACTERS])
        return (
            f"“{'…' if start else ''}{shown}{'…' if len(text) > start + _MAX_CHARACTERS else ''}”"
        )

    return cut(first), cut(second)
