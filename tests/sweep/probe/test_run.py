"""`jaxlens probe` from a run to its files: what it counts, that it resumes, what it refuses."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import oracle
import probes
import pytest
from sweeps import configure, flags, refused, run_cli

from jaxlens import config, errors
from jaxlens.models import loading
from jaxlens.store import layout, mean_stream_file, probe_file, verify
from jaxlens.store.probe_file import READOUTS, STATISTICS, TARGETS
from jaxlens.sweep import preemption
from jaxlens.sweep.probe import data, run
from jaxlens.sweep.probe.spec import Settings
from jaxlens.tally import bins

SETTINGS = Settings(tokens=2_000, held_out_tokens=600)


def configured(model):
    return config.load([], {}, {"model.path": str(model), "devices": 1})


def files(folder):
    """Hashes of everything that a probe leaves."""
    paths = sorted(path for path in (folder / "probe").rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


@pytest.fixture
def out(tmp_path, swept):
    return shutil.copytree(swept, tmp_path / "run")


@pytest.fixture(scope="module")
def probed(tiny, swept, tmp_path_factory):
    """A run with a finished probe; who changes it copies it first."""
    folder = shutil.copytree(swept, tmp_path_factory.mktemp("probed") / "run")
    result = run.of_run(folder, configured(tiny), SETTINGS)
    assert result.positions_per_second > 0
    return folder


def positions(folder, held_out, steps, model):
    """From the tokens alone: ``[position]`` of token, two before it, group, rarity of each.

    Streams are those of the float64 oracle.
    """
    spec = layout.read_spec(folder).document
    params = loading.load_checkpoint(model).params
    architecture = loading.load_checkpoint(model).architecture
    job = jobs(folder, model)
    index = job.ingested.index
    rows = []
    assert spec["plan"]["n_steps"] == job.plan.n_steps
    with job.ingested.open() as tokens:
        for number in steps:
            batch, columns = job.batch(number, tokens)
            streams = oracle.residuals(
                params, architecture, batch.tokens, batch.positions, batch.segments
            ).reshape(architecture.n_layer + 1, -1, architecture.n_embd)
            flat = batch.tokens.reshape(-1)
            for i, slot in enumerate(batch.order[: int(batch.count)]):
                document, at = columns["document"][i], columns["position"][i]
                if at == 0 or data.is_held_out(index.document_hash)[document] != held_out:
                    continue
                tokens_here = [flat[slot], flat[slot - 1], flat[slot - 2] if at > 1 else -1]
                group = bins.group_of(index.document_hash[document : document + 1])[0]
                fold = index.document_hash[document] & np.uint64(1)
                rows.append((tokens_here, group, fold, streams[:, slot], document))
    return rows


def jobs(folder, model):
    import pathlib
    import tempfile

    from jaxlens.corpus import token_folder
    from jaxlens.sweep import reopen

    spec = layout.read_spec(folder)
    ingested = token_folder.find_whole(folder / "tokens", spec.document)
    with tempfile.TemporaryDirectory() as temporary:
        return reopen.reopen(
            folder, spec, configured(model), pathlib.Path(temporary), ingested, "probe"
        )


@pytest.fixture(scope="module")
def defined(probed, tiny):
    """The same by the definition: positions, classes, scores, all in float64."""
    job = jobs(probed, tiny)
    order = data.step_order(job.plan.n_steps, SETTINGS.seed)
    training, held_out = [], []
    for rows, wanted, side in (
        (training, SETTINGS.tokens, False),
        (held_out, SETTINGS.held_out_tokens, True),
    ):
        for number in order:
            if len(rows) < wanted:
                rows += positions(probed, side, [number], tiny)
    return job, training, held_out


def test_what_is_counted_is_what_the_definition_counts(probed, defined):
    job, training, held_out = defined
    probe = probe_file.read(probed)
    assert probe.counts == {
        "training_positions": len(training),
        "held_out_positions": len(held_out),
        "training_documents": len({row[4] for row in training}),
        "held_out_documents": len({row[4] for row in held_out}),
    }
    own = np.array([row[0][0] for row in training])
    ids, counts = np.unique(own, return_counts=True)
    np.testing.assert_array_equal(probe.class_token, ids[counts >= 2])
    np.testing.assert_array_equal(probe.class_count[0], counts[counts >= 2])
    table = bins.rarity_table(job.ingested.index.token_counts) >> bins.FIXED_POINT_BITS
    for target in range(3):
        tokens = np.array([row[0][target] for row in training])
        known = {
            t for t, n in zip(probe.class_token, probe.class_count[target], strict=True) if n >= 2
        }
        assert all((tokens == t).sum() >= 2 for t in known)
        expected = np.zeros((2, bins.FREQUENCY_BINS, bins.GROUPS), np.int64)
        for tokens_here, group, fold, _, _ in held_out:
            token = tokens_here[target]
            if token >= 0:
                rarity = np.clip(table[int(fold), token], 0, bins.FREQUENCY_BINS - 1)
                expected[int(token in known), rarity, group] += 1
        np.testing.assert_array_equal(probe.outside[target], expected[0])
        for readout in READOUTS:
            counted = probe.of(TARGETS[target], readout, "positions")
            assert (counted == expected[1]).all()


@pytest.mark.parametrize("target", range(3))
def test_recall_and_probability_are_those_of_the_definition(probed, defined, target):
    job, training, held_out = defined
    probe = probe_file.read(probed)
    class_of = {int(token): k for k, token in enumerate(probe.class_token)}

    def label(rows):
        return np.array([class_of.get(int(row[0][target]), -1) for row in rows])

    learnt, judged = label(training), label(held_out)
    candidates = probe.class_count[target] >= 2
    judged = np.where((judged >= 0) & candidates[judged], judged, -1)
    streams, at = (np.stack([row[3] for row in rows], 1) for rows in (training, held_out))
    # The decoder of the last layer is the model's own, so all layers are decoded together.
    head = np.asarray(job.unembed.weight, np.float64)[probe.class_token]
    lens = oracle.decode(at[:, None], job.unembed)[:, 0] @ head.T
    for layer in range(len(streams)):
        by_definition = {
            "probe": probes.scores(streams[layer], learnt, len(class_of), at[layer]),
            "lens": np.where(candidates, lens[layer], -np.inf),
        }
        for readout, z in by_definition.items():
            z, own = z[judged >= 0], judged[judged >= 0]
            ranks = probes.rank(z, own)
            logp = probes.log_softmax(z)[np.arange(len(own)), own]
            ours = {
                name: int(probe.of(TARGETS[target], readout, name)[layer].sum())
                for name in STATISTICS
            }
            assert ours["positions"] == len(own)
            # Of positions whose two best are equal to the rounding of float32.
            assert abs(ours["hits_1"] - (ranks == 1).sum()) <= 2
            assert abs(ours["hits_10"] - (ranks <= 10).sum()) <= 2
            mean = ours["logp"] / bins.ONE / len(own)
            assert mean == pytest.approx(logp.mean(), rel=2e-3, abs=2e-3), (layer, readout)


def test_directions_are_those_of_the_definition(probed, defined):
    _, training, _ = defined
    probe = probe_file.read(probed)
    own = np.array([row[0][0] for row in training])
    for layer in range(len(probe.layer_names)):
        directions = probe_file.read_directions(probed, layer)
        np.testing.assert_array_equal(directions.class_token, probe.class_token)
        streams = np.stack([row[3][layer] for row in training])
        known = np.isin(own, probe.class_token)
        means = np.stack([streams[own == token].mean(0) for token in probe.class_token])
        np.testing.assert_allclose(directions.mean, means, atol=2e-5)
        np.testing.assert_allclose(directions.centre, streams[known].mean(0), atol=2e-5)
        # S times the discriminant is the mean away from the centre.
        residuals = streams[known] - means[np.searchsorted(probe.class_token, own[known])]
        covariance = residuals.T @ residuals / (known.sum() - len(means))
        covariance += np.eye(len(covariance)) * 1e-3 * np.trace(covariance) / len(covariance)
        away = np.float64(directions.discriminant) @ covariance
        expected = means - streams[known].mean(0)
        np.testing.assert_allclose(away, expected, atol=2e-4 * np.abs(expected).max())


def test_documents_are_on_one_side_and_a_quarter_is_held_out():
    drawn = np.random.default_rng(0).integers(0, 2**63, 40_000, dtype=np.uint64)
    held_out = data.is_held_out(drawn)
    assert abs(held_out.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(drawn))
    # It says nothing of the fold, and nothing of the group.
    assert abs(held_out[drawn & np.uint64(1) == 1].mean() - 0.25) < 0.02
    shares = np.bincount(bins.group_of(drawn), held_out, 256) / np.bincount(bins.group_of(drawn))
    assert shares.std() < 1.3 * np.sqrt(0.25 * 0.75 / (len(drawn) / 256))


def test_permuted_labels_are_tokens_of_training_documents_as_often_as_there(probed, tiny):
    job = jobs(probed, tiny)
    with job.ingested.open() as tokens:
        corpus = data.corpus(job, tokens, seed=0)
        drawn = [corpus.rows(n, held_out=False)[1] for n in range(job.plan.n_steps)]
        pool = [
            tokens.read(*job.ingested.index.document_start[d : d + 2])
            for d in np.flatnonzero(~corpus.held_out)
        ]
    own = np.concatenate([rows.token[data.OWN] for rows in drawn])
    permuted = np.concatenate([rows.token[data.PERMUTED] for rows in drawn])
    ids, counts = np.unique(np.concatenate(pool), return_counts=True)
    share = counts / counts.sum()
    frequency = np.array([(permuted == token).mean() for token in ids])
    assert np.isin(permuted, ids).all()
    deviation = np.abs(frequency - share) / np.sqrt(share * (1 - share) / len(permuted))
    assert deviation.max() < 5
    chance = (share**2).sum()
    spread = np.sqrt(chance * (1 - chance) / len(own))
    assert abs((own == permuted).mean() - chance) < 4 * spread


def test_the_same_call_says_at_once_that_it_is_finished(probed, tiny):
    before = files(probed)
    assert sorted(before) == sorted(
        ["probe/PROBE.json", "probe/mean_stream.h5", "probe/probe.h5"]
        + [f"probe/directions/layer-{layer:02d}.h5" for layer in range(3)]
    )
    began = time.monotonic()
    assert run.of_run(probed, configured(tiny), SETTINGS).positions_per_second is None
    assert time.monotonic() - began < 1.0
    assert files(probed) == before
    assert verify.verify(probed).ok


@pytest.mark.parametrize("devices", [2, pytest.param(3, marks=pytest.mark.long)])
def test_devices_that_take_turns_change_nothing(probed, out, tiny, devices):
    several = config.load([], {}, {"model.path": str(tiny), "devices": devices})
    stop = preemption.StopRequest(600)
    with pytest.raises(errors.InterruptedRun):
        run.of_run(out, several, SETTINGS, AsksAfter(stop, 8), stop)
    run.of_run(out, several, SETTINGS)
    assert files(out) == files(probed)


def test_layers_that_do_not_fit_in_memory_take_passes_and_change_nothing(probed, out, tiny):
    small = Settings(SETTINGS.tokens, SETTINGS.held_out_tokens, memory=1)
    run.of_run(out, configured(tiny), small)
    assert files(out) == files(probed)


class AsksAfter:
    """Progress that asks to stop after so many steps."""

    def __init__(self, stop, steps):
        self.stop, self.steps = stop, steps

    def begin(self, total, done):
        self.total, self.done = total, done

    def advance(self, count):
        self.done += count
        self.steps -= 1
        if not self.steps:
            self.stop.request("SIGTERM")


@pytest.mark.parametrize("memory", [1, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_a_stop_at_any_step_changes_no_bit(probed, out, tiny, memory):
    settings = Settings(SETTINGS.tokens, SETTINGS.held_out_tokens, memory=memory)
    stops = 0
    for steps in (1, 3, 2, 5, 8, 13, 21, 100):
        stop = preemption.StopRequest(600)
        asks = AsksAfter(stop, steps)
        try:
            run.of_run(out, configured(tiny), settings, asks, stop, seconds=600)
            break
        except errors.InterruptedRun:
            stops += 1
    assert stops >= 4 and asks.done <= asks.total
    assert files(out) == files(probed)


KILLED = """
import sys
from jaxlens import config
from jaxlens.sweep.probe import run
from jaxlens.sweep.probe.spec import Settings
class Told:
    def begin(self, total, done): print("began", flush=True)
    def advance(self, count): print(count, flush=True)
