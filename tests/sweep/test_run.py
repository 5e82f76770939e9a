"""The whole way: text in, every layer's readout out, in files; through the real command line."""

import collections
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import time

import jax
import numpy as np
import oracle
import pytest
from sweeps import TINY, configure, digest, flags, run_cli, start

import jaxlens
from jaxlens import config, errors, schema
from jaxlens.bench import random_model
from jaxlens.corpus import references as corpus_references
from jaxlens.lens import implementations, tiled, tuning
from jaxlens.models import gpt2, loading
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import commit, layout, verify, worker_notes
from jaxlens.sweep import compute, devices, prepare, resolve
from jaxlens.sweep import run as sweep
from jaxlens.sweep import step as steps
from jaxlens.sweep import tokens as token_files
from jaxlens.tally import bins as binning

# Float32 logits of order 10, in other shapes of the same sums.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
# Logits nearer than this in float64 may swap in float32.
NEAR_TIE = 1e-4


def compare(one, two, model):
    """Rows of two runs of the same tokens agree up to rounding; ranks but for near-ties."""
    assert len(one) == len(two)
    for name in one.names:
        a, b = one[name][:], two[name][:]
        if np.array_equal(a, b):
            continue
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, **TOLERANCE, err_msg=name)
        elif name.startswith("rank"):
            for row, layer in zip(*np.nonzero(a != b), strict=True):
                z = np.sort(logits(model, one, row)[layer])[::-1]
                assert abs(z[int(a[row, layer]) - 1] - z[int(b[row, layer]) - 1]) < NEAR_TIE, name
        elif name == "top_id":
            for row, layer in zip(*np.nonzero((a != b)[..., 0]), strict=True):
                z = logits(model, one, row)[layer]
                assert abs(z[a[row, layer, 0]] - z[b[row, layer, 0]]) < NEAR_TIE
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


def logits(model, run, row):
    """Float64 logits of one row, ``[layer, vocab]``, from the tokens of its window."""
    first = row - int(run["position"][row])
    tokens = run["token"][first : row + 1][None]
    found = _load(model)
    streams = oracle.residuals(found.params, found.architecture, tokens)[:, :, -1:]
    return oracle.logits(streams, gpt2.unembed(found.params, found.architecture))[:, 0, 0]


_load = functools.lru_cache(checkpoint.load)


def test_every_token_of_the_corpus_is_recorded_once_in_order(swept, tiny, texts):
    model = loading.from_checkpoint(loading.load_checkpoint(tiny))
    expected = []
    for line in texts.read_text().splitlines():
        try:
            text = json.loads(line)["text"]
        except json.JSONDecodeError:
            continue
        expected.append(model.tokenizer.encode(text).ids if text.strip() else [])
    with jaxlens.open_run(swept) as run:
        assert run["token"][:].tolist() == [t for ids in expected for t in ids]
        offsets = [i for ids in expected for i in range(len(ids))]
        assert run["offset"][:].tolist() == offsets
        following = [t for ids in expected for t in [*ids[1:], -1][: len(ids)]]
        assert run["next_token"][:].tolist() == following
        assert run.tally["token_count"].sum() == len(run) == len(offsets)


def test_rows_are_what_the_lens_reads_on_each_document_alone(swept, tiny):
    """Packing, padding and other documents beside it do not change a token's record."""
    model = jaxlens.load_model(tiny)
    with jaxlens.open_run(swept) as run:
        tokens, document, offset = (run[n][:] for n in ("token", "document", "offset"))
        for number in (0, 3, 5):
            rows = np.flatnonzero((document == number) & (offset < TINY["n_positions"]))
            line = tokens[rows][None].astype(np.int32)
            readout = jaxlens.read_lens(model, line, quantities="full").present()
            for name in ("kl_final", "kl_input", "entropy", "logp_input"):
                value = np.asarray(readout[name])[:, 0].T
                np.testing.assert_allclose(run[name][:][rows], value, **TOLERANCE, err_msg=name)
            got, want = run["rank_input"][:][rows], np.asarray(readout["rank_input"])[:, 0].T
            for place, layer in zip(*np.nonzero(got != want), strict=True):
                z = np.sort(logits(tiny, run, rows[place])[layer])[::-1]
                assert abs(z[got[place, layer] - 1] - z[want[place, layer] - 1]) < NEAR_TIE
            copy = corpus_references.in_memory(line).copy[0]
            assert ((run["rank_copy"][:][rows][:, 0] > 0) == (copy >= 0)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"plan.step_sequences": 7, "lens.tile": 100, "lens.block": 33},
        pytest.param({"lens.implementation": "reference"}, marks=pytest.mark.long),
    ],
    ids=["shapes of step, tile and block", "reference"],
)
def test_how_it_is_computed_does_not_change_rows(swept, tiny, texts, tmp_path, change):
    sweep.run(configure(tiny, texts, tmp_path / "out", **change))
    with jaxlens.open_run(swept) as one, jaxlens.open_run(tmp_path / "out") as two:
        compare(one, two, tiny)


