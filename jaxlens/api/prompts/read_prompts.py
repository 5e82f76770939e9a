"""Any number of prompts through the lens, at their last position or at chosen ones."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlens import api, arguments, models, types
from jaxlens.api import checks
from jaxlens.api.prompts import answer_columns, batches, inputs, selection, spacing
from jaxlens.api.prompts.table import PromptTable
from jaxlens.lens import numerics, options, tiled, tuning, unembedding
from jaxlens.models import loading

_QUANTITIES = ("top_id", "top_logp", "entropy", "kl_final", "rank_follow", "logp_follow")

# Positions of a forward pass, on CPUs and on accelerators.
_BATCH_TOKENS, _BATCH_TOKENS_ACCELERATOR = 2048, 16_384


class Progress(Protocol):
    """Receives progress updates."""

    def begin(self, total: int, done: int) -> None:
        """There are ``total`` tokens, of which ``done`` are done."""

    def advance(self, count: int) -> None:
        """More tokens are done."""


def read_prompts(
    model: loading.Model,
    prompts: Iterable[str | Sequence[int]],
    answers: Any = None,
    *,
    top_k: int = 5,
    positions: Any = "last",
    layers: api.Layers = None,
    difference: tuple[str, str] | None = None,
    leading_space: spacing.Space = "auto",
    bos: bool | None = None,
    metadata: Mapping[str, Sequence[Any]] | None = None,
    strict: bool = True,
    decoder: str = "final_norm",
    precision: str = "float32",
    progress: Progress | None = None,
) -> PromptTable:
    r"""Reads the lens on any number of prompts, and how it ranks their answers at each layer.

    Prompts are padded and batched by length. The lens sees only the positions that are asked for,
    and no more logits than one tile of the vocabulary (and those of the two end layers of one block
    of positions) are ever held, so that memory grows with the table alone.

    An answer stands for the first token of its text. Whether that is the whole answer, whether a
    leading space was put before it, and whether another answer of the prompt begins alike is
    reported in ``table.answers``.

    Args:
        model: From ``load_model``.
        prompts: Texts, or lists of token ids of any lengths.
        answers: One text or token id for each prompt, or for all. Where a prompt has several, a
            list of candidates for each (named ``answer.1``, ...), a mapping of names for each, or
            one mapping of names to one for each prompt or for all:
            ``{"right": [" Paris", " Rome"], "wrong": " London"}``. None stands for no answer.
        top_k: Best tokens to keep at each layer.
        positions: ``last``; ``all``; numbers for all prompts, negative from the end; or a list of
            such numbers for each prompt.
        layers: Residual streams, as for ``read_lens``; one that is named twice is read once.
        difference: Names of two answers, for ``logit_difference``: the logit of the first minus
            that of the second, in nats. Where there are just two answers they are the default.
        leading_space: Whether answers get a leading space: ``auto`` gives one where the answer
            begins with a letter or a digit and the prompt does not end with white space, an opening
            bracket or quotation mark, or one of ``/ - _ $ # @ = \``, and neither is written in a
            script without spaces, such as Chinese; ``never`` takes answers as they are, ``always``
            gives one to all that have none.
        bos: Whether the beginning-of-text token is put before every prompt, as position 0; by
            default where the model's tokenizer does so. TransformerLens always does by default.
        metadata: Further columns of one value a prompt, to be carried along.
        strict: Whether prompts and answers that cannot be read are refused. If not, they have no
            rows or no token, and stand in ``table.problems``.
        decoder: As for ``read_lens``.
        precision: As for ``read_lens``.
        progress: Receives the number of tokens, and then those that are done.

    Returns:
        A table; its docstring defines the columns. Ranks count from 1, logarithms are in nats,
        probabilities from 0 to 1.

    Raises:
        ConfigError: The model has no tokenizer for texts, arguments do not fit, or with ``strict``
            a prompt or answer cannot be read: it is missing, empty, or too long for the model.
    """
    checks.model(model)
    checks.decoder(decoder)
    checks.progress(progress)
    numerics.require_precision(precision)
    bos = model.adds_bos if bos is None else arguments.flag(bos, "bos")
    strict = arguments.flag(strict, "strict")
    prompt_list = inputs.listed(prompts)
    named = answer_columns.columns(answers, len(prompt_list))
    encoded = inputs.encode(model, prompt_list, bos)
    taken = inputs.take_answers(model, named, encoded, leading_space)
    problems = inputs.problems_of(encoded, taken, named)
    rows = selection.rows(positions, encoded, problems)
    if strict and problems:
        raise inputs.refusal(problems)
    n_layers = model.config.n_layer + 1
    layer_numbers = checks.layers(layers, n_layers)
    if layer_numbers is not None:
        layer_numbers = tuple(dict.fromkeys(layer_numbers))
    request = options.Options(_QUANTITIES, layer_numbers, top_k, precision)
    request = request.for_model(n_layers, model.config.vocab_size)
    read = _read(model, decoder, request, encoded, rows, taken.token, progress)
    numbers = request.layers or ()
    return PromptTable(
        **read,
        layers=numbers,
        layer_names=tuple(model.config.layer_names[number] for number in numbers),
        answers=taken,
        difference=selection.difference_of(difference, taken.names),
        texts=encoded.texts,
        metadata=selection.metadata_of(metadata, len(prompt_list)),
        problems=tuple(problems),
        trailing_space=encoded.trailing_space,
        decoder=decoder,
        spell=inputs.spell_of(model),
    )


def _read(
    model: loading.Model,
    decoder: str,
    request: options.Options,
    encoded: inputs.Encoded,
    rows: Sequence[np.ndarray],
    answers: Int[np.ndarray, "prompt answer"],
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    """All arrays of the table that have a row axis."""
    starts = np.cumsum([0, *map(len, rows)])
    prompt = np.repeat(np.arange(len(rows)), np.diff(starts))
    position = np.concatenate([np.zeros(0, np.int64), *rows])
    lines = (encoded.ids[p][at] for p, at in zip(prompt, position, strict=True))
    token = np.fromiter(lines, np.int32, len(prompt))
    depth, width = len(request.layers or ()), answers.shape[1]
    shapes = {"top_id": request.top_k, "top_logp": request.top_k, "rank": width, "logp": width}
    arrays = {
        name: np.zeros((len(prompt), depth, size), np.int32 if name in _IDS else np.float32)
        for name, size in shapes.items()
    }
    arrays |= {n: np.zeros((len(prompt), depth), np.float32) for n in ("entropy", "kl_final")}
    lens = _Lens(model, decoder, request, width, len(prompt))
    for where, streams in lens.regrouped(_streams(model, encoded.ids, rows, starts, progress)):
        for name, values in lens.read(streams, token[where], answers[prompt[where]]).items():
            arrays[name][where] = values
    return {"prompt": prompt, "position": position, "token": token} | arrays


_IDS = ("top_id", "rank")


def _streams(
    model: loading.Model,
    ids: Sequence[Any],
    rows: Sequence[np.ndarray],
    starts: np.ndarray,
    progress: Progress | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of the table, and their residuals ``[layer, row, embed]``, batch after batch."""
    on_cpu = jax.default_backend() == "cpu"
    max_tokens = _BATCH_TOKENS if on_cpu else _BATCH_TOKENS_ACCELERATOR
    read = np.array([number for number, positions in enumerate(rows) if len(positions)], np.int64)
    if progress is not None:
        progress.begin(sum(len(ids[number]) for number in read), 0)
    if not len(read):
        return
    for batch in batches.batches([ids[n] for n in read], max_tokens, model.config.n_positions):
        members = read[batch.prompts]
        where = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in members])
        line = np.repeat(np.arange(len(members)), [len(rows[n]) for n in members])
        at = np.concatenate([rows[n] for n in members])
        # As many places as lines, or a power of two times as many: a shape compiles once.
        room = len(batch.tokens)
        while room < len(at):
            room *= 2
        padding = (0, room - len(at))
        indices = (np.pad(part.astype(np.int32), padding) for part in (line, at))
        streams = _residuals_at(model.params, model.config, batch.tokens, *indices)
        yield where, np.asarray(streams)[:, : len(at)]
        if progress is not None:
            progress.advance(int(batch.mask.sum()))


