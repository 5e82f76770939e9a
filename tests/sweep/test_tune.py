"""Tiles and blocks are chosen once, by measurement where that is asked for."""

import dataclasses
import json

import pytest
from sweeps import configure, digest

from jaxlens.models import loading
from jaxlens.store import layout
from jaxlens.sweep import cache, devices, run, tune

ASKED = {"lens.tune": True, "lens.tile": None, "lens.block": None}


@pytest.fixture
def seconds(monkeypatch):
    """Replaces the clock of a trial: seconds of each choice, 1 by default."""
    told = {}
    tried = []

    def compiled(self, choice):
        tried.append(choice)
        return [lambda: choice]

    now = [0.0]

    def wait(results):
        now[0] += told.get(results[0], 1.0)

    monkeypatch.setattr(tune._Trial, "_compile", compiled)
    monkeypatch.setattr(tune.jax, "block_until_ready", wait)
    monkeypatch.setattr(tune.time, "perf_counter", lambda: now[0])
    return told, tried


@pytest.fixture
def choose(tiny, texts, tmp_path):
    """Tunes a configuration of the tiny model."""
    model = loading.from_checkpoint(loading.load_checkpoint(tiny))

    def chosen(cached=None, **more):
        given = configure(tiny, texts, tmp_path / "out", **ASKED | more)
        lens = tune.tune(given, model.config, model.params, cached).lens
        return lens.tile, lens.block

    return chosen


def test_the_fastest_tile_and_then_the_fastest_block_win(seconds, choose):
    told, tried = seconds
    usual = choose()
    assert usual == (512, 128)
    told |= {(1024, 128): 0.5, (1024, 64): 0.3, (256, 64): 0.1}
    assert choose() == (1024, 64)
    assert (256, 64) not in tried


def test_what_gains_less_than_the_noise_does_not_win(seconds, choose):
    told, _ = seconds
    told[2048, 128] = 0.98
    assert choose() == (512, 128)


def test_what_is_given_is_not_tried(seconds, choose):
    told, tried = seconds
    told[512, 100] = 9.0
    assert choose(**{"lens.tile": 512, "lens.block": 100}) == (512, 100)
    assert set(tried) == {(512, 100)}


def test_a_choice_is_kept_for_this_shape_and_damage_is_measured_again(seconds, choose, tmp_path):
    told, tried = seconds
    cached = cache.folder(str(tmp_path))
    told[1024, 128] = 0.5
    assert choose(cached) == (1024, 128)
    told.clear()
    tried.clear()
    assert choose(cached) == (1024, 128) and not tried
    assert choose(cached, **{"lens.precision": "bfloat16"}) == (512, 128) and tried
    senseless = {key: [0, -1] for key in json.loads((cached / "tuned.json").read_bytes())}
    (cached / "tuned.json").write_text(json.dumps(senseless))
    tried.clear()
    assert choose(cached) == (512, 128) and tried
    for broken in (b"", b"[1]", b'{"x": 1}', b'{"x": ["a", 2]}', b'{"x": [null, 2]}'):
        (cached / "tuned.json").write_bytes(broken)
        tried.clear()
        assert choose(cached) == (512, 128) and tried


@pytest.fixture
def one_tile(monkeypatch):
    """Real trials, of one tile with three blocks: each is a compilation of seconds."""
    monkeypatch.setattr(tune, "TILES", (512,))
    monkeypatch.setattr(tune, "_ROUNDS", 1)


def test_nothing_that_would_not_fit_is_run(one_tile, choose, monkeypatch):
    def never(results):
        raise AssertionError("it was run")

    monkeypatch.setattr(devices, "room", lambda chosen: 1000)
    monkeypatch.setattr(tune.jax, "block_until_ready", never)
    assert choose() == (512, 128)


def test_a_tuned_run_records_what_it_chose_and_goes_on_with_it(
    one_tile, tiny, texts, tmp_path, monkeypatch
):
    """The real trial, on real residual widths."""
    how = configure(tiny, texts, tmp_path / "out", cache=str(tmp_path / "cache"), **ASKED)
    run.run(how)
    lens = layout.read_spec(tmp_path / "out").document["lens"]
    assert lens["tile"] == 512 and lens["block"] in (32, 64, 128)
    assert "tune" not in lens
    before = digest(tmp_path / "out")
    monkeypatch.setattr(tune, "tune", None)  # is not called again
    assert run.run(how).computed == 0
    untuned = {"lens.tile": lens["tile"], "lens.block": lens["block"]}
    given = configure(tiny, texts, tmp_path / "other", **untuned)
    run.run(dataclasses.replace(given, cache="none"))
    assert digest(tmp_path / "other") == before