@pytest.mark.long
def test_residuals_in_bfloat16_change_rows_by_their_rounding(swept, tiny, texts, tmp_path):
    sweep.run(configure(tiny, texts, tmp_path / "out", **{"lens.residuals": "bfloat16"}))
    with jaxlens.open_run(swept) as one, jaxlens.open_run(tmp_path / "out") as two:
        for name in ("entropy", "kl_final", "logp_input"):
            apart = np.abs(one[name][:] - two[name][:])
            # Eight bits of a residual, and logits of order 10.
            assert 0 < apart.max() < 0.2, name
        assert (one["top_id"][:] == two["top_id"][:]).mean() > 0.9


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.long)])
def test_more_devices_give_the_same_bytes(swept, tiny, texts, tmp_path, count):
    sweep.run(configure(tiny, texts, tmp_path / "out", devices=count))
    ours, theirs = (sorted(p.glob("shards/*.h5")) for p in (tmp_path / "out", swept))
    assert len(ours) > 5
    assert [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    (note,) = worker_notes.read(tmp_path / "out")
    assert note["measured"]["devices"] == count


def test_devices_that_are_not_there_are_refused(tiny, texts, tmp_path):
    with pytest.raises(
        errors.ConfigError, match=r"devices is 99, and this process has 4 cpu devices"
    ):
        sweep.run(configure(tiny, texts, tmp_path / "out", devices=99))


def test_weights_lie_in_memory_once_however_many_cores_use_them():
    one, other = jax.devices()[:2]
    leaf = devices.put(np.ones((100, 64), np.float32), one)
    again = devices.put(leaf, other)
    assert again.devices() == {other}
    assert again.unsafe_buffer_pointer() == leaf.unsafe_buffer_pointer()


def test_a_run_keeps_the_tiles_it_began_with(swept, tiny, texts, tmp_path, monkeypatch):
    begun = shutil.copytree(swept, tmp_path / "run")
    commit.discard(begun, 3)
    monkeypatch.setattr(tuning, "choose_tile", lambda *shape: 100)
    monkeypatch.setattr(tuning, "choose_block", lambda *shape: 33)
    left = {"lens.tile": None, "lens.block": None}
    assert sweep.run(configure(tiny, texts, begun, **left)).computed == 1
    assert digest(begun) == digest(swept)
    sweep.run(configure(tiny, texts, tmp_path / "other", **left, **{"plan.step_sequences": 7}))
    spec = layout.read_spec(tmp_path / "other").document
    assert (spec["lens"]["tile"], spec["lens"]["block"]) == (100, 33)
    with pytest.raises(errors.ConfigError, match=r"lens\.tile"):
        sweep.run(configure(tiny, texts, begun, **{"lens.tile": 100}))


def test_windows_with_overlap_record_every_token_once_with_more_context(
    swept, tiny, texts, tmp_path
):
    sweep.run(configure(tiny, texts, tmp_path / "out", **{"plan.overlap": 16}))
    with jaxlens.open_run(swept) as one, jaxlens.open_run(tmp_path / "out") as two:
        assert np.array_equal(one["token"][:], two["token"][:])
        position, offset = two["position"][:], two["offset"][:]
        assert (position >= np.minimum(offset, 16)).all()
        first = offset < TINY["n_positions"]
        np.testing.assert_allclose(one["entropy"][:][first], two["entropy"][:][first], **TOLERANCE)


def test_another_shard_size_gives_identical_rows_and_tallies(swept, tiny, texts, tmp_path):
    sweep.run(configure(tiny, texts, tmp_path / "out", **{"store.shard_tokens": 640}))
    with jaxlens.open_run(swept) as one, jaxlens.open_run(tmp_path / "out") as two:
        assert one.spec["plan"]["n_shards"] != two.spec["plan"]["n_shards"]
        for name in one.names:
            np.testing.assert_array_equal(one[name][:], two[name][:])
        for name in one.tally:
            np.testing.assert_array_equal(one.tally[name], two.tally[name])


def test_tallies_are_the_rows_counted_exactly(swept):
    with jaxlens.open_run(swept) as run:
        tally = run.tally
        table = binning.ln_table(TINY["vocab_size"]).astype(np.int64)
        for line, name in enumerate(schema.SUMMED):
            value = run[name][:]
            if name.startswith("rank"):
                known, amount = value > 0, table[value]
            else:
                known = ~np.isnan(value)
                amount = np.rint(np.nan_to_num(value).astype(np.float64) * 2**16).astype(np.int64)
            np.testing.assert_array_equal(tally["count"][line], known.sum(0), err_msg=name)
            np.testing.assert_array_equal(tally["sum"][line], (amount * known).sum(0), err_msg=name)
        ranks, token = run["rank_input"][:], run["token"][:]
        bins = np.searchsorted(binning.LN_RANK_EDGES, np.log(ranks).astype(np.float32), "right") - 1
        for layer in range(ranks.shape[1]):
            expected = np.bincount(bins[:, layer], minlength=128)
            np.testing.assert_array_equal(tally["ln_rank_histogram"][0, layer], expected)
        by_token = np.zeros((TINY["vocab_size"], ranks.shape[1]), np.int64)
        np.add.at(by_token, token, table[ranks])
        np.testing.assert_array_equal(tally["token_sum_ln_rank_input"], by_token)


def test_two_workers_with_shards_of_one_run_finish_it_together(swept, tiny, texts, tmp_path):
    first = sweep.run(configure(tiny, texts, tmp_path / "out", shard="0/2"))
    assert not first.finished
    second = sweep.run(configure(tiny, texts, tmp_path / "out", shard="1/2"))
    assert second.finished
    assert first.computed + second.computed == first.n_shards
    assert digest(tmp_path / "out") == digest(swept)


def test_a_finished_run_computes_nothing_and_a_damaged_shard_is_recomputed(
    swept, tiny, texts, tmp_path
):
    out = shutil.copytree(swept, tmp_path / "run")
    again = sweep.run(configure(tiny, texts, out))
    assert again.computed == 0
    assert again.tokens_per_second is None
    shard = out / "shards" / "part-00001.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert not verify.verify(out).ok
    assert sweep.run(configure(tiny, texts, out)).computed == 1
    assert digest(out) == digest(swept)


@pytest.mark.long  # it forgets what all tests before it have compiled
def test_the_step_is_traced_once_a_run(tiny, texts, tmp_path, monkeypatch):
    traced = collections.Counter()
    original = tiled.read

    def counted(streams, *rest):
        traced[streams.shape] += 1
        return original(streams, *rest)

    monkeypatch.setitem(implementations.IMPLEMENTATIONS, "tiled", counted)
    jax.clear_caches()  # or the step would be known from other tests
    result = sweep.run(configure(tiny, texts, tmp_path / "out"))
    assert result.n_shards > 5
    assert traced[3, 4, 32, 8] == 1
    sweep.run(configure(tiny, texts, tmp_path / "again"))
    assert traced[3, 4, 32, 8] == 1


@pytest.mark.long
def test_the_same_step_gives_identical_bits_on_every_device(tiny, texts, tmp_path):
    made = prepare.prepare(configure(tiny, texts, tmp_path / "out"), tmp_path)
    step = jax.jit(lambda *arguments: steps.apply(made.step_config, *arguments))
    with made.ingested.open() as tokens:
        batch, _ = made.batch(1, tokens)
    inputs = (made.model.params, made.unembed, made.tiles, batch)
    assert len(jax.devices()) == 4
    bits = set()
    for device in jax.devices():
        _, rows = step(*jax.device_put(inputs, device))
        assert {d for v in rows.values() for d in v.devices()} == {device}
        bits.add(b"".join(np.asarray(rows[name]).tobytes() for name in sorted(rows)))
    assert len(bits) == 1


@pytest.mark.parametrize("rows", [pytest.param("core", marks=pytest.mark.long), "none"])
def test_narrow_rows_and_tallies_alone_verify_and_summarise(tiny, texts, tmp_path, rows):
    sweep.run(configure(tiny, texts, tmp_path / "out", **{"store.rows": rows}))
    assert verify.verify(tmp_path / "out").ok
    with jaxlens.open_run(tmp_path / "out") as run:
        assert set(run.names) == set(schema.PROFILES[rows])
        assert run.summary()["input"]["median_rank_input"] >= 1
        assert run.summary()["h.1"]["mean_kl_final"] == 0
        if rows == "core":
            assert run["kl_final"][:].dtype == np.float16


@pytest.mark.long
def test_further_quantities_are_stored_beside_the_profile(tiny, texts, tmp_path):
    more = ("kl_to_final", "js_input", "norm", "top_logp")
    how = {"store.rows": "core", "store.quantities": more, "lens.top_k": 2}
    sweep.run(configure(tiny, texts, tmp_path / "out", **how))
    with jaxlens.open_run(tmp_path / "out") as run:
        assert set(run.names) == {*schema.CORE, *more}
        assert run["top_logp"][:].shape == (len(run), 3, 2)
        assert (run["kl_to_final"][:, -1] == 0).all()
        assert (run["norm"][:] > 0).all()
    for name in ("ties_input", "rank_follow", "surprisal", "token", "nothing"):
        with pytest.raises(errors.ConfigError, match=name):
            sweep.run(configure(tiny, texts, tmp_path / name, **{"store.quantities": [name]}))


def test_shards_and_index_open_in_xarray(swept):
    import xarray

    with jaxlens.open_run(swept) as run, xarray.open_dataset(swept / "index.h5") as index:
        assert index.sizes == {"row": len(run), "layer": 3, "k": 1}
        np.testing.assert_array_equal(index["kl_final"].values, run["kl_final"][:])
        assert index["kl_final"].attrs["units"] == "nat"
    with xarray.open_dataset(swept / "shards" / "part-00000.h5") as shard:
        assert list(shard["layer_name"].values) == ["input", "h.0", "h.1"]


def test_the_command_line_sweeps_verifies_and_finalizes(tiny, texts, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_cli(*flags(tiny, texts, out)) == 0
    printed = capsys.readouterr()
    assert "median rank of input" in printed.out
    assert "skipped 2 documents or lines" in printed.err
    assert run_cli("verify", out) == 0
    before = digest(out)
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (out / name).unlink()
    assert run_cli("finalize", out) == 0
    assert digest(out) == before
    assert run_cli(*flags(tiny, texts, out)) == 0
    assert "finished already" in capsys.readouterr().out


def test_a_dry_run_prints_the_cost_and_leaves_nothing(tiny, texts, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_cli(*flags(tiny, texts, out), "--dry-run") == 0
    printed = capsys.readouterr().out
    for what in ("tokens (rows)", "on disk", "tallies", "device memory", "expected time"):
        assert what in printed
    assert not out.exists()


def test_the_token_file_can_be_made_ahead(tiny, texts, tmp_path, swept, capsys):
    out = tmp_path / "out"
    assert run_cli("tokenize", "--model", tiny, "--corpus", texts, "--out", out) == 0
    assert "made" in capsys.readouterr().out
    assert (out / "tokens" / "tokens.bin").read_bytes() == (
        swept / "tokens" / "tokens.bin"
    ).read_bytes()
    assert run_cli(*flags(tiny, texts, out)) == 0
    assert digest(out) == digest(swept)


@pytest.mark.parametrize("times", [2, pytest.param(4, marks=pytest.mark.long)])
def test_killed_at_random_moments_and_resumed_it_ends_bit_identical(
    tiny, texts, tmp_path, swept, times
):
    out = tmp_path / "out"
    command = flags(tiny, texts, out)
    chosen = random.Random(1)
    kills = 0
    for _ in range(times):
        process = start(*command)
        want = len(list(out.glob("shards/*.h5"))) + chosen.randint(0, 3)
        while process.poll() is None and len(list(out.glob("shards/*.h5"))) < want:
            time.sleep(0.002)
        time.sleep(chosen.random() * 0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= times // 2
    assert run_cli(*command) == 0
    assert digest(out) == digest(swept)
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]


def test_a_run_in_its_default_place_repairs_its_token_file(tiny, texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = configure(tiny, texts, None)
    out = pathlib.Path(sweep.run(how).out)
    assert out.parent == pathlib.Path("runs")
    for name in ("tokens.bin", "index.h5", "TOKENS.json"):
        path = out / "tokens" / name
        data = path.read_bytes()
        path.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
        assert sweep.run(how).computed == 0
        assert path.read_bytes() == data
    assert verify.verify(out).ok


def test_a_run_keeps_its_tokens_when_their_record_is_lost(tiny, texts, tmp_path):
    out = tmp_path / "out"
    sweep.run(configure(tiny, texts, out))
    record = (out / "tokens" / "TOKENS.json").read_bytes()
    (out / "tokens" / "TOKENS.json").unlink()
    other = tmp_path / "other.txt"
    other.write_text("another text")
    with pytest.raises(errors.ConfigError, match="corpus"):
        sweep.run(configure(tiny, other, out))
    assert sweep.run(configure(tiny, texts, out)).computed == 0
    assert (out / "tokens" / "TOKENS.json").read_bytes() == record
    assert verify.verify(out).ok


def test_strict_also_refuses_a_token_file_that_was_made_without(tiny, texts, tmp_path):
    out = tmp_path / "out"
    token_files.tokenize(configure(tiny, texts, out))
    with pytest.raises(errors.DataError, match=r"texts\.jsonl:8"):
        sweep.run(configure(tiny, texts, out, **{"corpus.strict": True}))


def test_a_step_is_fetched_after_the_next_is_dispatched():
    told = []

    def dispatched():
        for number in range(3):
            told.append(f"dispatch {number}")
            yield number

    fetched = compute.prefetch(dispatched(), 1)
    while (number := next(fetched, None)) is not None:
        told.append(f"fetch {number}")
    assert told == [
        "dispatch 0", "dispatch 1", "fetch 0", "dispatch 2", "fetch 1", "fetch 2",
    ]  # fmt: skip


def test_progress_counts_this_workers_tokens(tiny, texts, tmp_path):
    class Heard:
        def begin(self, total, done):
            self.total, self.done = total, done

        def advance(self, count):
            self.done += count

    totals = 0
    for shard in ("0/2", "1/2"):
        heard = Heard()
        result = sweep.run(configure(tiny, texts, tmp_path / "out", shard=shard), heard)
        assert heard.done == heard.total
        totals += heard.total
    assert totals == result.n_tokens


def test_progress_counts_what_is_committed_and_not_what_is_computed(tiny, texts, tmp_path):
    class Heard:
        done = ahead = 0

        def begin(self, total, done):
            pass

        def computed(self, count):
            self.ahead += count

        def advance(self, count):
            self.done += count
            parts = len(list((tmp_path / "out" / "shards").glob("*.h5")))
            assert self.done <= min(self.ahead, 512 * parts)

    heard = Heard()
    result = sweep.run(configure(tiny, texts, tmp_path / "out"), heard)
    assert heard.ahead == heard.done == result.n_tokens


@pytest.mark.parametrize("size", ["", "-medium", "-large", "-xl"])
@pytest.mark.parametrize("more", [[], ["h200"], ["post2020"]])
def test_every_shipped_configuration_fits_its_model(size, more):
    folder = pathlib.Path(__file__).parents[2] / "configs"
    files = [folder / f"{name}.yaml" for name in (f"gpt2{size}", *more)]
    layers, embed = {"": (12, 768), "-medium": (24, 1024), "-large": (36, 1280), "-xl": (48, 1600)}[
        size
    ]
    architecture = random_model.architecture(f"gpt2{size}")
    assert (architecture.n_layer, architecture.n_embd) == (layers, embed)
    settled = resolve.resolve(config.load(files), architecture).config
    assert settled.lens.block <= settled.plan.length * settled.plan.step_sequences


@pytest.mark.long
def test_the_demo_killed_ten_times_ends_bit_identical(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start("run", "--out", whole).wait() == 0
    assert len(list(whole.glob("shards/*.h5"))) >= 10
    chosen = random.Random(2)
    for _ in range(10):
        process = start("run", "--out", killed)
        time.sleep(chosen.uniform(1, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start("run", "--out", killed).wait() == 0
    assert digest(killed) == digest(whole)


def test_the_spec_names_nothing_of_this_machine(swept, tiny, texts):
    spec = (swept / "RUN.json").read_text()
    for place in (str(tiny), str(texts), str(swept), os.uname().nodename, jax.__version__):
        assert place not in spec
