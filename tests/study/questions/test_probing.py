"""Lines of a study about a probe: the numbers that were planted, with intervals, and refusals."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

from jaxlens import config, errors
from jaxlens.store import probe_file
from jaxlens.store.probe_file import READOUTS, STATISTICS, TARGETS
from jaxlens.study import estimators, inputs, study
from jaxlens.study.questions import probing
from jaxlens.sweep.probe import run as probes
from jaxlens.sweep.probe.spec import Settings
from jaxlens.tally import bins

SETTINGS = Settings(tokens=2_000, held_out_tokens=10_000)
PROBED = ("probe_", "lens_")


def planted(per_group=100, n_layers=3, seed=0):
    """A probe whose recall is known: by layer, readout and target, in 60 groups and 4 bins."""
    rng = np.random.default_rng(seed)
    shape = (len(TARGETS), len(READOUTS), len(STATISTICS), n_layers, 16, 256)
    evaluation = np.zeros(shape, np.int64)
    truth = rng.uniform(0.05, 0.95, (len(TARGETS), len(READOUTS), n_layers))
    truth[0, 0] = [1.0, 0.999, 0.9]  # the own token, by the probe
    groups = rng.choice(256, 60, replace=False)
    n = np.zeros((16, 256), np.int64)
    n[4:8, groups] = per_group // 4
    hits = rng.binomial(n[None, None, None], truth[..., None, None])
    evaluation[:, :, 0] = n
    evaluation[:, :, 1] = hits
    evaluation[:, :, 2] = np.minimum(n, hits + 5)
    evaluation[:, :, 3] = np.rint(-2.0 * (n - hits) * bins.ONE)
    return evaluation, truth


def run_of(path, label=inputs.TRAINED, kind=inputs.TRAINED):
    names = ("input", "h.0", "h.1")
    n_types = np.full(16, 100)
    n_types[7] = 3
    info = inputs.RunInfo(path, label, kind, {}, names)
    return inputs.Inputs(**vars(info), tallies={}, n_types=n_types)


def probe_of(evaluation, **settings):
    n_classes = 10
    held_out = int(evaluation[0, 0, 0, 0].sum())
    return probe_file.Probe(
        evaluation=evaluation,
        outside=np.zeros((len(TARGETS), 16, 256), np.int64),
        class_token=np.arange(n_classes),
        class_count=np.full((len(TARGETS), n_classes), 50),
        layer_names=("input", "h.0", "h.1"),
        counts={"training_positions": 500, "held_out_positions": held_out}
        | {"training_documents": 50, "held_out_documents": 60},
        spec={"run": {}, "probe": {"tokens": 500} | settings},
    )


def only(lines, estimator, layer, stratum="all"):
    (line,) = [x for x in lines if (x.estimator, x.layer, x.stratum) == (estimator, layer, stratum)]
    return line


@pytest.fixture(scope="module")
def lines():
    evaluation, truth = planted()
    return probing.estimate(run_of(None), probe_of(evaluation)), evaluation, truth


def test_shares_are_those_that_were_counted_and_hold_the_truth(lines):
    table, evaluation, truth = lines
    inside, total = 0, 0
    for t, target in enumerate(TARGETS):
        for r, readout in enumerate(READOUTS):
            if (readout, target) == ("lens", "permuted"):
                assert not any(line.estimator == "lens_recall_1_permuted" for line in table)
                continue
            for layer in range(3):
                line = only(table, f"{readout}_recall_1_{target}", layer)
                hits, n = evaluation[t, r, [1, 0], layer].sum((1, 2))
                assert line.estimate == pytest.approx(hits / n)
                assert (line.n, line.clusters) == (n, 60)
                inside += line.low <= truth[t, r, layer] <= line.high
                total += 1
                ten = only(table, f"{readout}_recall_10_{target}", layer)
                assert ten.estimate > line.estimate or line.estimate == 1.0
                logp = only(table, f"{readout}_logp_{target}", layer)
                assert logp.estimate == pytest.approx(-2.0 * (1 - line.estimate), abs=1e-9)
    assert inside >= total - 4  # of 21, five outside would be one in 1,500


def test_a_share_of_one_has_an_interval_of_some_width(lines):
    line = only(lines[0], "probe_recall_1_own", 0)
    assert line.estimate == 1.0 and line.high == 1.0 and 0.9 < line.low < 1.0


def test_the_difference_is_that_of_the_shares(lines):
    table, _, truth = lines
    for t, target in enumerate(TARGETS[:3]):
        for layer in range(3):
            line = only(table, f"probe_minus_lens_recall_1_{target}", layer)
            ours, lens = (only(table, f"{r}_recall_1_{target}", layer) for r in READOUTS)
            assert line.estimate == pytest.approx(ours.estimate - lens.estimate)
            assert line.low < line.estimate < line.high or line.estimate == line.high == 1.0
            wide = abs(line.estimate - (truth[t, 0, layer] - truth[t, 1, layer]))
            assert wide < 2 * (line.high - line.low)
            assert math.isnan(line.p) != line.primary


def log_probabilities(rng, documents, share, correlation, spread):
    """Sums by document of losses that few positions have, and sizes of a heavy tail."""
    sizes = np.rint(np.exp(5 + spread * rng.normal(size=documents))).astype(int) + 20
    k = (1 - correlation) / correlation
    misses = rng.binomial(sizes, rng.beta(share * k, (1 - share) * k, documents))
    losses = rng.gamma(np.maximum(misses, 1e-9) * 0.8, 5 / 0.8) * (misses > 0)
    return -losses, sizes, misses


def log_probability_coverage(case, replicas):
    """Of the intervals that there are, and their share."""
    rng, covered, without = np.random.default_rng(0), 0, 0
    for _ in range(replicas):
        sums, sizes, misses = log_probabilities(rng, *case)
        group = rng.integers(0, 256, len(sizes))
        parts = [np.bincount(group, part, 256) for part in (sums * bins.ONE, sizes, misses)]
        of_groups = [np.rint(part).astype(np.int64)[None] for part in parts]
        (one,) = probing.mean_log_probability(*of_groups)
        without += math.isnan(one.low)
        covered += one.low <= -5 * case[1] <= one.high
    return covered / max(1, replicas - without), without / replicas


@pytest.mark.parametrize("case", [(40, 0.2, 0.1, 1.0), (200, 0.02, 0.02, 0.3)], ids=str)
def test_means_of_log_probabilities_cover_what_was_planted(case):
    covered, without = log_probability_coverage(case, 300)
    assert covered >= 0.91 and without < 0.05


def test_means_that_few_groups_decide_have_no_interval():
    _, without = log_probability_coverage((40, 0.002, 0.1, 0.3), 100)
    assert without == 1.0


@pytest.mark.long
@pytest.mark.parametrize("documents", [40, 200])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.6])
@pytest.mark.parametrize("correlation", [0.02, 0.1])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_means_of_log_probabilities_cover(documents, share, correlation, spread):
    covered, without = log_probability_coverage((documents, share, correlation, spread), 1_000)
    # The worst: a heavy tail of sizes, and documents of which few hold all that is not read.
    assert covered >= 0.91 or without > 0.9


def test_bins_of_rarity_add_up_and_need_types(lines):
    table = lines[0]
    strata = {line.stratum for line in table}
    assert strata == {"all", *(inputs.rarity_label(i) for i in (4, 5, 6))}  # of 7 three types
    line = only(table, "probe_recall_1_previous", 2)
    n = [only(table, "probe_recall_1_previous", 2, inputs.rarity_label(i)).n for i in (4, 5, 6)]
    assert [3 * line.n // 4] == [sum(n)]


def test_contrasts_subtract_the_mean_of_fresh_weights():
    (one, _), (two, _), (three, _) = (planted(seed=0), planted(seed=0), planted(seed=0))
    two[:, :, 1] //= 2
    three[:, :, 1] //= 4
    nulls = [
        (run_of(None, f"random-init (seed {s})", inputs.RANDOM_INIT), probe_of(evaluation))
        for s, evaluation in enumerate((two, three))
    ]
    nulls.append((run_of(None, "shuffled (seed 1)", inputs.SHUFFLED), probe_of(one)))
    nulls.append((run_of(None, "random-init (seed 9)", inputs.RANDOM_INIT), None))
    contrasts = probing.contrasts(run_of(None), probe_of(one), nulls)
    assert {line.null for line in contrasts} == {"random-init x 2"}
    for layer in range(3):
        line = only(contrasts, "probe_recall_1_own", layer)
        hits = [x[0, 0, 1, layer].sum() for x in (one, two, three)]
        total = one[0, 0, 0, layer].sum()
        assert line.estimate == pytest.approx((hits[0] - (hits[1] + hits[2]) / 2) / total)
        assert line.low > 0 and line.p < 1e-6
        assert line.meaning.endswith("trained minus null")
    assert probing.contrasts(run_of(None), None, nulls) == []


def test_nulls_of_other_settings_are_refused():
    evaluation, _ = planted()
    null = run_of("runs/null", "random-init (seed 1)", inputs.RANDOM_INIT)
    with pytest.raises(errors.ConfigError, match="tokens 501") as caught:
        probing.contrasts(
            run_of("runs/a"), probe_of(evaluation), [(null, probe_of(evaluation, tokens=501))]
        )
    assert "same options" in caught.value.hint


@pytest.fixture(scope="module")
def probed(studied, tiny, tmp_path_factory):
    folder = shutil.copytree(studied, tmp_path_factory.mktemp("study") / "runs")
    configured = config.load([], {}, {"model.path": str(tiny), "devices": 1})
    for name in ("trained", "random-1", "random-2"):
        probes.of_run(folder / name, configured, SETTINGS)
    return folder


def test_a_study_has_lines_of_every_estimator_for_runs_that_were_probed(probed):
    nulls = [probed / name for name in ("random-1", "random-2", "shuffled")]
    results = study.study(probed / "trained", nulls).results
    ours = [line for line in results if line.estimator.startswith(PROBED)]
    names = {name for name in estimators.ESTIMATORS if name.startswith(PROBED)}
    assert {line.estimator for line in ours} == names
    assert {line.run for line in ours} == {
        "trained",
        "random-init (seed 1)",
        "random-init (seed 2)",
    }
    # Effectively too few groups for means of log-probabilities.
    for name in (name for name in names if "logp" not in name):
        assert any(math.isfinite(line.low) for line in ours if line.estimator == name), name
    assert any(line.null == "random-init x 2" for line in ours)
    (primary,) = (line for line in ours if line.primary)
    assert (primary.estimator, primary.stratum) == (probing.PRIMARY, "all")
    everything = {line.stratum for line in ours}
    assert "all" in everything


def test_a_probe_of_another_run_is_refused(probed, tmp_path):
    folder = shutil.copytree(probed / "trained", tmp_path / "run")
    shutil.rmtree(folder / "probe")
    shutil.copytree(probed / "random-1" / "probe", folder / "probe")
    with pytest.raises(errors.DataError, match="another run") as caught:
        study.study(folder)
    assert "jaxlens probe" in caught.value.hint


def test_a_damaged_probe_is_refused(probed, tmp_path):
    folder = shutil.copytree(probed / "trained", tmp_path / "run")
    path = probe_file.path(folder, probe_file.RESULT)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(errors.DataError, match="damaged"):
        study.study(folder)


def test_a_result_survives_its_file(tmp_path):
    evaluation, _ = planted()
    probe = probe_of(evaluation)
    (tmp_path / "probe").mkdir()
    probe_file.path(tmp_path, probe_file.RESULT).write_bytes(probe_file.image(probe))
    again = probe_file.read(tmp_path)
    for field in dataclasses.fields(probe_file.Probe):
        ours, theirs = (getattr(one, field.name) for one in (probe, again))
        assert np.array_equal(ours, theirs) if isinstance(ours, np.ndarray) else ours == theirs
