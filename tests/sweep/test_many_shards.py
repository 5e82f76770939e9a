"""Sweeps of many shards: their segments, their size, and damage that is found in the end."""

import shutil

import pytest
from store import example
from sweeps import configure

from jaxlens import config
from jaxlens.bench import random_model
from jaxlens.store import layout, reader, segment_files, verify
from jaxlens.sweep import resolve, run


@pytest.fixture
def small_segments(monkeypatch):
    """Segments of two shards; returns those that are built while sweeps run."""
    built, publish_complete = [], segment_files.publish_complete

    def noted(run_dir, spec, segment, *more):
        built.append(segment)
        return publish_complete(run_dir, spec, segment, *more)

    monkeypatch.setattr(layout, "SHARDS_PER_SEGMENT", 2)
    monkeypatch.setattr(segment_files, "publish_complete", noted)
    return built


def test_a_sweep_stores_its_segments_while_it_runs(
    tiny, texts, tmp_path, swept, small_segments, monkeypatch
):
    assert run.run(configure(tiny, texts, tmp_path)).finished
    assert verify.verify(tmp_path).ok
    spec = layout.read_spec(tmp_path)
    assert sorted(small_segments) == list(range(-(-spec.n_shards // 2)))
    for shard in range(spec.n_shards):  # the same bytes, elsewhere
        flat = swept / "shards" / layout.shard_name(shard)
        assert layout.shard_path(tmp_path, shard).read_bytes() == flat.read_bytes()
    with reader.open_run(tmp_path) as segmented:
        tally = segmented.tally
    monkeypatch.undo()
    with reader.open_run(swept) as flat:
        assert all((tally[name] == total).all() for name, total in flat.tally.items())


@pytest.mark.parametrize("segmented", [False, True])
def test_damage_of_the_right_size_is_computed_again_by_the_same_command(
    tiny, texts, tmp_path, swept, segmented, request
):
    if segmented:
        request.getfixturevalue("small_segments")
        run.run(configure(tiny, texts, tmp_path / "run"))
        # A worker that was killed before the segment was stored.
        layout.segment_path(tmp_path / "run", 1, layout.MANIFEST).unlink()
    else:
        shutil.copytree(swept, tmp_path / "run")
    before = example.tree(tmp_path / "run" / "shards")
    example.damage(tmp_path / "run", 3)
    result = run.run(configure(tiny, texts, tmp_path / "run"))
    assert result.finished and result.computed == 1
    assert verify.verify(tmp_path / "run").ok
    assert example.tree(tmp_path / "run" / "shards").items() >= before.items()


def shard_tokens(n_tokens, existing_spec=None, **given):
    settings = config.load([], {}, {"model.path": "gpt2", "store.rows": "core"} | given)
    resolved = resolve.resolve(settings, random_model.architecture("gpt2"), existing_spec, "gpu")
    return resolved.with_corpus(n_tokens).shard_tokens


def test_shards_grow_with_the_corpus_unless_their_size_is_given():
    default = 65_536
    assert shard_tokens(10**6) == shard_tokens(4096 * default) == default
    assert shard_tokens(4096 * default + 1) == 2 * default
    assert shard_tokens(10**12, **{"store.shard_tokens": 1000 * 1024}) == 1000 * 1024
    rows = shard_tokens(10**12)  # bounded by what is held in memory
    assert default < rows < resolve.MAX_GROWN_TOKENS
    assert shard_tokens(10**12, **{"store.rows": "none"}) == resolve.MAX_GROWN_TOKENS
    for n_tokens in (10**9, 10**10):
        assert n_tokens / shard_tokens(n_tokens, **{"store.rows": "none"}) <= resolve.MAX_SHARDS


def test_a_run_keeps_the_size_of_its_shards():
    grown = shard_tokens(10**9)
    began = {"store": {"shard_tokens": grown}}
    assert shard_tokens(10**9, began) == grown
    before_they_grew = {"store": {"shard_tokens": 65_536}}
    assert shard_tokens(10**9, before_they_grew) == 65_536
