"""One table of everything that is recorded: per-token quantities and mergeable tallies.

The lens fills the quantities, and the store writes them with the units and meanings given here.
NumPy is imported where it is needed: the command line reads this module before it knows whether
there is enough memory for NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

FORMAT_VERSION = 4
"""Of what is written for a run that begins now."""

FORMATS = (3, 4)
"""Versions that are read and, where a run began with one, still written: its shards are a function
of its spec, to the byte. Version 3 lacks the attributes ``_FillValue``."""

ARRAYS_VERSION = 3
"""Of the index of the token file, whose hash stands in the spec."""

REFERENCES = ("input", "next", "final", "foreign", "copy")
"""Tokens that a position is compared with."""


@dataclass(frozen=True)
class Quantity:
    """A recorded column.

    Attributes:
        name: Name of the dataset and of the ``Readout`` field.
        kind: ``rank``, ``id``, ``float`` or ``column`` (a per-token integer).
        axes: ``("row", "layer")``, ``("row",)``, ...
        unit: ``1``, ``nat`` or ``id``.
        meaning: One sentence, stored as ``long_name``.
        core: Whether the ``core`` profile records it.
        full: Whether the ``full`` profile records it.
        dtype: Stored dtype of a ``column``; of the others it follows from kind and profile.
        reference: Token that a rank or log-probability is of.
        absent: What a row without a value has, as it is handed out: 0 of a rank, -1 of an id, NaN,
            or a code of a column; None where every row has a value.
    """

    name: str
    kind: str
    axes: tuple[str, ...]
    unit: str
    meaning: str
    core: bool = False
    full: bool = False
    dtype: str = ""
    reference: str = ""
    absent: float | None = None


def _layered(name: str, kind: str, unit: str, meaning: str, **more: object) -> Quantity:
    return Quantity(name, kind, ("row", "layer"), unit, meaning, **more)  # type: ignore[arg-type]


def _column(
    name: str,
    dtype: str,
    meaning: str,
    unit: str = "1",
    kind: str = "column",
    absent: float | None = None,
) -> Quantity:
    return Quantity(name, kind, ("row",), unit, meaning, full=True, dtype=dtype, absent=absent)


_MEANINGS = (
    *("the token at this position", "the true next token of the document"),
    *("the model's own top-1 at the last layer", "a token drawn from another document"),
    "the token that followed the last earlier occurrence of the input token",
)
_REFERENCE_MEANING = dict(zip(REFERENCES, _MEANINGS, strict=True))

PIECE_WHOLE, PIECE_FIRST, PIECE_MIDDLE, PIECE_LAST, PIECE_UNKNOWN = 0, 1, 2, 3, 255

_RANKS = tuple(
    _layered(
        f"rank_{name}",
        "rank",
        "1",
        f"rank of {meaning}: 1 + number of tokens with a greater logit; 0 where there is none",
        core=name in ("input", "next", "final"),
        full=True,
        reference=name,
        absent=0,
    )
    for name, meaning in _REFERENCE_MEANING.items()
)
_TIES = tuple(
    _layered(
        f"ties_{name}",
        "rank",
        "1",
        f"number of other tokens whose logit equals that of {meaning}",
        reference=name,
    )
    for name, meaning in _REFERENCE_MEANING.items()
)
_LOG_PROBABILITIES = tuple(
    _layered(
        f"logp_{name}",
        "float",
        "nat",
        f"log-probability of {_REFERENCE_MEANING[name]}",
        core=name == "input",
        full=True,
        reference=name,
        absent=math.nan if name == "next" else None,
    )
    for name in ("input", "next", "final")
)

QUANTITIES: dict[str, Quantity] = {
    q.name: q
    for q in (
        *_RANKS,
        *_TIES,
        *_LOG_PROBABILITIES,
        _layered("kl_final", "float", "nat", "KL(last layer || this layer)", core=True, full=True),
        _layered("kl_input", "float", "nat", "KL(input layer || this layer)", core=True, full=True),
        _layered("kl_to_final", "float", "nat", "KL(this layer || last layer)"),
        _layered("kl_to_input", "float", "nat", "KL(this layer || input layer)"),
        _layered(
            "kl_final_matched",
            "float",
            "nat",
            "KL(last layer || this layer at its matched temperature)",
            full=True,
        ),
        _layered("js_final", "float", "nat", "Jensen-Shannon divergence from the last layer"),
        _layered("js_input", "float", "nat", "Jensen-Shannon divergence from the input layer"),
        _layered("entropy", "float", "nat", "entropy of this layer", core=True, full=True),
        Quantity(
            "top_id",
            "id",
            ("row", "layer", "k"),
            "id",
            "the k most probable tokens, ties to the lowest id",
            core=True,
            full=True,
        ),
        Quantity(
            "top_logp",
            "float",
            ("row", "layer", "k"),
            "nat",
            "log-probabilities of the k most probable tokens",
        ),
        _layered("norm", "float", "1", "Euclidean norm of the residual"),
        _layered("retention", "float", "1", "projection of the residual on its centred embedding"),
        _layered(
            "retention_foreign",
            "float",
            "1",
            "projection of the residual on the centred embedding of a token of another document",
            absent=math.nan,
        ),
        Quantity(
            "rank_follow",
            "rank",
            ("row", "layer", "m"),
            "1",
            "rank of each followed token",
            absent=0,
        ),
        Quantity(
            "logp_follow",
            "float",
            ("row", "layer", "m"),
            "nat",
            "log-probability of each followed token",
            absent=math.nan,
        ),
        Quantity(
            "surprisal",
            "float",
            ("row",),
            "nat",
            "minus log-probability of the token before it was seen; missing where a context begins",
            full=True,
            absent=math.nan,
        ),
        Quantity(
            "embedding_norm",
            "float",
            ("row",),
            "1",
            "Euclidean norm of the token's embedding, less the mean of all",
            full=True,
        ),
        _column("token", "token", "token at this position", "id", "id"),
        _column("next_token", "token", "next token of the document", "id", "id", absent=-1),
        _column(
            "foreign_token", "token", "the token drawn from another document", "id", "id", absent=-1
        ),
        _column(
            "copy_token", "token", "token after the last earlier occurrence", "id", "id", absent=-1
        ),
        _column("document", "uint32", "number of the document in the token file"),
        _column("offset", "uint32", "index of the token in its document"),
        _column("position", "uint16", "index that the position embedding saw"),
        _column(
            "prev_distance",
            "uint16",
            "distance to the last earlier occurrence in context",
            absent=0,
        ),
        _column("prev_count", "uint16", "number of earlier occurrences in context"),
        _column("match_length", "uint8", "length of the common suffix with the copy source"),
        _column("copied", "uint8", "1 where the context copies the token later, 0 where not"),
        _column(
            "piece",
            "uint8",
            "0 whole word, 1 first, 2 middle, 3 last piece, 255 unknown",
            absent=PIECE_UNKNOWN,
        ),
        _column("fold", "uint8", "fold of the document, from the hash of its text"),
        _column(
            "foreign_fold", "uint8", "fold of the foreign token's document; 255 unknown", absent=255
        ),
    )
}

REFERENCE_ONLY = tuple(q.name for q in _TIES)
"""Quantities that only the reference lens computes."""

PER_TOKEN = ("surprisal", "embedding_norm")
"""Quantities without a layer that need the model."""

COLUMNS = tuple(
    q.name for q in QUANTITIES.values() if q.axes == ("row",) and q.name not in PER_TOKEN
)
"""Per-token columns, which the corpus provides."""

LAYERED = tuple(q.name for q in QUANTITIES.values() if "layer" in q.axes)
"""Quantities that the lens provides."""

CORE = tuple(q.name for q in QUANTITIES.values() if q.core)
FULL = tuple(q.name for q in QUANTITIES.values() if q.full)

PROFILES: dict[str, tuple[str, ...]] = {"none": (), "core": CORE, "full": FULL}
"""Rows that ``--rows`` names."""

MAX_FIELDS = 16
"""Fields that a run can keep."""

STRING_BYTES = 200
"""Bytes of a string, UTF-8."""

ID_BYTES = 200
"""Bytes of a document's id."""


