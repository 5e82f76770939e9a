"""`jaxlens show` through the real command line, with the packaged model."""

import json

import numpy as np
import pytest
from sweeps import refused, run_cli

import jaxlens
from jaxlens import api
from jaxlens.cli import read_texts
from jaxlens.view.prompt import prompt

PLASMA = "Other times, when people say plasma"
# What is read alike is compiled once.
READ = ("--follow", " the")


@pytest.fixture(scope="module")
def model():
    return jaxlens.load_model("packaged")


def test_json_holds_what_the_lens_reads(model, capsys):
    assert run_cli("show", PLASMA, "--json", *READ) == 0
    (found,) = json.loads(capsys.readouterr().out)
    ids = model.tokenizer.encode(PLASMA).ids
    assert found["tokens"] == ids
    assert "".join(found["spelled"][str(i)] for i in ids) == PLASMA
    followed = model.tokenizer.encode(" the").ids
    tokens, mask = read_texts._padded(np.array(ids), model.config.n_positions)
    for decoder in ("final_norm", "plain"):
        how = {"decoder": decoder, "top_k": 5, "quantities": prompt.QUANTITIES, "follow": followed}
        readout = jaxlens.read_lens(model, tokens, mask, **how)
        ours = found["decoders"][decoder]
        for name in ("rank_input", "rank_follow", "top_id", "kl_final", "entropy", "top_logp"):
            theirs = np.asarray(getattr(readout, name))[:, 0, : len(ids)]
            np.testing.assert_array_equal(np.array(ours[name], theirs.dtype), theirs, name)


def test_prompts_of_other_lengths_need_no_other_programs(model, monkeypatch):
    shapes = []
    read = api.read_residuals

    def seen(streams, *rest, **more):
        shapes.append(np.shape(streams)[2])
        return read(streams, *rest, **more)

    monkeypatch.setattr(api, "read_residuals", seen)
    for text in (PLASMA, "Other times"):
        found = read_texts.read(model, "packaged", text, decoders=("plain",))
        assert len(found.ids) == len(model.tokenizer.encode(text).ids)
        assert all(values.shape[1] == len(found.ids) for values in found.readings["plain"].values())
    assert shapes == [read_texts.STRIDE, read_texts.STRIDE]
    for count, length in {1: 32, 32: 32, 33: 40, 40: 40}.items():  # a model of 40 positions
        tokens, mask = read_texts._padded(np.arange(count) + 7, 40)
        assert tokens.shape == mask.shape == (1, length)
        assert tokens[mask].tolist() == list(range(7, 7 + count)) and not tokens[~mask].any()


def test_without_files_the_grid_is_printed_without_colour(capsys):
    other = "Other times, when people say blood, they"
    assert run_cli("show", PLASMA, other, *READ, "--metric", "rank_input", "--tokens", ":2") == 0
    out = capsys.readouterr().out
    assert out.count("rank of the input token") == 2
    assert "\x1b" not in out and "h.7" in out


def test_a_followed_token_is_a_metric_of_grids_and_figures(tmp_path, capsys):
    file = tmp_path / "p.svg"
    assert run_cli("show", PLASMA, *READ, "--metric", "rank_follow") == 0
    assert "rank of ·the" in capsys.readouterr().out
    assert run_cli("show", PLASMA, *READ, "--metric", "p_follow", "--svg", file) == 0
    assert file.stat().st_size > 5_000


@pytest.mark.long  # the comparison of two models writes them too
def test_files_are_written_and_named(tmp_path, capsys):
    files = [tmp_path / name for name in ("p.html", "p.png", "p.svg")]
    asked = ("--html", files[0], "--png", files[1], "--svg", files[2])
    assert run_cli("show", PLASMA, *READ, *asked) == 0
    out = capsys.readouterr().out
    assert all(f"wrote {path}" in out for path in files)
    assert files[0].read_text().startswith("<!doctype html>")
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_two_prompts_are_compared_where_their_tokens_are_equal(capsys):
    texts = ("Other times, when people say plasma", "Other times, when people say blood, they")
    assert run_cli("show", *texts, "--compare", "--json", *READ) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[side]["text"] for side in ("first", "second")] == list(texts)
    equal = [token["equal"] for token in found["tokens"]]
    assert equal == [True] * 7 + [False] * 3
    assert found["aligned"][0] == "7 tokens aligned by position; at 3 positions the tokens differ"
    kl = np.array(found["differences"]["kl_final"]["values"], float)
    assert not kl[:, :7].any(), "what comes later changes nothing before it"


def test_two_decoders_agree_at_the_last_layer_alone(capsys):
    assert run_cli("show", PLASMA, "--against-decoder", "plain", "--json", *READ) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["first"]["name"], found["second"]["name"]) == ("final_norm", "plain")
    for name, one in found["differences"].items():
        values = np.array(one["values"], float)
        if "input" not in name:  # whose own distribution is another one
            assert np.nanmax(np.abs(values[-1])) < 1e-3, name
    assert np.nanmax(np.abs(np.array(found["differences"]["entropy"]["values"], float))) > 0.1


def test_two_models_of_other_depth_are_compared_by_relative_depth_if_asked(tiny, tmp_path, capsys):
    asked = ("show", PLASMA, "--against", tiny, *READ)
    assert "8 and 2 blocks" in refused(capsys, 2, *asked)
    files = [tmp_path / name for name in ("c.html", "c.png", "c.svg")]
    written = ("--html", files[0], "--png", files[1], "--svg", files[2], "--metric", "kl_final")
    assert run_cli(*asked, "--relative-depth", *written) == 0
    out = capsys.readouterr().out
    assert all(f"wrote {path}" in out for path in files)
    assert "8 and 2 blocks, aligned by relative depth" in files[0].read_text()
    assert run_cli(*asked, "--relative-depth") == 0
    out = capsys.readouterr().out
    assert "A: packaged" in out and "h.3 | h.0" in out and "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("a", "--compare"), "are the same"),
        (("a", "--against", "packaged"), "are the same"),
        (("a", "b", "c", "--compare"), "a comparison of 3 texts"),
        (("a", "b", "--against-decoder", "plain"), "more than one way"),
        (("a", "--relative-depth"), "without a comparison"),
        (("a ?", "b ?", "--compare", "--metric", "loss", *READ), "no metric loss"),
        (("a ?", "b ?", "--compare", "--tokens", "7:", *READ), "no tokens from 7"),
        (("a", "b", "--compare", *READ), "no token stands at the same place"),
    ],
)
def test_what_cannot_be_compared_is_refused(words, why, capsys):
    assert why in refused(capsys, 2, "show", *words)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "no text"),
        (("",), "no tokens"),
        (("a " * 400,), "positions"),
        (("a", "--follow", "two words"), "3 tokens"),
        (("a", "--tokens", "x"), "FIRST:END"),
        (("a ? b", "--tokens", "7:9"), "no tokens from 7"),
        (("a ? b", "--metric", "loss"), "no metric loss"),
        (("a ? b", "--metric", "rank_follow"), "0 tokens are followed"),
        (("a ? b", "--png", "x.gif"), "picture x.gif"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(words, why, capsys):
    assert why in refused(capsys, 2, "show", *words)


def test_a_lone_surrogate_is_read_as_a_replacement_character(model):
    shown = read_texts.read(model, "packaged", "a \ud800 b", decoders=("final_norm",))
    assert json.dumps(shown.document(), allow_nan=False).isascii()
