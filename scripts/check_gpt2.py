"""Compares OpenAI's GPT-2, as the Hugging Face hub has it, with what is published about it.

    python scripts/check_gpt2.py gpt2 gpt2-medium

Names are those of ``EXPECTED``, all of them by default, or directories of these names. Prints a
table; exits with 1 if a check fails. What can be had neither from the hub nor from its cache is
skipped.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gpt2_measures as measures
import huggingface_hub
import numpy as np
import pyarrow.parquet
from huggingface_hub.errors import LocalEntryNotFoundError

from jaxlens import errors
from jaxlens.corpus.synthetic import templates
from jaxlens.lens import identity
from jaxlens.models import loading

WIKITEXT = ("Salesforce/wikitext", "wikitext-2-raw-v1/test-00000-of-00001.parquet")
GREETING = "Hello world"


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is published of a model; None is not checked.

    Attributes:
        greeting: Token ids of ``GREETING``.
        paper: Perplexity of WikiText-2 in the GPT-2 paper, whose text is detokenised.
        paper_103: The same of WikiText-103, a word; for comparison only.
        perplexity: Of the test set of WikiText-2 by the procedure of transformers' documentation
            (the page "Perplexity of fixed-length models", and issue 13761), a token.
        bias_tokens: Tokens of the greatest products of the last norm's bias with the unembedding.
        plasma: Ranks of the last token of the post's prompt, where it is the next token, after each
            of the last blocks.
        plain_above: Less than its rank after the last block but one, with the decoder ``plain``.
        growth: Least and greatest growth of residual norms a block.
    """

    greeting: tuple[int, ...] = (15496, 995)
    paper: float | None = None
    paper_103: float | None = None
    perplexity: float | None = None
    bias_tokens: tuple[str, ...] | None = None
    plasma: tuple[int, ...] | None = None
    plain_above: int | None = None
    growth: tuple[float, float] | None = None


EXPECTED = {
    "gpt2": Expected(
        paper=29.41,
        paper_103=37.50,
        perplexity=29.94,
        bias_tokens=(",", " the", " and", "."),
        plasma=(2, 1, 1, 1),
        plain_above=1000,
    ),
    "gpt2-medium": Expected(paper=22.76, paper_103=26.37),
    "gpt2-large": Expected(paper=19.93, paper_103=22.05, perplexity=19.44),
    "gpt2-xl": Expected(paper=18.34, paper_103=17.48, growth=(1.03, 1.06)),
}
NEAR, NEAR_PAPER = 0.005, 0.08
"""Relative differences of perplexities by the same procedure, and by the paper's."""


class Check(NamedTuple):
    """A line of the table; ``ok`` is None where nothing is judged."""

    model: str
    check: str
    measured: Any
    expected: str
    ok: bool | None


def checks(name: str, text: str | None, expected: Expected) -> Iterator[Check]:
    """All checks of a model, one after another.

    Args:
        name: Hub id or directory.
        text: Of WikiText-2; None leaves out what needs it.
        expected: What is published.

    Raises:
        JaxlensError: The model cannot be loaded.
    """
    model = loading.from_checkpoint(loading.load_checkpoint(name, read=False))
    ids = None if text is None else measures.encode(model, text)
    yield _identity(name, model, ids)
    found = measures.encode(model, GREETING).tolist()
    wanted = list(expected.greeting)
    yield Check(name, f"tokens of {GREETING!r}", found, str(wanted), found == wanted)
    if expected.bias_tokens is not None:
        tokens, wanted = (
            measures.bias_tokens(model, len(expected.bias_tokens)),
            list(expected.bias_tokens),
        )
        yield Check(
            name, "tokens of greatest ln_f.bias . W^T", tokens, str(wanted), tokens == wanted
        )
    yield from _plasma(name, model, expected)
    if ids is not None:
        yield from _growth(name, model, ids, expected)
        if expected.perplexity is not None or expected.paper is not None:
            yield from _perplexities(name, model, ids, expected)


def _identity(name: str, model: loading.Model, ids: np.ndarray | None) -> Check:
    sample = None if ids is None else ids[None, : min(identity.TOKENS, model.config.n_positions)]
    limit = identity.LIMITS["float32"]
    try:
        measured, is_model = loading.check_identity(model, sample), True
    except errors.NumericalError as error:
        measured, is_model = error.message, False
    return Check(name, "identity gate, nat", measured, f"at most {limit:g}", is_model)


