"""A short list of prompts to look at, the logit-lens post's own one first."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlens import designs
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import templates

PROMPTS = {
    "plasma": templates.POST,
    # A rare word that comes again, near and far.
    "gneiss": (
        "The guide pointed at a band of gneiss above the lake. Nobody in the group had heard of "
        "gneiss, so she explained how heat and pressure make"
    ),
    "surname": (
        "Mr. Abernathy-Quill opened the door himself. The visitors had expected a servant, but "
        "there was no mistaking the tall figure of Mr. Abernathy-Quill"
    ),
    "invented": (
        "A florpid is a small round stone with a hole in it. Children thread each florpid on a "
        "string and wear it. When it rains, they hide every"
    ),
    # A word with two readings, of which the context leaves one.
    "bank": (
        "They rowed until dusk and pulled the boat up on the bank. In the morning the bank was "
        "under water, because the river"
    ),
    "mercury": (
        "Sometimes mercury means the metal in an old thermometer. Sometimes Mercury means the "
        "planet that is nearest to the"
    ),
    # Patterns that are copied without being understood.
    "list": "red, green, violet, red, green, violet, red, green, violet, red, green,",
    "code": (
        'for name in ("ochre", "umber", "sienna"):\n    print(name)\n\n'
        'for name in ("ochre", "umber",'
    ),
    "reversed": "one two three four five six; six five four three two",
    # What has to be known rather than copied.
    "capital": "Paris is the capital of France, Rome is the capital of Italy, and Madrid is the",
    "counting": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday,",
    "sum": "Two plus two is four, three plus three is six, and four plus four is",
}
"""Texts by name."""


def read(skips: skip_log.SkipLog) -> Iterator[documents.Document]:
    """The prompts, each a document."""
    for line, (name, text) in enumerate(PROMPTS.items(), 1):
        skips.documents += 1
        location = skip_log.Location(0, line, designs.CURATED)
        yield documents.Document(designs.curated_id(name), text, location)
