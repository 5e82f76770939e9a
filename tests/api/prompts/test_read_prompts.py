"""Prompts and their answers: the numbers of the lens on each prompt alone, and of the oracle."""

import numpy as np
import oracle
import pandas
import pytest
from sweeps import PACKAGED

import jaxlens
from jaxlens import errors, types
from jaxlens.api.prompts import answer_columns, batches, spacing
from jaxlens.models import gpt2
from jaxlens.models.checkpoints import checkpoint

# Float32 through eight blocks and a vocabulary of 4,096, logits of order 10.
TOLERANCE = {"rtol": 1e-4, "atol": 2e-4}
LENGTH = 32
TEXTS = ["The people of the", "Other times, when people say plasma, they", "It is the"]


@pytest.fixture(scope="module")
def model():
    return jaxlens.load_model("packaged")


@pytest.fixture(scope="module")
def prompts():
    """200 prompts of 1 to 32 tokens."""
    random = np.random.default_rng(0)
    return [random.integers(0, 4096, n) for n in random.integers(1, LENGTH + 1, 200)]


@pytest.fixture(scope="module")
def answers():
    """Three candidates for each, a fifth of them absent."""
    random = np.random.default_rng(1)
    ids = random.integers(0, 4096, (200, 3))
    absent = random.random(ids.shape) < 0.2
    return [
        [None if gone else int(one) for one, gone in zip(*pair, strict=True)]
        for pair in zip(ids, absent, strict=True)
    ]


@pytest.fixture(scope="module")
def table(model, prompts, answers):
    return jaxlens.read_prompts(model, prompts, answers, top_k=3)


@pytest.fixture(scope="module")
def texts(model):
    return jaxlens.read_prompts(
        model, TEXTS, {"right": [" city", " are", None], "wrong": " the"}, top_k=3
    )


def alone(model, ids, follow):
    """The lens on one prompt by itself, padded so that all of them take one program."""
    padded = np.pad(ids, (0, LENGTH - len(ids)))[None]
    mask = (np.arange(LENGTH) < len(ids))[None]
    ids = [[-1 if one is None else one for one in follow]]
    readout = jaxlens.read_lens(model, padded, mask, top_k=3, follow=ids)
    return {name: np.asarray(value)[:, 0] for name, value in readout.present().items()}


def near_ties(rank, wanted):
    """Ranks count logits of which some lie closer than float32 rounds."""
    return np.abs(rank - wanted) <= 1 + 0.02 * wanted


# All are read together, and so many of them alone.
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_200_ragged_prompts_are_read_as_each_is_alone(model, prompts, answers, table, every):
    assert table.prompt.tolist() == list(range(200)) and len(table) == 200
    different = 0
    for number, ids in list(enumerate(prompts))[::every]:
        found = alone(model, ids, answers[number])
        at = len(ids) - 1
        assert table.position[number] == at and table.token[number] == ids[at]
        for name, ours in (("top_logp", "top_logp"), ("logp_follow", "logp")):
            theirs = found[name][:, at]
            np.testing.assert_allclose(getattr(table, ours)[number], theirs, **TOLERANCE)
        for name in ("entropy", "kl_final"):
            np.testing.assert_allclose(
                getattr(table, name)[number], found[name][:, at], rtol=1e-4, atol=5e-4
            )
        theirs = found["rank_follow"][:, at]
        assert np.array_equal(table.rank[number] == 0, theirs == 0)
        assert near_ties(table.rank[number], theirs).all()
        different += (table.rank[number] != theirs).sum()
        different += (table.top_id[number] != found["top_id"][:, at]).sum()
    assert different < 0.005 * (table.rank.size + table.top_id.size) / every


