"""Prompts as JSON, in the terminal and as figures."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from view.hostile import prompt_of

from jaxlens import errors
from jaxlens.view.figures import files
from jaxlens.view.prompt import metrics, prompt, raster, terminal


def printed(shown, name="p_top", width=80):
    stream = io.StringIO()
    terminal.show(shown, metrics.find(name, shown.vocab_size), "final_norm", stream, width)
    return stream.getvalue()


def test_json_has_every_number_and_null_where_there_is_none():
    shown = prompt_of()
    text = json.dumps(shown.document(), allow_nan=False)
    found = json.loads(text)
    assert text.isascii()
    for decoder, reading in shown.readings.items():
        for name, values in reading.items():
            stored = np.array(found["decoders"][decoder][name], float)
            known = values > 0 if name.startswith("rank_") else ~np.isnan(values)
            known |= name == "top_id"
            np.testing.assert_array_equal(stored[known].astype(values.dtype), values[known])
            assert np.isnan(stored[~known]).all()


def test_a_part_keeps_the_numbers_and_the_next_tokens():
    shown = prompt_of()
    part = shown.part(2, -3)
    assert len(part) == len(shown) - 5
    np.testing.assert_array_equal(part.right, shown.right[2:-3])
    theirs = shown.readings["plain"]["top_logp"][:, 2:-3]
    np.testing.assert_array_equal(part.readings["plain"]["top_logp"], theirs)
    assert part.part(1, None).start == 3
    with pytest.raises(errors.ConfigError, match="no tokens"):
        shown.part(5, 5)


def test_a_file_gets_the_grid_without_escapes_and_no_line_is_too_wide():
    shown = prompt_of()
    text = printed(shown)
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    wide = {"日": 2, "本": 2}
    for line in text.splitlines()[3:]:
        assert sum(wide.get(c, 1) for c in line) <= 80
    assert all(name in text for name in shown.layers)


def test_the_numbers_of_the_grid_are_those_that_were_read():
    shown = prompt_of(tokens=tuple(b"t%d" % i for i in range(5)), follow=(0,))
    lines = printed(shown, "kl_final", 200).splitlines()
    rows = [line.split() for line in lines if re.fullmatch(r"[ \d.]+", line) and line.strip()]
    found = np.array(rows, float)[::-1]
    np.testing.assert_allclose(found, shown.readings["final_norm"]["kl_final"], atol=0.0051)


def test_followed_tokens_are_listed_by_layer_after_the_last_token():
    shown = prompt_of(follow=(8, 3))
    text = printed(shown).split("rank and probability of the followed tokens")[1]
    rows = [line.split() for line in text.splitlines() if line[:2] in ("in", "h.")]
    assert [row[0] for row in rows] == list(shown.layers)[::-1]
    ranks = np.array([[row[1], row[3]] for row in rows], float)[::-1]
    np.testing.assert_array_equal(ranks, shown.readings["final_norm"]["rank_follow"][:, -1])


def test_narrow_terminals_get_more_blocks():
    shown = prompt_of()
    assert printed(shown, width=30).count("\ntoken") > printed(shown, width=160).count("\ntoken")


@pytest.mark.parametrize("suffix", [pytest.param("png", marks=pytest.mark.long), "svg"])
def test_figures_of_hostile_tokens_are_drawn_and_the_same_each_time(tmp_path, suffix):
    shown = prompt_of()
    for name in ("one", "two"):
        raster.draw(shown, tmp_path / f"{name}.{suffix}", "plain", ("p_top", "rank_next"))
    one, two = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "two"))
    assert one == two and len(one) > 5_000
    assert b"<script" not in one and b"onerror" not in one


def test_the_numbers_of_a_figure_are_those_that_were_read():
    shown = prompt_of(tokens=tuple(b"t%d" % i for i in range(5)), follow=(0,))
    axes = raster.figure(shown, "final_norm", ("p_top", "kl_final")).axes[1]
    reading = shown.readings["final_norm"]
    values = reading["kl_final"]
    expected = [f"{v:.0f}" if v >= 9.95 else f"{v:.1f}" for v in values.ravel()]
    assert [text.get_text() for text in axes.texts] == expected
    strengths = metrics.find("kl_final", 97).strength(values.astype(float))
    np.testing.assert_allclose(axes.images[0].get_array(), strengths)


def without(shown, *names):
    """A prompt of which some quantities were not read."""
    kept = {
        decoder: {name: values for name, values in reading.items() if name not in names}
        for decoder, reading in shown.readings.items()
    }
    return dataclasses.replace(shown, readings=kept)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_a_figure_has_the_views_that_were_read_and_the_ranks_of_followed_tokens():
    shown = prompt_of(follow=(8,))
    known = metrics.table(shown.vocab_size)
    expected = [known[name].title for name in raster.VIEWS]
    assert titles(raster.figure(shown, "plain")) == [*expected, "rank of ·plasma"]
    part = without(shown, "top_logp", "kl_final", "rank_follow")
    first, *others = titles(raster.figure(part, "plain"))
    assert first == f"best token, coloured by: {expected[1]}"
    assert others == [expected[3], expected[4]]
    single = without(shown, *prompt.FOLLOWED, *(q for q in prompt.QUANTITIES if q != "entropy"))
    assert titles(raster.figure(single, "plain")) == ["entropy"]


def test_followed_tokens_are_drawn_as_numbers():
    figure = raster.figure(prompt_of(follow=(8, 0)), "plain", ("p_follow.2",))
    expected = np.exp(
        prompt_of(follow=(8, 0)).readings["plain"]["logp_follow"][..., 1].astype(float)
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [metrics.format_number(value, metrics.SHARE) for value in expected.ravel()]


def test_no_star_stands_where_the_model_s_own_best_tokens_are_unknown():
    shown = prompt_of()
    shown.readings["final_norm"]["top_id"][-1, :, 0] = shown.following
    assert shown.judged and shown.right.all()
    for part in (dataclasses.replace(shown, last=None), without(shown, "top_id")):
        assert not part.judged and not part.right.any()
        assert "★" not in raster.figure(part, "plain").get_supxlabel()
    elsewhere = dataclasses.replace(shown, last=0)
    assert not elsewhere.right.all()


@pytest.mark.parametrize(
    ("name", "why", "hint"),
    [
        ("kl_final", "kl_final needs kl_final, which was not read", "quantities=['kl_final']"),
        ("p_top", "p_top needs top_logp, which was not read", "quantities=['top_logp']"),
        ("loss", "no metric loss", "kl_final"),
        ("rank_follow.3", "2 tokens are followed", "follow=[...]"),
        ("p_follow", "2 tokens are followed", "follow=[...]"),
    ],
)
def test_a_view_of_what_was_not_read_says_how_to_read_it(name, why, hint):
    part = without(prompt_of(), "kl_final", "top_logp")
    with pytest.raises(errors.ConfigError, match=why) as refusal:
        part.view(name)
    assert hint in refusal.value.hint


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(errors.ConfigError, match=r"picture x\.gif"):
        files.require(tmp_path / "x.gif")
    long = prompt_of(tokens=tuple(b"t%d" % i for i in range(400)))
    with pytest.raises(errors.ConfigError, match="400 tokens in 91 panels"):
        raster.figure(long, "plain")
    nothing = without(prompt_of(), *prompt.QUANTITIES, *prompt.FOLLOWED)
    with pytest.raises(errors.ConfigError, match="nothing that was read"):
        raster.figure(nothing, "plain")
    with pytest.raises(errors.StorageError):
        raster.draw(prompt_of(), tmp_path / "none" / "x.png", "plain", ("p_top",))