def _plasma(name: str, model: loading.Model, expected: Expected) -> Iterator[Check]:
    said = "rank of ' plasma' as the next token"
    if expected.plasma is not None:
        wanted, count = list(expected.plasma), len(expected.plasma)
        found = measures.last_ranks(model, templates.POST, "final_norm")[-count:]
        yield Check(name, f"{said}, last blocks", found, str(wanted), found == wanted)
        found = measures.last_ranks(model, templates.POST, "final_norm", -1)[-count:]
        yield Check(name, "the same where it is the input", found, "", None)
    if expected.plain_above is not None:
        rank = measures.last_ranks(model, templates.POST, "plain")[-2]
        limit = expected.plain_above
        yield Check(name, f"{said}, plain, last but one", rank, f"above {limit}", rank > limit)


def _growth(
    name: str, model: loading.Model, ids: np.ndarray, expected: Expected
) -> Iterator[Check]:
    if expected.growth is None:
        return
    low, high = expected.growth
    found = measures.growth(model, ids)
    yield Check(
        name, "growth of norms a block", found, f"{low:g} to {high:g}", low <= found <= high
    )
    yield Check(
        name, "growth of norms, with the first block", measures.growth(model, ids, 0), "", None
    )


def _perplexities(
    name: str, model: loading.Model, ids: np.ndarray, expected: Expected
) -> Iterator[Check]:
    print(f"{name}: reading {len(ids):,} tokens of WikiText-2", file=sys.stderr, flush=True)
    found = measures.perplexity(model, ids)
    for said, value, tolerance in (
        ("transformers", expected.perplexity, NEAR),
        ("the paper", expected.paper, NEAR_PAPER),
    ):
        if value is not None:
            wanted = f"{value:.2f} within {tolerance:.1%} ({said})"
            is_near = abs(found / value - 1) <= tolerance
            yield Check(name, "perplexity of WikiText-2, a token", found, wanted, is_near)
    if expected.paper_103 is not None:
        wanted = f"{expected.paper_103:.2f} (the paper: WikiText-103, a word)"
        yield Check(name, "perplexity of WikiText-2, a token", found, wanted, None)


def wikitext() -> str:
    """The test set of WikiText-2, its lines joined by two newlines.

    Raises:
        LocalEntryNotFoundError: Neither the hub nor its cache has it.
    """
    repository, file = WIKITEXT
    folder = huggingface_hub.snapshot_download(
        repository, repo_type="dataset", allow_patterns=[file]
    )
    path = Path(folder) / file
    if not path.is_file():
        raise LocalEntryNotFoundError(f"{file} of {repository} is not in the hub's cache")
    return "\n\n".join(pyarrow.parquet.read_table(path, columns=["text"])["text"].to_pylist())


def table(names: Sequence[str], expected: Mapping[str, Expected]) -> list[Check]:
    """The checks of all models, printed one by one; what is out of reach is said and skipped.

    Raises:
        JaxlensError: A model is missing or damaged.
    """
    text, found = None, []
    try:
        text = wikitext()
    except LocalEntryNotFoundError as error:
        print(f"skipped: WikiText-2: {str(error).splitlines()[0]}")
    for name in names:
        try:
            for check in checks(name, text, expected[Path(name).name]):
                if not found:
                    _show(Check("model", "check", "measured", "expected", None), "ok")
                found.append(check)
                _show(check)
        except errors.MissingError as error:
            if not _is_out_of_reach(name, error):
                raise
            print(f"skipped: {error.message}")
    return found


def status(found: Sequence[Check]) -> int:
    """The exit status of checks; says which failed."""
    failed = [check for check in found if check.ok is False]
    for check in failed:
        print(
            f"failed: {check.model}: {check.check}: {_measured(check)}, expected {check.expected}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def main(arguments: Sequence[str], expected: Mapping[str, Expected] = EXPECTED) -> int:
    """Prints the table; the exit status."""
    names = list(arguments) or list(expected)
    unknown = [name for name in names if Path(name).name not in expected]
    if unknown:
        print(f"error: nothing is published here of {unknown[0]}", file=sys.stderr)
        print(f"hint: take {', '.join(expected)}, or a directory of that name", file=sys.stderr)
        return 2
    return status(table(names, expected))


def _is_out_of_reach(name: str, error: errors.MissingError) -> bool:
    """Whether a model is missing for want of a network."""
    is_offline = huggingface_hub.is_offline_mode() and Path(name).name == name
    return is_offline or isinstance(error.__cause__, LocalEntryNotFoundError)


def _show(check: Check, ok: str | None = None) -> None:
    said = ok or {True: "yes", False: "NO", None: "-"}[check.ok]
    measured = _measured(check)
    line = f"{check.model:12} {check.check:56} {measured:28} {check.expected:48} {said}"
    print(line, flush=True)


def _measured(check: Check) -> str:
    return f"{check.measured:.5g}" if isinstance(check.measured, float) else str(check.measured)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except errors.JaxlensError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