@pytest.mark.long
def test_all_positions_are_those_of_the_lens(model, prompts, answers):
    some = [0, 7, 3]
    ids = [prompts[number] for number in some]
    found = jaxlens.read_prompts(model, ids, [answers[n] for n in some], positions="all", top_k=3)
    assert found.prompt.tolist() == np.repeat([0, 1, 2], list(map(len, ids))).tolist()
    for place, number in enumerate(some):
        mine = found[found.prompt == place]
        assert mine.position.tolist() == list(range(len(prompts[number])))
        np.testing.assert_array_equal(mine.token, prompts[number])
        theirs = alone(model, prompts[number], answers[number])
        logp = theirs["logp_follow"][:, : len(mine)].swapaxes(0, 1)
        np.testing.assert_allclose(mine.logp, logp, **TOLERANCE)


def test_ranks_and_probabilities_are_those_of_float64(model, prompts, answers, table):
    params = checkpoint.load(PACKAGED).params
    unembed = gpt2.unembed(params, model.config)
    for number in range(0, 200, 20):
        ids = prompts[number][None]
        follow = np.array([[[-1 if one is None else one for one in answers[number]]]])
        follow = np.broadcast_to(follow, (1, ids.shape[1], 3))
        absent, mask = np.full(ids.shape, -1), np.ones(ids.shape, bool)
        references = types.References(ids, absent, absent, absent, mask, follow)
        streams = oracle.residuals(params, model.config, ids)
        expected = oracle.lens(streams, unembed, references, top_k=3, gap=2e-4)
        last = {name: value[:, 0, -1] for name, value in expected.items()}
        np.testing.assert_allclose(table.logp[number], last["logp_follow"], **TOLERANCE)
        np.testing.assert_allclose(table.p[number], np.exp(last["logp_follow"]), atol=2e-4)
        np.testing.assert_allclose(table.top_p[number], np.exp(last["top_logp"]), atol=2e-4)
        low, high = last["rank_follow_low"], last["rank_follow_high"]
        present = np.array([one is not None for one in answers[number]])
        inside = (low <= table.rank[number]) & (table.rank[number] <= high)
        assert inside[:, present].all() and not table.rank[number][:, ~present].any()


def test_an_answer_is_on_top_from_the_first_layer_from_which_it_stays_there(model, prompts, table):
    best = table.top_id[:16, -1, 0].tolist()
    named = {"final": best, "none": [None] * 16, "other": [int(one == 5) + 5 for one in best]}
    found = jaxlens.read_prompts(model, prompts[:16], named, top_k=3)
    assert (found.rank[:, -1, 0] == 1).all()
    for row in range(16):
        ranks = found.rank[row, :, 0].tolist()
        expected = next(k for k in range(9) if all(rank == 1 for rank in ranks[k:]))
        assert found.first_top[row].tolist() == [expected, -2, -1]
    fewer = jaxlens.read_prompts(model, prompts[:16], named, top_k=3, layers=["h.7", "input", 3])
    assert fewer.layers == (8, 0, 3) and fewer.layer_names == ("h.7", "input", "h.2")
    np.testing.assert_array_equal(fewer.rank, found.rank[:, [8, 0, 3]])


def test_the_logit_difference_is_that_of_logits(model, texts):
    assert texts.difference == ("right", "wrong")
    ids = [model.tokenizer.encode(TEXTS[0]).ids]
    right, wrong = texts.answers.token[0]
    streams = oracle.residuals(checkpoint.load(PACKAGED).params, model.config, ids)
    z = oracle.logits(streams, gpt2.unembed(checkpoint.load(PACKAGED).params, model.config))
    gap = z[:, 0, -1, right] - z[:, 0, -1, wrong]
    np.testing.assert_allclose(texts.logit_difference[0], gap, rtol=1e-4, atol=1e-3)
    assert np.isnan(texts.logit_difference[2]).all()
    other = jaxlens.read_prompts(
        model, TEXTS, {"a": " city", "b": " the", "c": " a"}, difference=("c", "a"), top_k=3
    )
    np.testing.assert_array_equal(other.logit_difference, other.logp[..., 2] - other.logp[..., 0])


