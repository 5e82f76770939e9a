"""What of two runs belongs together: tokens, documents and layers, or why they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlens import errors
from jaxlens.store import reader
from jaxlens.tally import bins
from jaxlens.view.comparison import depths

Pairs = tuple[tuple[int, int], ...]

_TOKENS = {
    "kind of corpus": ("corpus", "kind"),
    "tokenizer": ("tokenizer", "sha256"),
    "BOS token": ("corpus", "bos"),
    "number of tokens": ("corpus", "n_tokens"),
    "number of documents": ("corpus", "n_documents"),
    "token file": ("corpus", "sha256"),
}
"""What decides the tokens; causes stand before what follows from them."""

_SETTINGS = {
    "model": ("model", "sha256"),
    "dtype": ("model", "dtype"),
    "decoder": ("lens", "decoder"),
    "precision": ("lens", "precision"),
    "residuals": ("lens", "residuals"),
    "implementation": ("lens", "implementation"),
    "context length": ("plan", "length"),
    "overlap": ("plan", "overlap"),
    "rows": ("store", "rows"),
}


def require(one: reader.Run, two: reader.Run) -> Pairs:
    """The layers of two runs of the same tokens that belong together.

    Layers of models of the same depth are aligned by name. Otherwise each layer of the shallower
    model goes with the nearest of the deeper one by relative depth, the first and the last among
    them.

    Raises:
        ConfigError: The runs are of other tokens or documents, or the same run.
    """
    if one.spec_hash == two.spec_hash:
        raise errors.ConfigError(
            f"{two.path} is the same run as {one.path}", "compare it with another run"
        )
    sides = [{what: _value(run.spec, *key) for what, key in _TOKENS.items()} for run in (one, two)]
    for what in _TOKENS:
        ours, theirs = (side[what] for side in sides)
        if ours != theirs:
            raise errors.ConfigError(
                f"{one.path} and {two.path} are of other tokens: {what} {ours!s:.20} and "
                f"{theirs!s:.20}",
                "compare runs over the same corpus, with the same tokenizer, limit and BOS token",
            )
    lengths = len(one.layer_names), len(two.layer_names)
    if lengths[0] == lengths[1]:
        return tuple((i, i) for i in range(lengths[0]))
    return tuple(depths.matched(*lengths))


def differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
    """Settings in which two specs differ, each with both values."""
    settings = {what: (_value(one, *key), _value(two, *key)) for what, key in _SETTINGS.items()}
    settings["null"] = (_null(one), _null(two))
    return {what: (ours, theirs) for what, (ours, theirs) in settings.items() if ours != theirs}


def notes(one: reader.Run, two: reader.Run, pairs: Pairs) -> Iterator[str]:
    """What holds of all lines of a comparison."""
    if len(one.layer_names) == len(two.layer_names):
        yield f"{len(pairs)} layers aligned by name"
    else:
        blocks = [len(run.layer_names) - 1 for run in (one, two)]
        yield f"{blocks[0]} and {blocks[1]} blocks, aligned by relative depth"
    if "core" in (_value(run.spec, "store", "rows") for run in (one, two)):
        yield "rows of the core profile hold half floats: three digits a value"


Groups = Callable[[Int[np.ndarray, " row"]], Int[np.ndarray, " row"]]
"""From rows to the groups of their documents."""


def groups(one: reader.Run, two: reader.Run) -> Groups | None:
    """Group of the document of each row; None where neither run has an index of its tokens.

    Raises:
        ConfigError: The documents begin elsewhere.
        DataError: An index is damaged.
    """
    indices = []
    for run in (one, two):
        try:
            indices.append(run.corpus.documents)
        except errors.MissingError:
            continue
    if not indices:
        return None
    documents, *others = indices
    if any(not np.array_equal(documents.start, other.start) for other in others):
        raise errors.ConfigError(
            f"{one.path} and {two.path} have the same tokens in other documents",
            "compare runs over the same files",
        )
    of_document = bins.group_of(documents.hash).astype(np.int64)
    return lambda rows: of_document[documents.of(rows)]


def _null(spec: Mapping[str, Any]) -> str:
    kind = _value(spec, "null", "kind")
    seed = _value(spec, "null", "seed")
    return "none" if kind in (None, "none") else f"{kind} (seed {seed})"


def _value(spec: Mapping[str, Any], section: str, key: str) -> Any:
    settings = spec.get(section)
    return settings.get(key) if isinstance(settings, dict) else None
