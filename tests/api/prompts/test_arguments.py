"""What `read_prompts` and its table are given that does not fit, and what they say of it."""

import numpy as np
import pandas
import pytest
from sweeps import refused

import jaxlens
from jaxlens import errors


@pytest.fixture(scope="module")
def model(tiny):
    return jaxlens.load_model(tiny)


@pytest.fixture(scope="module")
def table(model):
    return jaxlens.read_prompts(
        model, [[5, 6, 7], [8, 9]], {"a": [5, None]}, positions=[0, -1], metadata={"k": ["p", "q"]}
    )


HUGE = 10**5000
FRAME = pandas.DataFrame({"prompt": ["The"]})


def nested(levels):
    value = "a"
    for _ in range(levels):
        value = [value]
    return value


def refused_late(how, why):
    """What is looked at when the prompts have been read, which compiles a program."""
    return pytest.param([[5]], how, why, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("prompts", "how", "why"),
    [
        ({"a": "b"}, {}, "prompts are a dict"),
        ({"a"}, {}, "prompts are a set"),
        (FRAME, {}, "prompts are a table"),
        ([[5]], {"answers": {"a"}}, "answers are a set"),
        ([[5]], {"answers": {"a": {"b": "c"}}}, "answer 'a' is a dict"),
        ([[5]], {"answers": FRAME}, "answers are a table"),
        ([[5]], {"answers": object()}, "answers are an object"),
        ([[5]], {"answers": [HUGE]}, "is token a number of very many digits"),
        ([[5]], {"answers": [nested(3000)]}, "answer 'answer' is"),
        ([[5]], {"layers": HUGE}, "layer a number of very many digits"),
        ([[5]], {"positions": [HUGE]}, "positions are"),
        refused_late({"answers": {"a": 5, "b": 6}, "difference": 5}, "difference of 5"),
        refused_late({"answers": {"a": 5, "b": 6}, "difference": ("a", "a")}, "difference of a, a"),
        refused_late({"answers": {"a": 5, "b": 6}, "difference": []}, "difference of nothing"),
        ([[5]], {"metadata": [1]}, "metadata are a list"),
        ([[5]], {"metadata": {"a": 5}}, "metadata 'a' are an int"),
        ([[5]], {"metadata": {"a": "x"}}, "metadata 'a' are a str"),
        ([[5]], {"metadata": {"5": [1], 5: [2]}}, "two columns of metadata are called '5'"),
        ([[5]], {"progress": 5}, "progress is an int"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(model, prompts, how, why):
    with pytest.raises(errors.ConfigError, match=why) as refusal:
        jaxlens.read_prompts(model, prompts, **how)
    assert refusal.value.hint


def test_frames_are_taken_by_column(model):
    frame = pandas.DataFrame({"k": [1, 2]}, index=[7, 9])
    table = jaxlens.read_prompts(model, [[5], [6]], metadata=frame)
    assert table.metadata == {"k": [1, 2]}
    with pytest.raises(errors.ConfigError, match="prompt 0") as refusal:
        jaxlens.read_prompts(model, [b"The"])
    assert "strict=False" in refusal.value.hint


@pytest.mark.parametrize("rows", ["a", None, [[0, 1]], [True], [9], 1.5])
def test_rows_that_are_none_are_refused(table, rows):
    with pytest.raises(errors.ConfigError, match="rows"):
        table[rows]


def test_a_table_can_be_gone_through_and_its_rows_put_in_any_order(table):
    assert [row.position.tolist() for row in table] == [[0], [2], [0], [1]]
    with pytest.raises(IndexError):
        table[4]
    turned = table[::-1]
    assert turned.position[turned.last_rows].tolist() == [2, 1]
    np.testing.assert_array_equal(turned.summary()["median_rank"], table.summary()["median_rank"])
    none = table[[]]
    assert len(none.last_rows) == 0 and none.summary()["n"].tolist() == [0, 0, 0]
    assert len(none.to_pandas()) == 0 and none.read_answers.counts()["are missing"] == 0


@pytest.mark.parametrize("cluster", ["x", ["k"], 5])
def test_a_column_that_is_not_there_is_refused(table, cluster):
    for ask in (table.summary, table.basis):
        with pytest.raises(errors.ConfigError, match="no column"):
            ask(cluster)


def test_half_of_a_surrogate_pair_stays_in_data_frames(model):
    table = jaxlens.read_prompts(
        model, ["The \ud800", "A"], "\udfff", metadata={"m": ["\ud800", 1]}
    )
    frame = table.to_pandas()
    assert frame["text"][0] == "The \ud800" and frame["m"][0] == "\ud800"
    assert frame["text_answer"][0] == "\udfff"


def test_padding_is_told_from_what_is_missing(model):
    table = jaxlens.read_prompts(model, [[5]] * 4, [[1, 2, 3], [1], [], None])
    assert table.answers.padding.sum(axis=1).tolist() == [0, 2, 2, 2]
    assert table.answers.counts()["are missing"] == 2
    assert table.answers[[0, 2]].counts()["are missing"] == 1


def test_layers_that_are_no_numbers_are_refused(tmp_path, capsys):
    path = tmp_path / "p.csv"
    path.write_text("prompt\nThe\n")
    assert "no layer '999" in refused(capsys, 2, "prompts", path, "--layers", "9" * 5000)