def test_the_table_has_a_record_for_each_prompt_position_and_layer(model, texts):
    frame = texts.to_pandas()
    assert len(frame) == 3 * 9 and not frame.duplicated(["prompt", "position", "layer"]).any()
    at = frame.query("prompt == 1 and layer_name == 'h.7'").iloc[0]
    assert at["text"] == TEXTS[1] and at["token"] == " they" and at["layer"] == 8
    assert at["token_right"] == " are" and at["rank_right"] == texts.rank[1, 8, 0]
    assert at["p_right"] == pytest.approx(np.exp(texts.logp[1, 8, 0]))
    assert at["top_token.1"] == model.tokenizer.decode([int(texts.top_id[1, 8, 0])])
    absent = frame.query("prompt == 2")
    assert absent["rank_right"].isna().all() and absent["p_right"].isna().all()
    assert absent["token_right"].isna().all() and absent["rank_wrong"].notna().all()
    assert repr(texts) == (
        "<PromptTable: 3 prompts, 3 rows × 9 layers, decoder final_norm; answers: right, wrong>"
    )
    page = texts._repr_html_()
    assert "plasma, they" in page and "·city" in page and "<script" not in page


def test_how_each_answer_was_taken_is_reported(model):
    prompts = ["The city of", "He said (", "a b ", "I am", "One"]
    answers = ["Paris", "the", "the", [" it", "it"], ["uncommonness", "uncommonly"]]
    table = jaxlens.read_prompts(model, prompts, answers, top_k=3)
    frame = table.answers_to_pandas().set_index(["prompt", "answer"])
    assert frame.loc[(0, "answer.1"), "text"] == " Paris"
    assert frame.loc[(0, "answer.1"), "space_added"]
    assert frame.loc[(1, "answer.1"), "text"] == "the"
    assert frame.loc[(2, "answer.1"), "text"] == "the" and table.trailing_space == (2,)
    assert not frame.loc[(3, "answer.1"), "space_added"]
    assert frame.loc[(3, "answer.2"), "space_added"] and frame.loc[(3, "answer.2"), "collides"]
    assert frame.loc[(4, "answer.1"), "n_tokens"] > 1 and frame.loc[(4, "answer.1"), "collides"]
    assert frame.loc[(0, "answer.2"), "n_tokens"] == 0
    counts = table.answers.counts()
    assert counts["begin as another answer of the prompt does"] == 4
    assert counts["are missing"] == 0
    never = jaxlens.read_prompts(model, prompts[:1], answers[:1], leading_space="never", top_k=3)
    assert never.answers.text[0, 0] == "Paris" and not never.answers.space_added.any()


@pytest.mark.parametrize(
    ("text", "before", "auto", "always"),
    [
        ("Paris", "in", True, True),
        (" Paris", "in", False, False),
        ("Paris", "in ", False, True),
        ("Paris", "in\n", False, True),
        (",", "in", False, True),
        ("yes", 'He said "', False, True),
        ("yes", 'He said "no"', True, True),
        ("5", "2+3=", False, True),
        ("5", "", False, True),
        ("", "in", False, False),
    ],
)
def test_a_leading_space_stands_where_a_word_begins(text, before, auto, always):
    assert spacing.begins_with_space(text, before, "auto") == auto
    assert spacing.begins_with_space(text, before, "always") == always
    assert not spacing.begins_with_space(text, before, "never")


