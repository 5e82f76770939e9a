"""A hook of MkDocs: what the pages say about commands, settings and columns comes from the code.

A page holds lines such as ``<!-- generated: columns -->``, which the site shows filled in. So
nothing has to be copied, and no copy can become false.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any

from jaxlens import config, schema
from jaxlens.cli import examples, main
from jaxlens.study import estimators
from jaxlens.tally import bins, definitions

_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)

# Options of every command, which the page says once.
_COMMON = ("--quiet", "--verbose", "--log-format", "--debug")

_STORED = {
    "rank": "uint16 or uint32",
    "id": "uint16 or uint32",
    "float": "float32 (`core`: float16)",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in what is generated; MkDocs calls this for every page."""
    return _MARK.sub(lambda found: GENERATED[found[1]](), markdown)


def commands() -> str:
    """Every command with its arguments and options."""
    told = sys.argv
    try:
        sys.argv = ["jaxlens"]  # from which the usage lines are made; here it is MkDocs
        text = main.app.generate_docs(heading_level=1)
    finally:
        sys.argv = told
    parts = re.split(r"^## jaxlens ", text, flags=re.MULTILINE)[1:]
    return "\n\n".join(sorted(_command(part) for part in parts))


def _command(part: str) -> str:
    name, _, body = part.partition("\n")
    items = re.split(r"\n(?=\* `)", body)
    kept = [item for item in items if not item.startswith(tuple(f"* `{o}" for o in _COMMON))]
    body = "\n".join(kept).replace("```console", "```text").rstrip()
    body = body.replace("**Arguments**:", "Arguments:").replace("**Parameters**:", "Options:")
    lines = "\n".join(examples.EXAMPLES[name.strip()])
    return f"### {name.strip()}\n{body}\n\nExamples:\n\n```sh\n{lines}\n```"


def settings() -> str:
    """Every key of the configuration with its type, default and meaning."""
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    meanings = dict(_meanings())
    for key, kind in config.keys().items():
        section, _, name = key.rpartition(".")
        default = getattr(getattr(config.RunConfig(), section, config.RunConfig()), name)
        shown = "" if default in (None, ()) else f"`{_spelled(default)}`"
        lines.append(f"| `{key}` | {_kind(kind)} | {shown} | {meanings[key]} |")
    return "\n".join(lines)


def _spelled(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value).lower()


def _kind(kind: Any) -> str:
    # Of ``Literal[...] | None`` the words.
    for one in (kind, *typing.get_args(kind)):
        if typing.get_origin(one) is typing.Literal:
            return ", ".join(f"`{option}`" for option in typing.get_args(one))
    several = "tuple" in str(kind)
    names = {"int": "whole number", "float": "number", "bool": "`true`, `false`", "str": "text"}
    word = next(word for name, word in names.items() if name in str(kind))
    return f"{word}s" if several else word


def _meanings() -> Iterator[tuple[str, str]]:
    """Keys and the sentences that stand below their fields."""
    sections = {"RunConfig": ""}
    sections |= {
        f"{n.title()}Config": f"{n}." for n in ("model", "corpus", "plan", "lens", "store", "mesh")
    }
    for found in ast.parse(inspect.getsource(config)).body:
        if isinstance(found, ast.ClassDef) and found.name in sections:
            for field, said in zip(found.body, found.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr):
                    text = inspect.cleandoc(ast.literal_eval(said.value))
                    text = " ".join(text.split()).replace("``", "`")
                    yield sections[found.name] + ast.unparse(field.target), text


def columns() -> str:
    """Every quantity of the schema."""
    lines = [
        "| column | axes | stored as | missing | unit | profile | meaning |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, quantity in schema.QUANTITIES.items():
        profile = "core, full" if quantity.core else "full" if quantity.full else "on demand"
        if name in schema.REFERENCE_ONLY:
            profile = "on demand, reference lens"
        if name.endswith("_follow"):
            profile = "`read_lens` only"
        stored = _STORED.get(quantity.kind, quantity.dtype)
        axes = ", ".join(quantity.axes)
        meaning = quantity.meaning.replace("||", "‖")
        cells = (f"`{name}`", axes, stored, _missing(quantity), quantity.unit, profile, meaning)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _missing(quantity: schema.Quantity) -> str:
    """What a row without a value has in the file; nothing where every row has one."""
    if quantity.absent is None:
        return ""
    return {"id": "largest", "float": "NaN"}.get(quantity.kind, f"{quantity.absent:.0f}")


def tallies() -> str:
    """Every tally, and the sets that hold it."""
    lines = ["| tally | kept by | axes | unit | merged by | meaning |", "|---|---|---|---|---|---|"]
    for name, tally in definitions.BY_NAME.items():
        kept = ", ".join(key for key, members in definitions.TALLIES.items() if tally in members)
        axes, merged = ", ".join(tally.axes), tally.merge.replace("_", " ")
        lines.append(f"| `{name}` | {kept} | {axes} | {tally.unit} | {merged} | {tally.meaning} |")
    return "\n".join(lines)


_IN_WORDS = {
    "what": "MEASURE",
    "move": "fall or rise",
    "token": "the TARGET token",
    "reader": "the READOUT",
    "part": "ARM",
    "other_part": "OTHER",
    "title": "MATERIAL",
}


def estimands() -> str:
    """Every estimator of the study, one line for those that share a definition."""
    lines = [
        "| estimator | question | unit | 95 % interval | meaning |",
        "|---|---|---|---|---|",
    ]
    for one, members in estimators.FAMILIES:
        holders = {name: name.upper() for values in members for name in values}
        # Words that follow from another placeholder are that one's.
        holders |= {name: word for name, word in _IN_WORDS.items() if name in holders}
        name, meaning = (text.format(**holders) for text in (one.name, one.meaning))
        meaning = meaning.replace("||", "‖")
        lines.append(f"| `{name}` | {one.question} | {one.unit} | {one.interval} | {meaning} |")
    return "\n".join(lines)


def _several(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions[:-1])) + f" and {versions[-1]}"


def version() -> str:
    """The version of the file format."""
    edges = len(bins.LN_RANK_EDGES) - 1
    return (
        f"This page is about format version {schema.FORMAT_VERSION}, which `RUN.json` names as "
        f"`format_version`; {_several(schema.FORMATS)} are read and resumed. Histograms of ln rank "
        f"have {edges} bins."
    )


GENERATED = {
    "commands": commands,
    "settings": settings,
    "columns": columns,
    "tallies": tallies,
    "estimators": estimands,
    "version": version,
}
"""What a page may ask for."""