settings = Settings(int(sys.argv[3]), int(sys.argv[4]), memory=int(sys.argv[5]))
c = config.load([], {}, {"model.path": sys.argv[2], "devices": 1})
run.of_run(sys.argv[1], c, settings, Told(), seconds=0.0)
"""


# After so many lines of its output; killed several times it may end before the last.
@pytest.mark.parametrize(
    ("after", "least"), [((5,), 1), pytest.param((1, 2, 5, 9, 14, 30), 3, marks=pytest.mark.long)]
)
def test_a_killed_process_that_is_started_again_gives_the_same_bytes(
    probed, out, tiny, after, least
):
    numbers = SETTINGS.tokens, SETTINGS.held_out_tokens, 1
    command = [sys.executable, "-c", KILLED, out, tiny, *numbers]
    kills = 0
    for lines in after:
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE)
        for _ in range(lines):
            if not process.stdout.readline():
                break
        else:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.stdout.close()
        if process.wait() == 0:
            break
    assert kills >= least
    run.of_run(out, configured(tiny), dataclasses.replace(SETTINGS, memory=1))
    assert files(out) == files(probed)


def test_ctrl_c_keeps_what_was_done(out, tiny, probed, monkeypatch):
    work = []

    class Stops:
        def begin(self, total, done):
            work.append(done)

        def advance(self, count):
            work.append(count)
            if len(work) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.of_run(out, configured(tiny), SETTINGS, Stops(), seconds=600)
    assert (out / "probe" / "moments.checkpoint").exists()
    again = AsksAfter(preemption.StopRequest(), -1)
    run.of_run(out, configured(tiny), SETTINGS, again)
    counts = probe_file.read(out).counts
    assert again.done + sum(work[1:]) == sum(
        counts[name] for name in ("training_positions", "held_out_positions")
    )
    assert files(out) == files(probed)


@pytest.mark.parametrize("damage", ["cut", "flipped", "of another probe"])
def test_a_damaged_checkpoint_is_computed_again(probed, out, tiny, damage, caplog):
    stop = preemption.StopRequest(600)
    with pytest.raises(errors.InterruptedRun):
        run.of_run(out, configured(tiny), SETTINGS, AsksAfter(stop, 3), stop)
    path = out / "probe" / "moments.checkpoint"
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[:-100]
    elif damage == "flipped":
        raw[len(raw) // 2] ^= 1
    else:
        raw = raw.replace(b'"spec_hash": "', b'"spec_hash": "0')
    path.write_bytes(raw)
    run.of_run(out, configured(tiny), SETTINGS)
    assert ("is damaged" in caplog.text) == (damage != "of another probe")
    assert files(out) == files(probed)


def test_another_probe_is_refused_by_what_differs(probed, tiny):
    before = files(probed)
    for settings, words in (
        (Settings(2_001, 600), "probe.tokens is 2000 there, 2001 here"),
        (Settings(2_000, 600, seed=3), "probe.seed is 0 there, 3 here"),
    ):
        with pytest.raises(errors.ConfigError, match=words) as caught:
            run.of_run(probed, configured(tiny), settings)
        assert "remove" in caught.value.hint
    assert files(probed) == before


def test_another_model_is_refused(out, tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other")
    weights = other / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-3] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(errors.ConfigError, match=r"model\.sha256"):
        run.of_run(out, configured(other), SETTINGS)
    assert not (out / "probe").exists()


def test_a_model_is_probed_as_its_run_is(probed, tiny, texts, tmp_path):
    run.of_model(configure(tiny, texts, tmp_path / "begun"), SETTINGS)
    assert files(tmp_path / "begun") == files(probed)
    assert not list((tmp_path / "begun" / "shards").iterdir())


def test_fresh_weights_are_a_run_like_any_other(tiny, texts, tmp_path, probed):
    run.of_model(configure(tiny, texts, tmp_path / "fresh", null="random-init", seed=1), SETTINGS)
    probe = probe_file.read(tmp_path / "fresh")
    assert probe.spec["run"]["null"] == {"kind": "random-init", "seed": 1}
    trained = probe_file.read(probed)
    assert (probe.outside == trained.outside).all()
    assert (probe.of("own", "probe", "logp") != trained.of("own", "probe", "logp")).any()


@pytest.mark.long
def test_steps_of_another_shape_give_the_same_result_to_rounding(probed, tiny, texts, tmp_path):
    """All of the text, so that the same positions are taken whatever the steps."""
    everything = Settings(10**6, 10**6)
    results = []
    for name, sequences in (("one", 4), ("other", 7)):
        how = {"plan.step_sequences": sequences}
        run.of_model(configure(tiny, texts, tmp_path / name, **how), everything)
        results.append(probe_file.read(tmp_path / name))
    one, other = results
    assert one.counts == other.counts
    np.testing.assert_array_equal(one.outside, other.outside)
    np.testing.assert_array_equal(one.class_count, other.class_count)
    total = one.of("own", "probe", "positions")[0].sum()
    for statistic, tolerance in (("positions", 0), ("hits_1", 2e-3), ("hits_10", 2e-3)):
        i = STATISTICS.index(statistic)
        apart = np.abs(one.evaluation[:, :, i] - other.evaluation[:, :, i]).sum((-1, -2))
        assert apart.max() <= tolerance * total


def test_few_types_of_each_bin_where_the_vocabulary_is_large(out, tiny, probed):
    few = Settings(SETTINGS.tokens, SETTINGS.held_out_tokens, types=2)
    run.of_run(out, configured(tiny), few)
    probe, all_types = probe_file.read(out), probe_file.read(probed)
    assert set(probe.class_token) < set(all_types.class_token)
    counts = jobs(out, tiny).ingested.index.token_counts.sum(0)
    rarity = bins.rarity(np.stack([counts, counts]))[0]
    held = np.bincount(rarity[probe.class_token].astype(int), minlength=16)
    there = np.bincount(rarity[all_types.class_token].astype(int), minlength=16)
    np.testing.assert_array_equal(held, np.minimum(there, 2))
    total = probe.outside[0].sum() + probe.of("own", "lens", "positions")[0].sum()
    assert total == probe.counts["held_out_positions"]


def test_a_text_without_held_out_documents_is_refused(tiny, tmp_path):
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"text": "the old town and the old fox " * 20}) + "\n")
    with pytest.raises(errors.DataError, match=r"no (held-out|training) documents"):
        run.of_model(configure(tiny, one, tmp_path / "out"), SETTINGS)


def test_settings_that_make_no_sense_are_refused(out, tiny):
    for settings in (Settings(tokens=0), Settings(types=-1), Settings(held_out_tokens=10**9)):
        with pytest.raises(errors.ConfigError):
            run.of_run(out, configured(tiny), settings)


def test_damaged_results_are_refused(probed, tiny, tmp_path):
    folder = shutil.copytree(probed, tmp_path / "run")
    for path in (probe_file.path(folder, "probe.h5"), probe_file.directions_path(folder, 1)):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 4
        path.write_bytes(raw)
    with pytest.raises(errors.DataError, match="damaged"):
        probe_file.read(folder)
    with pytest.raises(errors.DataError, match="damaged"):
        probe_file.read_directions(folder, 1)
    with pytest.raises(errors.DataError, match="damaged"):
        run.of_run(folder, configured(tiny), SETTINGS)
    with pytest.raises(errors.MissingError, match="no finished probe"):
        probe_file.read(tmp_path)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


def swap(folder):
    paths = [probe_file.directions_path(folder, layer) for layer in (0, 2)]
    first, last = (path.read_bytes() for path in paths)
    paths[0].write_bytes(last)
    paths[1].write_bytes(first)


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: probe_file.directions_path(folder, 1).unlink(),
        lambda folder: flip(probe_file.directions_path(folder, 2)),
        lambda folder: shutil.rmtree(folder / "probe" / "directions"),
        lambda folder: flip(mean_stream_file.path(folder)),
        swap,
    ],
    ids=["missing", "flipped", "all missing", "mean stream flipped", "swapped"],
)
@pytest.mark.parametrize("memory", [1, None])
def test_what_a_finished_probe_lacks_is_made_again(probed, tiny, tmp_path, harm, memory):
    folder = shutil.copytree(probed, tmp_path / "run")
    harm(folder)
    assert files(folder) != files(probed)
    settings = dataclasses.replace(SETTINGS, memory=memory)
    assert run.of_run(folder, configured(tiny), settings).positions_per_second is None
    assert files(folder) == files(probed)


def test_directions_that_are_made_again_can_be_stopped_and_go_on(probed, tiny, tmp_path):
    folder = shutil.copytree(probed, tmp_path / "run")
    probe_file.directions_path(folder, 1).unlink()
    stop = preemption.StopRequest(600)
    with pytest.raises(errors.InterruptedRun):
        run.of_run(folder, configured(tiny), SETTINGS, AsksAfter(stop, 2), stop)
    with pytest.raises(errors.MissingError) as caught:
        probe_file.read_directions(folder, 1)
    assert f"run the same jaxlens probe {folder} again" in caught.value.hint
    watch = AsksAfter(stop, -1)
    run.of_run(folder, configured(tiny), SETTINGS, watch)
    assert watch.total == probe_file.read(probed).counts["training_positions"]
    assert files(folder) == files(probed)


NAMES = ("PROBE.json", "probe.h5", "mean_stream.h5", "directions/layer-02.h5")


@pytest.mark.parametrize(
    "name", [*NAMES[:2], *(pytest.param(name, marks=pytest.mark.long) for name in NAMES[2:])]
)
@pytest.mark.parametrize(
    "at", [0.6, *(pytest.param(at, marks=pytest.mark.long) for at in (0.0, 0.3, 1.0))]
)
def test_verify_finds_a_flipped_bit_and_names_the_way_back(
    probed, tiny, tmp_path, name, at, capsys
):
    folder = shutil.copytree(probed, tmp_path / "run")
    path = folder / "probe" / name
    raw = bytearray(path.read_bytes())
    raw[int(at * (len(raw) - 1))] ^= 4
    path.write_bytes(raw)
    assert [found for found, _ in verify.verify(folder).damaged] == [f"probe/{name}"]
    told = refused(capsys, 65, "verify", folder)
    what = "probe" if name == "PROBE.json" else "what is named in probe"
    hint = f"hint: remove {what}, then run the same jaxlens probe {folder} again"
    assert told.endswith(hint)
    assert refused(capsys, 65, "repair", folder, "--model", tiny).endswith(hint)
    # What the hint says, helps.
    if name == "PROBE.json":
        shutil.rmtree(folder / "probe")
    else:
        path.unlink()
    run.of_run(folder, configured(tiny), SETTINGS)
    assert files(folder) == files(probed) and verify.verify(folder).ok


def test_verify_finds_files_of_other_probes_and_layers(probed, out, tiny, tmp_path):
    folder = shutil.copytree(probed, tmp_path / "swapped")
    swap(folder)
    probe_file.directions_path(folder, 1).unlink()
    assert dict(verify.verify(folder).damaged) == {
        "probe/directions/layer-00.h5": "is of layer 2",
        "probe/directions/layer-01.h5": "is missing",
        "probe/directions/layer-02.h5": "is of layer 0",
    }
    run.of_run(out, configured(tiny), dataclasses.replace(SETTINGS, seed=1))
    folder = shutil.copytree(probed, tmp_path / "other")
    for name in ("PROBE.json", "mean_stream.h5", "directions/layer-01.h5"):
        shutil.copy(out / "probe" / name, folder / "probe" / name)
    found = dict(verify.verify(folder).damaged)
    assert sorted(found) == [
        "probe/PROBE.json",
        "probe/directions/layer-01.h5",
        "probe/mean_stream.h5",
    ]
    assert found["probe/PROBE.json"] == "is not that of the result beside it"


def test_verify_finds_the_probe_of_another_run(probed, studied, tmp_path):
    folder = shutil.copytree(studied / "trained", tmp_path / "run")
    shutil.copytree(probed / "probe", folder / "probe")
    assert dict(verify.verify(folder).damaged) == {"probe/probe.h5": "is of another run"}


@pytest.mark.parametrize("name", ["probe.h5", "PROBE.json"])
def test_the_hint_of_a_damaged_file_is_what_helps(probed, tiny, tmp_path, name):
    folder = shutil.copytree(probed, tmp_path / "run")
    path = probe_file.path(folder, name)
    if name == "PROBE.json":
        path.write_bytes(b"{")
        named = f"remove {path.parent}, then run the same command"
    else:
        flip(path)
        named = f"remove {path}, then run the same jaxlens probe {folder} again"
    with pytest.raises(errors.DataError, match="damaged") as caught:
        run.of_run(folder, configured(tiny), SETTINGS)
    assert caught.value.hint.startswith(named)
    if name == "PROBE.json":
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    run.of_run(folder, configured(tiny), SETTINGS)
    assert files(folder) == files(probed)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("positions", (0, 0, 0, 0, 5, 7), 10**6),
        ("positions", (1, slice(None), 0, slice(None), 5, 7), -1),
        ("hits", (0, 1, 1, 0, 5, 7), 10**6),
        ("hits", (0, 1, 1, 0, 5, 7), -1),
        ("logp", (0, 1, 3, 0, 5, 7), 1),
        ("logp", (0, 1, 3, 0, 5, 7), -(2**60)),
    ],
)
def test_counts_that_make_no_sense_are_refused(probed, tmp_path, name, place, value):
    folder = shutil.copytree(probed, tmp_path / "run")
    probe = probe_file.read(folder)
    evaluation = probe.evaluation.copy()
    evaluation[place] = value
    forged = probe_file.image(dataclasses.replace(probe, evaluation=evaluation))
    probe_file.path(folder, probe_file.RESULT).write_bytes(forged)
    with pytest.raises(errors.DataError, match=f"its {name} make no sense"):
        probe_file.read(folder)


def test_the_command_line(out, tiny, probed, capsys):
    arguments = ("probe", out, "--model", tiny, "--tokens", "2k", "--held-out-tokens", "600")
    assert run_cli(*arguments, "--set", "devices=1") == 0
    printed = capsys.readouterr().out
    assert "recall at 1" in printed and "h.1" in printed and "positions/s" in printed
    assert files(out) == files(probed)
    assert run_cli(*arguments) == 0
    assert "finished already" in capsys.readouterr().out


def test_the_command_line_refuses(out, tiny, texts, tmp_path, capsys):
    lines = refused(capsys, 2, "probe", out, "--corpus", texts)
    assert "has its own" in lines
    assert "--out" in refused(capsys, 2, "probe", tiny, "--corpus", texts)
    assert "no run" in refused(capsys, 2, "probe", tiny, "--model", tiny, "--out", tmp_path / "x")
    assert "--tokens" in refused(capsys, 2, "probe", out, "--tokens", "many")
    refused(capsys, 66, "probe", tmp_path / "nothing", "--out", tmp_path / "y")
    shutil.rmtree(out / "tokens")
    assert "repair" in refused(capsys, 65, "probe", out, "--model", tiny)


@pytest.mark.long
def test_a_signal_ends_the_command_and_the_next_one_resumes(tiny, texts, tmp_path, probed):
    out = tmp_path / "signalled"
    assert run_cli(*flags(tiny, texts, out)) == 0
    command = [sys.executable, "-m", "jaxlens", "probe", out, "--model", tiny]
    command += ["--tokens", "2k", "--held-out-tokens", "600", "--verbose"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)
    checkpoint = out / "probe" / "PROBE.json"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    stderr = process.communicate()[1].decode()
    assert process.returncode in (0, 75), stderr
    if process.returncode == 75:
        assert "run the same command to resume" in stderr
        assert subprocess.run(list(map(str, command)), check=False).returncode == 0
    assert files(out) == files(probed)
