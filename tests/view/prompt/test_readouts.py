"""Readouts as figures: one line of the batch, cut and named as it was read."""

import dataclasses
import sys

import numpy as np
import pytest
from view.labelled import COUNT, readout_of

from jaxlens import errors
from jaxlens.view.prompt import metrics, readouts


def ticks(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


@pytest.mark.parametrize("line", [0, 1, 2, -1])
def test_a_figure_holds_one_line_without_its_padding(line):
    lengths = (COUNT, 3, 7)
    readout = readout_of(lengths, n_layers=2)
    axes = readout.plot("rank_follow.2", line).axes[0]
    values = readout.rank_follow[:, line, : lengths[line], 1]
    expected = [metrics.format_number(float(value), metrics.RANK) for value in values.ravel()]
    assert [text.get_text() for text in axes.texts] == expected
    assert len(ticks(axes)) == lengths[line]


def test_a_part_of_a_line_keeps_its_numbers():
    readout = readout_of(n_layers=2)
    axes = readout.plot("p_follow.1", start=2, stop=-4).axes[0]
    shares = np.exp(readout.logp_follow[:, 0, 2:-4, 0].astype(float))
    expected = [metrics.format_number(value, metrics.SHARE) for value in shares.ravel()]
    assert [text.get_text() for text in axes.texts] == expected


def panels(figure):
    """Axes of cells, without the bars of colours."""
    return [axes for axes in figure.axes if axes.images and axes.child_axes]


def test_both_edges_say_what_they_are():
    axes = readout_of((COUNT,), n_layers=2).plot("kl_final").axes[0]
    (above,) = axes.child_axes
    assert axes.get_xlabel() == "token that was read"
    assert above.get_xlabel() == "true next token"
    below = ticks(axes)
    over = [text.get_text().removeprefix("★") for text in above.get_xticklabels()]
    assert over == [*below[1:], ""]  # each token stands over the one before it


def test_a_long_prompt_goes_on_below_and_no_cell_is_lost():
    readout = readout_of((COUNT,), n_layers=2, follow=(3,))
    whole = readout.plot("rank_follow", wrap=COUNT)
    rows = panels(readout.plot("rank_follow", wrap=5))
    assert len(rows) == -(-COUNT // 5) and len(panels(whole)) == 1
    assert [word for axes in rows for word in ticks(axes)] == ticks(whole.axes[0])
    values = np.concatenate([np.ma.getdata(axes.images[0].get_array()) for axes in rows], 1)
    np.testing.assert_array_equal(values, np.ma.getdata(whole.axes[0].images[0].get_array()))
    assert all(axes.get_xlim() == rows[0].get_xlim() for axes in rows)
    size = len(ticks(rows[0]))
    assert rows[1].get_title(loc="left").endswith(f"tokens {size} to {2 * size - 1}")
    part = panels(readout.plot("rank_follow", start=4, wrap=5))
    assert part[0].get_title(loc="left").endswith(f"tokens 4 to {3 + len(ticks(part[0]))}")


@pytest.mark.parametrize(("lines", "drawn"), [(None, [0, 2]), ([2, 0], [2, 0]), ([-1], [2])])
def test_several_prompts_stand_below_each_other_under_their_names(lines, drawn):
    lengths = (4, 0, 6)
    readout = readout_of(lengths, n_layers=2)
    figure = readout.plot("rank_follow.2", lines)
    rows = panels(figure)
    assert [len(ticks(axes)) for axes in rows] == [lengths[line] for line in drawn]
    for axes, line in zip(rows, drawn, strict=True):
        values = readout.rank_follow[:, line, : lengths[line], 1]
        expected = [metrics.format_number(float(value), metrics.RANK) for value in values.ravel()]
        assert [text.get_text() for text in axes.texts] == expected
        named = axes.get_title(loc="left").startswith(f"line {line}: ")
        assert named == (len(drawn) > 1)
    assert len(panels(readout.plot(line=None))) == 2


def test_a_prompt_is_drawn_into_axes_of_the_callers():
    figures = pytest.importorskip("matplotlib.figure")
    mine = figures.Figure(figsize=(9, 3))
    left, right = mine.subplots(1, 2)
    readout = readout_of((5, 3), n_layers=2)
    assert readout.plot("rank_follow.1", ax=left, title="mine") is mine
    assert readout.plot(ax=right, line=1) is mine
    assert left.get_title(loc="left") == "mine" and len(ticks(left)) == 5
    assert right.get_title(loc="left") and len(ticks(right)) == 3
    with pytest.raises(errors.ConfigError, match="several prompts"):
        readout.plot(ax=left, line=None)
    with pytest.raises(errors.ConfigError, match="with an ax"):
        readout.plot(ax=left, figsize=(3, 3))


def test_size_and_title_are_those_that_were_asked_for():
    figure = readout_of((5,), n_layers=2).plot("entropy", figsize=(7, 3), title="$x$ & <b>")
    assert tuple(figure.get_size_inches()) == (7, 3) and figure.get_suptitle() == "$x$ & <b>"
    with pytest.raises(errors.ConfigError, match="wrap is 0"):
        readout_of().plot("entropy", wrap=0)
    with pytest.raises(errors.ConfigError, match="no lines"):
        readout_of().plot("entropy", line=[])


def test_tokens_without_a_tokenizer_are_numbers():
    axes = readout_of(spell=False, follow=()).plot("kl_final").axes[0]
    assert ticks(axes) == [f"<{number}>" for number in range(COUNT)]


def test_a_token_that_is_followed_somewhere_and_another_elsewhere_has_no_name():
    readout = readout_of(follow=(3, 8))
    changing = np.array(readout.labels.references.follow)
    changing[0, 2, 0] = 5
    references = dataclasses.replace(readout.labels.references, follow=changing)
    labels = dataclasses.replace(readout.labels, references=references)
    shown = readouts.prompt_of([readout.replace(labels=labels)])
    assert shown.follow == (-1, 8)
    assert shown.views()["rank_follow.1"].title == "rank of followed token 1"
    assert shown.views()["rank_follow.2"].title == "rank of ·plasma"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"line": 3}, "line 3 of a batch of 3"),
        ({"line": -4}, "line -4 of a batch of 3"),
        ({"line": 1}, "line 1 is all padding"),
        ({"metric": "kl_to_input"}, "no metric kl_to_input"),
        ({"start": 5, "stop": 5}, "no tokens from 5"),
        ({"path": "x.gif"}, r"picture x\.gif"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(given, why):
    with pytest.raises(errors.ConfigError, match=why):
        readout_of((4, 0, 5)).plot(**given)


@pytest.mark.parametrize(
    "suffix", ["svg", *(pytest.param(suffix, marks=pytest.mark.long) for suffix in ("png", "pdf"))]
)
def test_a_figure_is_written_where_it_is_asked_for_and_the_same_each_time(tmp_path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
    for path in paths:
        readout_of().plot("entropy", path=str(path))
    one, two = (path.read_bytes() for path in paths)
    assert one == two and len(one) > 5_000


def test_notebooks_show_the_figure_and_pyplot_never_knows_it():
    formatters = pytest.importorskip("IPython.core.formatters")
    figure = readout_of().plot("entropy")
    data, _ = formatters.DisplayFormatter().format(figure)
    assert data["image/png"].startswith(b"\x89PNG")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(errors.MissingError, match="need the package matplotlib") as refusal:
        readout_of().plot()
    assert "pip install '.[view]'" in refusal.value.hint