class _Lens:
    """The lens at rows of one fixed number at a time."""

    def __init__(
        self, model: loading.Model, decoder: str, request: options.Options, answers: int, rows: int
    ) -> None:
        self._unembed = models.unembed(model.params, model.config, decoder)
        block = tuning.choose_block(model.config.vocab_size, 1 << 30)
        self._rows = min(block, 1 << max(3, (rows - 1).bit_length()))
        self._answers = answers
        self._request = request
        with numerics.matmul_precision(request.precision):
            self._tiles = unembedding.tile_unembedding(self._unembed, request)

    def regrouped(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same rows in groups of the lens; the last one may be smaller."""
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        count = 0
        for where, streams in batches:
            waiting.append((where, streams))
            count += len(where)
            if count < self._rows:
                continue
            where, streams = _joined(waiting)
            while count >= self._rows:
                yield where[: self._rows], streams[:, : self._rows]
                where, streams = where[self._rows :], streams[:, self._rows :]
                count = len(where)
            waiting = [(where, streams)]
        if count:
            yield _joined(waiting)

    def read(
        self,
        streams: Float[np.ndarray, "layer row embed"],
        token: Int[np.ndarray, " row"],
        answers: Int[np.ndarray, "row answer"],
    ) -> dict[str, np.ndarray]:
        """The quantities of at most one group of rows."""
        count = len(token)
        room = (0, self._rows - count)
        streams = np.pad(streams, ((0, 0), room, (0, 0)))
        absent = np.full((self._rows, 1), -1, np.int32)
        # The lens needs at least one followed token; -1 stands for none.
        follow = np.full((self._rows, 1, max(1, self._answers)), -1, np.int32)
        follow[:count, 0, : self._answers] = answers
        known: Any = types.References(
            input=np.pad(token, room)[:, None],  # type: ignore[arg-type]
            next=absent,  # type: ignore[arg-type]
            foreign=absent,  # type: ignore[arg-type]
            copy=absent,  # type: ignore[arg-type]
            mask=(np.arange(self._rows) < count)[:, None],  # type: ignore[arg-type]
            follow=follow,  # type: ignore[arg-type]
        )
        with numerics.matmul_precision(self._request.precision):
            readout = _lens(streams[:, :, None], self._unembed, known, self._request, self._tiles)
        values: dict[str, np.ndarray] = {}
        for name, value in readout.present().items():
            rows = np.asarray(value)[:, :count, 0].swapaxes(0, 1)
            stem, followed, _ = name.partition("_follow")
            values[stem] = rows[..., : self._answers] if followed else rows
        return values


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([where for where, _ in parts]),
        np.concatenate([streams for _, streams in parts], axis=1),
    )


@functools.partial(jax.jit, static_argnums=1)
def _residuals_at(
    params: types.Params,
    architecture: types.Architecture,
    tokens: Int[Array, "line position"],
    line: Int[Array, " row"],
    position: Int[Array, " row"],
) -> Float[Array, "layer row embed"]:
    return models.residuals(params, architecture, tokens)[:, line, position]


@functools.partial(jax.jit, static_argnums=3)
def _lens(
    streams: jax.Array,
    unembed: types.Unembed,
    known: types.References,
    request: options.Options,
    tiles: unembedding.TiledUnembedding,
) -> types.Readout:
    return tiled.read(streams, unembed, known, request, tiles)