def id_dtype(vocab_size: int) -> str:
    """Stored dtype of ranks and token ids; its largest value is the missing id."""
    return "uint16" if vocab_size <= 65_535 else "uint32"


def stored_dtype(name: str, profile: str, vocab_size: int) -> str:
    """Dtype in which a quantity is stored.

    Args:
        name: A key of ``QUANTITIES``.
        profile: ``core`` halves the floats, ``full`` keeps float32.
        vocab_size: Decides the width of ranks and ids.
    """
    quantity = QUANTITIES[name]
    if quantity.kind in ("rank", "id"):
        return id_dtype(vocab_size)
    if quantity.kind == "float":
        return "float16" if profile == "core" else "float32"
    return quantity.dtype


def fill_value(name: str, dtype: Any) -> Any:
    """The scalar that a file has where a row has no value; None where every row has one.

    Args:
        name: A key of ``QUANTITIES``.
        dtype: Its stored type.
    """
    import numpy as np

    absent = QUANTITIES[name].absent
    # The -1 of an id becomes the largest value.
    return None if absent is None else np.array(absent).astype(dtype)[()]


SUMMED = tuple(
    q.name
    for q in QUANTITIES.values()
    if "layer" in q.axes and q.full and q.kind in ("rank", "float")
)
"""Quantities with a sum; of ranks the natural logarithm is summed."""
