"""What a step computes on: its tokens, their references, and the token columns of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from jaxlens.corpus import references, token_file

if TYPE_CHECKING:
    from jaxlens import types
    from jaxlens.corpus.plan import Plan

Tables = tuple[Bool[np.ndarray, " vocab"], Bool[np.ndarray, " vocab"]]


def batch(
    plan: Plan, step: int, tokens: token_file.TokenFile, tables: Tables | None, seed: int
) -> tuple[types.Step, dict[str, np.ndarray]]:
    """Everything about one step that does not need the model.

    Args:
        plan: The plan of the token file.
        step: Number of the step.
        tokens: Open token file.
        tables: See ``tokenizer.word_tables``; None where there is no tokenizer.
        seed: Seed of the tokens that are drawn from other documents.

    Returns:
        The step as NumPy arrays, and the token columns of ``schema.COLUMNS`` of its recorded
        rows in token-file order. Ids in the columns are int32, -1 where there is none.

    Raises:
        DataError: The token file is shorter than its index says.
        StorageError: The system refused to read.
    """
    layout = _Layout(plan, step)
    flat, columns = _flat(layout.index, layout.window, tokens, tables, seed)
    columns["position"] = np.minimum(layout.seen, 2**16 - 1).astype(np.uint16)
    recorded = layout.position >= layout.skip
    return layout.step(flat, recorded), {k: values[recorded] for k, values in columns.items()}


class _Layout:
    """Positions of the tokens of one step: flat arrays, in token-file order."""

    def __init__(self, plan: Plan, step: int) -> None:
        windows = slice(int(plan.step_window[step]), int(plan.step_window[step + 1]))
        size = plan.window_length[windows]
        corner = plan.window_line[windows].astype(np.int64) * plan.length
        corner += plan.window_column[windows]
        self.plan = plan
        self.window = np.repeat(np.arange(len(size)), size)
        self.position = np.arange(len(self.window)) - np.repeat(np.cumsum(size) - size, size)
        self.index = plan.window_start[windows][self.window] + self.position
        self.skip = plan.window_skip[windows][self.window]
        self.segment = plan.window_segment[windows][self.window]
        self.slot = corner[self.window] + self.position
        self.seen = self.position + plan.lead
        self.before = corner - plan.lead, plan.window_segment[windows]

    def step(self, flat: dict[str, np.ndarray], recorded: Bool[np.ndarray, " n"]) -> types.Step:
        """The step, right-padded to its fixed shape."""
        from jaxlens import types

        tokens, segments = self._grid(flat["input"], 0), self._grid(self.segment, 0)
        mask = segments > 0
        if self.plan.bos_id is not None:
            corner, segment = self.before
            tokens.flat[corner], segments.flat[corner] = self.plan.bos_id, segment
        grids = {name: self._grid(values, -1) for name, values in flat.items()}
        order: Any = np.zeros(self.plan.capacity, np.int32)
        count: Any = np.asarray(recorded.sum(), np.int32)
        order[:count] = self.slot[recorded]
        return types.Step(
            tokens=tokens,
            positions=self._grid(self.seen, 0),
            segments=segments,
            references=types.References(**grids, mask=mask),
            order=order,
            count=count,
        )

    def _grid(self, values: np.ndarray, empty: int) -> Any:
        grid = np.full(self.plan.capacity, empty, np.int32)
        grid[self.slot] = values
        return grid.reshape(self.plan.step_sequences, self.plan.length)


def _flat(
    index: Int[np.ndarray, " n"],
    window: Int[np.ndarray, " n"],
    tokens: token_file.TokenFile,
    tables: Tables | None,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Reference tokens and columns of computed positions, given by their index in the file."""
    start = tokens.index.document_start
    # One token more on either side: words and the next token do not end with the window.
    low, high = max(0, int(index[0]) - 1), min(int(start[-1]), int(index[-1]) + 2)
    span = np.append(tokens.read(low, high).astype(np.int32), np.int32(-1))
    span_document = references.document_of(start, np.arange(low, high))
    pieces = references.piece(span[:-1], start[span_document] == np.arange(low, high), tables)
    token, document = span[index - low], span_document[index - low]
    following = np.where(index + 1 < start[document + 1], span[index + 1 - low], -1)
    drawn = references.foreign_index(index, document, start, seed)
    source = np.maximum(drawn, 0)
    foreign = np.where(drawn < 0, -1, tokens.gather(source).astype(np.int32))
    folds = (tokens.index.document_hash & np.uint64(1)).astype(np.uint8)
    foreign_fold = np.where(drawn < 0, 255, folds[references.document_of(start, source)])
    previous, count = references.earlier(token, window)
    distance = np.where(previous < 0, 0, np.arange(len(token)) - previous)
    flat = {
        "input": token,
        "next": following,
        "foreign": foreign,
        "copy": references.copy_token(token, previous),
    }
    return flat, {
        "token": token,
        "next_token": following,
        "foreign_token": foreign,
        "copy_token": flat["copy"],
        "document": document.astype(np.uint32),
        "offset": (index - start[document]).astype(np.uint32),
        "prev_distance": np.minimum(distance, 2**16 - 1).astype(np.uint16),
        "prev_count": np.minimum(count, 2**16 - 1).astype(np.uint16),
        "match_length": references.match_length(token, window, previous).astype(np.uint8),
        "copied": references.copied(token, following, previous).astype(np.uint8),
        "piece": pieces[index - low],
        "fold": folds[document],
        "foreign_fold": foreign_fold.astype(np.uint8),
    }
