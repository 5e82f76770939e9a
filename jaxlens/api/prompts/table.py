"""What the lens reads at chosen positions of many prompts, and about their answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlens import arguments, errors
from jaxlens.api.prompts import answer_tokens


@dataclass(frozen=True, eq=False)
class Problem:
    """Why a prompt has no rows, or an answer no token.

    Attributes:
        prompt: Its number, in the order given.
        what: One of a few reasons, to be counted.
    """

    prompt: int
    what: str


@dataclass(frozen=True, eq=False)
class PromptTable:
    """What ``read_prompts`` returns: NumPy arrays with a row for each prompt and position.

    Rows are in the order in which the prompts were given, and in it by position. An array
    ``[row, layer]`` has the layers of ``layers``, in their order.

    Attributes:
        prompt: Number of the prompt, from 0, in the order given.
        position: Position in the prompt, from 0; of the beginning-of-text token if ``bos``.
        token: Token id that was read there; the lens reads what is predicted *after* it.
        layers: Numbers of the residual streams: 0 is the embedding, k the output of block k - 1.
        layer_names: Their names: ``input``, ``h.0``, ....
        top_id: Best tokens, the best first; ties go to the lowest id.
        top_logp: Their log-probabilities, in nats.
        entropy: Of the layer's distribution, in nats.
        kl_final: KL(last layer ‖ this layer), in nats; 0 at the last layer.
        answers: Token of each answer of each *prompt*, and how it was taken; see `Answers`.
        rank: Rank of each answer: 1 + number of tokens with a greater logit; 0 where the prompt
            has no such answer.
        logp: Log-probability of each answer, in nats; NaN where there is none.
        difference: Names of the two answers of ``logit_difference``; None without.
        texts: Text of each prompt; what the ids spell where ids were given.
        metadata: Further columns of one value a prompt.
        problems: Prompts without rows and answers without tokens, and why.
        trailing_space: Numbers of prompts that end with a space, after which few tokenizers can
            continue with a word.
        decoder: See ``types.Unembed.kind``.
        spell: Gives the bytes of some tokens; None without a tokenizer.
    """

    prompt: Int[np.ndarray, " row"]
    position: Int[np.ndarray, " row"]
    token: Int[np.ndarray, " row"]
    layers: tuple[int, ...]
    layer_names: tuple[str, ...]
    top_id: Int[np.ndarray, "row layer k"]
    top_logp: Float[np.ndarray, "row layer k"]
    entropy: Float[np.ndarray, "row layer"]
    kl_final: Float[np.ndarray, "row layer"]
    answers: answer_tokens.Answers
    rank: Int[np.ndarray, "row layer answer"]
    logp: Float[np.ndarray, "row layer answer"]
    difference: tuple[str, str] | None
    texts: tuple[str, ...]
    metadata: Mapping[str, Sequence[Any]]
    problems: tuple[Problem, ...]
    trailing_space: tuple[int, ...]
    decoder: str
    spell: Callable[[Iterable[int]], Mapping[int, bytes]] | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def n_prompts(self) -> int:
        """Prompts that were given, those without rows among them."""
        return len(self.texts)

    @property
    def top_p(self) -> Float[np.ndarray, "row layer k"]:
        """Probabilities of the best tokens."""
        return np.exp(self.top_logp)

    @property
    def p(self) -> Float[np.ndarray, "row layer answer"]:
        """Probability of each answer; NaN where there is none."""
        return np.exp(self.logp)

    @property
    def logit_difference(self) -> Float[np.ndarray, "row layer"] | None:
        """Logit of the first answer of ``difference`` minus that of the second, in nats.

        It is computed as the difference of their log-probabilities, which is the same.
        """
        if self.difference is None:
            return None
        first, second = (self.answers.names.index(name) for name in self.difference)
        return self.logp[..., first] - self.logp[..., second]

    @property
    def on_top(self) -> Bool[np.ndarray, "row layer answer"]:
        """Whether no token has a greater logit than the answer."""
        return self.rank == 1

    @property
    def first_top(self) -> Int[np.ndarray, "row answer"]:
        """Number of the first layer from which on the answer stays on top.

        That is, it has rank 1 there and at every further layer that was read. -1 where it is not
        on top at the last of them, -2 where there is no answer.
        """
        staying = np.logical_and.accumulate(self.on_top[:, ::-1], axis=1).sum(axis=1)
        numbers = np.array([*self.layers, -1])
        first = numbers[np.where(staying > 0, len(self.layers) - staying, -1)]
        return np.where(self.rank[:, 0] > 0, first, -2)

    @property
    def last_rows(self) -> Int[np.ndarray, " prompt"]:
        """The row of the last position that was read of each prompt that has rows."""
        order = np.lexsort((self.position, self.prompt))
        prompt = self.prompt[order]
        return order[np.append(prompt[1:] != prompt[:-1], True)[: len(self)]]

    def __getitem__(self, rows: Any) -> PromptTable:
        """Some of the rows, chosen as those of a NumPy array are; problems stay.

        Raises:
            ConfigError: They are not numbers, a slice or a mask, or there are no such rows; then
                it is an ``IndexError`` too.
        """
        numbers = np.arange(len(self))
        row_numbers = arguments.indexed(lambda: np.atleast_1d(numbers[rows]), len(self), "rows")
        if row_numbers.ndim > 1:
            raise errors.ConfigError(f"rows of shape {row_numbers.shape}", _ROWS)
        names = ("prompt", "position", "token", "top_id", "top_logp")
        names = (*names, "entropy", "kl_final", "rank", "logp")
        return dataclasses.replace(
            self, **{name: getattr(self, name)[row_numbers] for name in names}
        )

    def problem_counts(self) -> dict[str, int]:
        """How many prompts or answers have each problem."""
        counts: dict[str, int] = {}
        for problem in self.problems:
            counts[problem.what] = counts.get(problem.what, 0) + 1
        return counts

    @property
    def read_answers(self) -> answer_tokens.Answers:
        """Answers of the prompts that have rows, in their order."""
        return self.answers[np.unique(self.prompt)]

    def basis(self, cluster: str | None = None) -> str:
        """What the intervals of `summary` take as independent, in words, or why there are none.

        Raises:
            ConfigError: No such column.
        """
        from jaxlens.study.stats import proportions

        if cluster is None:
            return "intervals: 95 %, Wilson; prompts are taken as independent"
        rows = self.last_rows
        groups = self._groups(cluster)[self.prompt[rows]]
        has = self.answers.token[self.prompt[rows]] >= 0
        counts = {
            name: len(np.unique(groups[has[:, answer]]))
            for answer, name in enumerate(self.answers.names)
        }
        few = {n: count for n, count in counts.items() if count < proportions.MIN_CLUSTERS}
        method = f"intervals: 95 %, Wilson's with the design effect of clusters by {cluster}"
        if not few:
            return method
        needed = f"{proportions.MIN_CLUSTERS} are needed"
        if len(few) == len(counts) and len(set(few.values())) == 1:
            few_clusters = errors.count(next(iter(few.values())), "cluster")
            return f"no intervals: there are only {few_clusters} by {cluster}, and {needed}"
        which = ", ".join(f"{name} has {count}" for name, count in few.items())
        if len(few) == len(counts):
            return f"no intervals: there are too few clusters by {cluster} ({which}); {needed}"
        return f"{method}; none where there are too few of them ({which}); {needed}"

    def summary(self, cluster: str | None = None) -> dict[str, np.ndarray]:
        """Columns over prompts, one entry for each answer and layer.

        Each prompt that has the answer counts once, at its last position that was read. ``share``
        is the share of prompts where the answer is on top; ``low`` and ``high`` are the ends of its
        95 % interval: Wilson's, which takes prompts as independent, or with ``cluster`` one that
        takes only clusters as independent. ``median_rank`` and ``mean_p`` have no interval.

        Args:
            cluster: Column of ``metadata`` whose values say which prompts belong together, such as
                the template they were made from; intervals need ten clusters or more.

        Raises:
            ConfigError: No such column.
            MissingError: scipy, which ``cluster`` needs, is not installed.
        """
        rows = self.last_rows
        groups = None if cluster is None else self._groups(cluster)[self.prompt[rows]]
        columns: dict[str, list[Any]] = {name: [] for name in SUMMARY}
        for answer, name in enumerate(self.answers.names):
            has = self.rank[rows, :1, answer][:, 0] > 0 if len(self.layers) else rows > 0
            for layer, number in enumerate(self.layers):
                rank = self.rank[rows, layer, answer][has]
                interval = _interval(rank == 1, None if groups is None else groups[has])
                some = len(rank) > 0
                median = float(np.median(rank)) if some else np.nan
                mean = float(np.exp(self.logp[rows, layer, answer][has]).mean()) if some else np.nan
                line = (name, number, self.layer_names[layer], len(rank), *interval, median, mean)
                for column, value in zip(SUMMARY, line, strict=True):
                    columns[column].append(value)
        return {name: np.array(column) for name, column in columns.items()}

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with one record for each prompt, position and layer.

        Columns are ``prompt``, ``text``, the metadata, ``position``, ``token_id``, ``token``,
        ``layer``, ``layer_name``, the best tokens ``top_token`` and their probabilities ``top_p``
        (of several ``top_token.1``, ...), ``entropy``, ``kl_final``, and for each answer
        ``text_NAME`` (what was encoded, with its leading space), ``token_NAME``, ``rank_NAME``,
        ``p_NAME``, ``logp_NAME`` and ``first_top_NAME``, then ``logit_difference``. What is missing
        is ``<NA>`` or NaN.

        Raises:
            MissingError: pandas is not installed.
        """
        from jaxlens.view.prompt_table import dataframe

        return dataframe.frame(dataframe.columns(self))

    def answers_to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with one record for each prompt and answer: how it was taken.

        Columns are ``prompt``, ``answer`` (its name), ``text`` (what was encoded), ``token_id``,
        ``token``, ``n_tokens``, ``space_added`` and ``collides``; see `Answers`.

        Raises:
            MissingError: pandas is not installed.
        """
        from jaxlens.view.prompt_table import dataframe

        return dataframe.frame(dataframe.answer_columns(self))

    def __repr__(self) -> str:
        from jaxlens.view.prompt_table import dataframe

        return f"<PromptTable: {dataframe.described(self)}>"

    def _repr_html_(self) -> str:
        """What notebooks show: the first prompts at the last layer that was read."""
        from jaxlens.view.prompt_table import dataframe

        return dataframe.fragment(self)

    def _groups(self, cluster: str) -> Int[np.ndarray, " prompt"]:
        if not isinstance(cluster, str) or cluster not in self.metadata:
            raise errors.ConfigError(
                f"no column {errors.show(cluster)}",
                f"the metadata have {', '.join(self.metadata) or 'no columns: give some'}",
            )
        number: dict[str, int] = {}
        groups = [str(value) for value in self.metadata[cluster]]
        return np.array([number.setdefault(group, len(number)) for group in groups], np.int64)


_ROWS = "a PromptTable of n rows takes numbers below n, a slice, or a mask of n"

SUMMARY = (
    *("answer", "layer", "layer_name", "n", "share", "low", "high"),
    *("median_rank", "mean_p"),
)
"""Columns of a summary."""


def _interval(
    on_top: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"] | None
) -> tuple[float, float, float]:
    from jaxlens.study.stats import proportions

    if groups is None:
        return proportions.wilson(int(on_top.sum()), len(on_top))
    return proportions.clustered(on_top, groups)