def test_answers_are_given_in_many_ways():
    columns = answer_columns.columns
    assert columns(None, 2) == {}
    assert columns(" a", 2) == {"answer": [" a", " a"]}
    assert columns([" a", 7], 2) == {"answer": [" a", 7]}
    padding = answer_columns.PADDING
    assert columns([[1, 2], 3], 2) == {"answer.1": [1, 3], "answer.2": [2, padding]}
    assert columns([[1, 2], []], 2) == {"answer.1": [1, None], "answer.2": [2, padding]}
    assert columns({"x": "b", "y": ["c", None]}, 2) == {"x": ["b", "b"], "y": ["c", None]}
    assert columns([{"x": "b"}, {"y": "c"}], 2) == {"x": ["b", None], "y": [None, "c"]}
    frame = pandas.DataFrame({"a": ["x", None]})
    assert columns(frame["a"], 2) == {"answer": ["x", None]}
    assert columns(np.array([3, 4]), 2) == {"answer": [3, 4]}
    for bad in (["a"], ["a", "b", "c"], [1.5, "a"], [True, "a"], [{"x": "a"}, "b"], {"x": ["a"]}):
        with pytest.raises(errors.ConfigError):
            columns(bad, 2)


def test_what_cannot_be_read_is_refused_or_counted_and_the_rest_is_read(model):
    long = "word " * 300
    prompts = ["The people", "", None, long, "It is", [5, 4096], [[1]], 3.5, [-1], np.zeros(0, int)]
    answers = ["a", "b", "c", "d", "", "e", "f", "g", "h", "i"]
    with pytest.raises(errors.ConfigError, match="prompt 1: prompt is empty, and 8 more"):
        jaxlens.read_prompts(model, prompts, answers, top_k=3)
    table = jaxlens.read_prompts(model, prompts, answers, top_k=3, strict=False)
    assert table.prompt.tolist() == [0, 4] and table.n_prompts == 10
    assert table.problem_counts() == {
        "prompt is empty": 2,
        "prompt is missing": 1,
        "prompt is too long for the model": 1,
        "prompt has ids that the model has not": 2,
        "prompt is not text or ids": 2,
        "answer encodes to nothing: answer": 1,
    }
    assert {p.prompt for p in table.problems} == {1, 2, 3, 4, 5, 6, 7, 8, 9}
    assert table.rank[1].max() == 0
    whole = jaxlens.read_prompts(model, ["The people"], ["a"], top_k=3)
    np.testing.assert_allclose(table.logp[0], whole.logp[0], **TOLERANCE)


def test_positions_are_chosen_for_all_prompts_or_for_each(model):
    ids = [[5, 6, 7], [8, 9, 10, 11, 12]]
    read = lambda positions, **how: jaxlens.read_prompts(  # noqa: E731
        model, ids, top_k=3, positions=positions, **how
    )
    assert read([0, -1]).position.tolist() == [0, 2, 0, 4]
    assert read(-2).position.tolist() == [1, 3]
    assert read([[1], [4, 0]]).position.tolist() == [1, 0, 4]
    assert read([1, 1]).token.tolist() == [6, 9]
    with pytest.raises(errors.ConfigError, match="no such position"):
        read([4])
    found = read([4], strict=False)
    assert found.prompt.tolist() == [1] and found.problems[0].prompt == 0
    for bad in ("first", [[1]], [1.5], [], None, [["a"], [1]]):
        with pytest.raises(errors.ConfigError):
            read(bad)


def test_a_beginning_of_text_is_put_before_every_prompt(model):
    first = model.config.bos_token_id
    table = jaxlens.read_prompts(model, [[5, 6], [7]], bos=True, positions="all", top_k=3)
    assert table.token.tolist() == [first, 5, 6, first, 7]
    same = jaxlens.read_prompts(model, [[first, 5, 6], [first, 7]], positions="all", top_k=3)
    np.testing.assert_array_equal(table.top_logp, same.top_logp)


@pytest.mark.parametrize(
    ("prompts", "how", "why"),
    [
        ("one text", {}, "one text"),
        ([], {}, "no prompts"),
        ([1, 2], {}, "one list of ids"),
        (5, {}, "prompts are an int"),
        ([[1]], {"answers": ["a", "b"]}, "2 answers"),
        ([[1]], {"answers": [4096]}, "token 4096"),
        ([[1]], {"difference": ("a", "b")}, "difference of a, b"),
        ([[1]], {"leading_space": "maybe"}, "leading_space"),
        ([[1]], {"layers": "h.8"}, "no layer 'h.8'"),
        ([[1]], {"metadata": {"a": [1, 2]}}, "metadata 'a'"),
        ([[1]], {"decoder": "tuned"}, "decoder is 'tuned'"),
        ([[1]], {"top_k": 0}, "top_k"),
    ],
)
def test_what_does_not_fit_is_refused(model, prompts, how, why):
    with pytest.raises(errors.ConfigError, match=why):
        jaxlens.read_prompts(model, prompts, **how)


