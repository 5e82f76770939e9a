"""The constant prediction of each layer, and what the study makes of it from the rows of a run."""

import math
import shutil

import numpy as np
import oracle
import pytest

from jaxlens import config, errors, models
from jaxlens.models import loading
from jaxlens.store import layout, mean_stream_file, probe_file, reader
from jaxlens.study import inputs
from jaxlens.study.questions import constant_predictions
from jaxlens.study.stats import shape
from jaxlens.sweep.probe import run
from jaxlens.sweep.probe.spec import Settings
from jaxlens.tally import bins

SETTINGS = Settings(tokens=1_000, held_out_tokens=300)


def configured(model):
    return config.load([], {}, {"model.path": str(model), "devices": 1})


@pytest.fixture(scope="module")
def probed(tiny, swept, tmp_path_factory):
    folder = shutil.copytree(swept, tmp_path_factory.mktemp("means") / "run")
    run.of_run(folder, configured(tiny), SETTINGS)
    return folder


def expected_log_p(folder, model):
    """By the float64 oracle, from the means that the probe has kept."""
    found = loading.load_checkpoint(model)
    unembed = models.unembed(found.params, found.architecture)
    temperatures = layout.read_spec(folder).document["lens"]["temperatures"]
    centres = np.stack(
        [probe_file.read_directions(folder, layer).centre for layer in range(len(temperatures))]
    )
    logits = oracle.logits(centres[:, None, None], unembed)[:, 0, 0]
    return oracle.log_softmax(logits / np.array(temperatures)[:, None])


def test_it_is_the_lens_of_the_means_at_the_temperature_of_the_layer(probed, tiny):
    found, expected = mean_stream_file.read_of_run(probed), expected_log_p(probed, tiny)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(1), 1, rtol=1e-5)
    assert np.abs(np.diff(expected, axis=0)).max() > 0.1


def test_a_finished_probe_without_it_gets_it(probed, tiny, tmp_path):
    folder = shutil.copytree(probed, tmp_path / "run")
    path = mean_stream_file.path(folder)
    before = path.read_bytes()
    path.unlink()
    assert mean_stream_file.read_of_run(folder) is None
    assert inputs.load(folder).mean_stream is None
    assert run.of_run(folder, configured(tiny), SETTINGS).positions_per_second is None
    assert path.read_bytes() == before


def test_a_damaged_one_and_that_of_another_probe_are_refused(probed, tmp_path):
    folder = shutil.copytree(probed, tmp_path / "run")
    path = mean_stream_file.path(folder)
    log_p = mean_stream_file.read_of_run(folder)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    with pytest.raises(errors.DataError, match="damaged") as caught:
        mean_stream_file.read_of_run(folder)
    assert f"remove {path}, then run the same jaxlens probe {folder}" in caught.value.hint
    path.write_bytes(mean_stream_file.image(log_p, "0" * 64))
    with pytest.raises(errors.DataError, match="of another probe"):
        mean_stream_file.read_of_run(folder)
    spec_hash = config.spec_hash(config.canonical(probe_file.read(folder).spec))
    path.write_bytes(mean_stream_file.image(log_p[:, :-1], spec_hash))
    with pytest.raises(errors.DataError, match="damaged: log_p is float32"):
        mean_stream_file.read_of_run(folder)


def test_the_study_has_what_the_rows_give(probed, tiny):
    log_p = expected_log_p(probed, tiny)
    with reader.open_run(probed) as rows:
        names = ("position", "next_token", "document", "entropy", "kl_final_matched")
        columns = {name: np.asarray(rows[name][:]) for name in names}
        group = bins.group_of(rows.corpus.documents.hash)[columns["document"]]
    real = columns["position"] > 0
    follows = real & (columns["next_token"].astype(int) >= 0)
    surprisal = -log_p[:, columns["next_token"][follows]]
    found = inputs.load(probed)
    assert found.mean_stream.count.tolist() == np.bincount(group[follows], minlength=256).tolist()
    lines = {(r.estimator, r.layer): r for r in constant_predictions.estimate(found)}
    entropy = columns["entropy"][real][:, -1].mean()
    distance = surprisal.mean(1) - entropy
    for layer, value in enumerate(distance):
        line = lines["mean_stream_kl_final", layer]
        assert line.estimate == pytest.approx(value, abs=1e-4)
        assert math.isnan(line.low) or line.low < value < line.high
    curve = columns["kl_final_matched"][real].mean(0)
    share = lines["mean_stream_share", None].estimate
    assert share == pytest.approx((curve[0] - distance[1]) / (curve[0] - curve[1]), abs=1e-3)
    curve[0] = min(curve[0], distance[1])
    beyond = lines["jump_share_beyond_mean_stream", None].estimate
    assert beyond == pytest.approx(float(shape.jump_share(curve)), abs=1e-3)


def test_documents_that_do_not_count_are_left_out(probed):
    with reader.open_run(probed) as rows:
        n = rows.corpus.documents.hash.size
    some = np.arange(n) % 2 == 0
    halves = [inputs.load(probed, mask).mean_stream for mask in (some, ~some)]
    whole = inputs.load(probed).mean_stream
    np.testing.assert_array_equal(halves[0].total + halves[1].total, whole.total)
    np.testing.assert_array_equal(halves[0].count + halves[1].count, whole.count)
    assert halves[0].count.sum() and halves[1].count.sum()


def test_without_rows_or_probe_the_lines_say_what_they_need(swept, studied):
    for folder in (swept, studied / "trained"):
        every = constant_predictions.estimate(inputs.load(folder))
        lines = [r for r in every if "mean_stream" in r.estimator]
        assert len(lines) == 3 and {r.note for r in lines} == {constant_predictions.NO_MEAN_STREAM}
    null = constant_predictions.estimate(inputs.load(studied / "random-1"))
    assert {r.note for r in null} == {constant_predictions.NOT_CALIBRATED}