def test_texts_need_a_tokenizer_and_ids_do_not(model):
    bare = jaxlens.Model(model.config, model.params)
    with pytest.raises(errors.ConfigError, match="no tokenizer"):
        jaxlens.read_prompts(bare, ["a"])
    table = jaxlens.read_prompts(bare, [[5, 6]], [7], top_k=3)
    frame = table.to_pandas()
    assert frame["token"].isna().all() and frame["rank_answer"].notna().all()
    assert "&lt;7&gt;" in table._repr_html_()


def test_the_summary_counts_each_prompt_once_at_its_last_position(model, prompts, table):
    summary = table.summary()
    assert summary["n"].tolist() == np.repeat((table.rank[:, 0] > 0).sum(axis=0), 9).tolist()
    for place, name in enumerate(table.answers.names):
        mine = summary["answer"] == name
        has = table.rank[:, 0, place] > 0
        share = (table.rank[has][:, :, place] == 1).mean(axis=0)
        np.testing.assert_allclose(summary["share"][mine], share)
        np.testing.assert_allclose(
            summary["mean_p"][mine], table.p[has][:, :, place].mean(axis=0), rtol=1e-5
        )
    whole = jaxlens.read_prompts(model, prompts[:4], 5, positions="all", top_k=3)
    last = whole[whole.last_rows]
    np.testing.assert_array_equal(whole.summary()["share"], last.summary()["share"])


@pytest.mark.long
def test_clusters_are_a_column_of_the_metadata(model, prompts):
    family = [number % 12 for number in range(48)]
    table = jaxlens.read_prompts(
        model, [prompts[n] for n in family], 5, metadata={"family": family}, top_k=3
    )
    alone, together = table.summary(), table.summary("family")
    np.testing.assert_array_equal(alone["share"], together["share"])
    assert (together["high"] - together["low"] > alone["high"] - alone["low"]).all()
    assert table.to_pandas()["family"].tolist() == np.repeat(family, 9).tolist()
    with pytest.raises(errors.ConfigError, match="no column 'kind'"):
        table.summary("kind")


def test_lengths_are_few_and_no_prompt_is_lost():
    lengths = [batches.padded_length(n, 1024) for n in range(1, 1025)]
    assert sorted(set(lengths)) == [
        *(8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
    ]
    assert all(n <= length for n, length in enumerate(lengths, 1))
    assert batches.padded_length(33, 40) == 40
    random = np.random.default_rng(2)
    ids = [random.integers(1, 99, n) for n in random.integers(1, 70, 300)]
    seen = []
    shapes = set()
    for batch in batches.batches(ids, 256, 64 + 6):
        shapes.add(batch.tokens.shape)
        for line, prompt in enumerate(batch.prompts.tolist()):
            np.testing.assert_array_equal(batch.tokens[line][batch.mask[line]], ids[prompt])
        assert not batch.tokens[~batch.mask].any()
        assert batch.tokens.size <= 256
        seen += batch.prompts.tolist()
    assert sorted(seen) == list(range(300))
    assert len(shapes) == len({shape[1] for shape in shapes})


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"a": [["late", "early"]], "a.1": ["night"]}, "two answers are called 'a.1'"),
        ({"id": ["late"]}, "token_id"),
        ([["x"] * 201], "201 answers"),
    ],
)
def test_answers_whose_columns_would_hide_others_are_refused(answers, said):
    with pytest.raises(errors.ConfigError, match=said):
        answer_columns.columns(answers, 1)
