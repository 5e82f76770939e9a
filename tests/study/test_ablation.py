"""Lines of the ablation: planted losses of known size, by arm, layer, rarity and lag."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

from jaxlens import config, errors
from jaxlens.store import ablation_file, ablation_parts, layout
from jaxlens.study import estimators, inputs, readings, study
from jaxlens.study.estimators.ablation import DIFFERENCES
from jaxlens.study.questions import ablation, ablation_verdict

LAYERS = (0, 1)
MEAN = {
    "probe": (2.0, 1.5),
    "embedding": (2.0, 0.1),
    "foreign": (0.3, 0.1),
    "random": (0.1, 0.1),
    "random_plane": (0.2, 0.2),
    "foreign_probe": (0.4, 0.3),
    "random_shift": (0.2, 0.3),
    "whole": (3.0, 2.5),
    "rest": (1.5, 0.7),
}
"""True loss of each arm at each layer; the copy gain is 4 nat."""
GAIN = 4.0


def variables(arms, n=120, seed=0, lags=(16, 64)):
    random = np.random.default_rng(seed)
    lag = np.resize(lags, n)
    size = lag - 1
    own = random.standard_t(3, n)[:, None, None] * 0.1
    truth = np.array([MEAN[arm] for arm in arms])
    made = {
        "loss": truth + own + random.normal(0, 1, (n, len(arms), 2)) / np.sqrt(size)[:, None, None],
        "clean": np.repeat(-1 + random.normal(0, 0.1, (n, 1)), len(arms), 1),
        "earlier": np.repeat(-1 - GAIN + random.normal(0, 0.1, (n, 1)), len(arms), 1),
    }
    made = {name: value.astype(np.float32) for name, value in made.items()}
    whole = {
        "n_targets": np.repeat(size[:, None], len(arms), 1),
        "rarity": np.resize([6, 6, 9, 9], n),
        "lag": lag,
        "cluster": np.arange(n),
    }
    whole |= {name: np.zeros(n) for name in ("group", "source", "target", "copied")}
    return made | {name: value.astype(np.int32) for name, value in whole.items()}


def write(run_dir, arms, materials=None, change=None):
    """An ablation of a run, planted."""
    spec = layout.read_spec(run_dir).document
    own = {name: spec[name] for name in ("model", "corpus", "null")} | (change or {})
    raw = config.canonical(own | {"ablation": {"arms": list(arms), "layers": list(LAYERS)}})
    folder = run_dir / ablation_file.FOLDER
    ablation_parts.begin(folder, raw)
    made = materials or {"blocks": variables(arms), "copies": variables(arms, seed=1, lags=(5, 40))}
    notes = ablation_file.Notes(1, {})
    ablation_file.write(folder, raw, made, ["input", "h.0"], np.zeros((2, 3), np.float32), notes)


@pytest.fixture
def run_dir(studied, tmp_path):
    return shutil.copytree(studied / "trained", tmp_path / "trained")


def info_of(run_dir):
    return inputs.run_info(study.reader.open_run(run_dir))


def lines_of(run_dir):
    return ablation.estimate(info_of(run_dir))


def pick(lines, name, layer=None, stratum="all"):
    (found,) = [x for x in lines if (x.estimator, x.layer, x.stratum) == (name, layer, stratum)]
    return found


def test_a_run_without_an_ablation_has_no_lines(run_dir):
    assert lines_of(run_dir) == [] and ablation_verdict.verdict([]) == ""


def test_every_arm_is_that_which_was_planted(run_dir):
    write(run_dir, ablation_file.ARMS)
    lines = lines_of(run_dir)
    for material in ablation_file.MATERIALS:
        gain = pick(lines, f"ablation_gain_{material}")
        assert gain.low < GAIN < gain.high and gain.high - gain.low < 0.1
        for arm, truth in MEAN.items():
            for layer in LAYERS:
                loss = pick(lines, f"ablation_loss_{material}_{arm}", layer)
                assert abs(loss.estimate - truth[layer]) < 0.15 and loss.clusters == 120
                assert loss.low < loss.estimate < loss.high and loss.high - loss.low < 0.3
                share = pick(lines, f"ablation_share_{material}_{arm}", layer)
                assert share.estimate == pytest.approx(loss.estimate / gain.estimate, rel=1e-6)


def test_differences_are_paired_and_tested(run_dir):
    write(run_dir, ablation_file.ARMS)
    lines = lines_of(run_dir)
    for arm, other in DIFFERENCES:
        for layer in LAYERS:
            line = pick(lines, f"ablation_difference_blocks_{arm}_{other}", layer)
            truth = MEAN[arm][layer] - MEAN[other][layer]
            assert abs(line.estimate - truth) < 0.1
            # What the sequences share cancels: the interval is that of the noise alone.
            assert line.high - line.low < 0.12
            assert (line.p < 1e-3) == (abs(truth) > 0.1)


def test_the_sum_of_disjoint_arms_is_reported_beside_the_whole(run_dir):
    write(run_dir, ablation_file.ARMS)
    lines = lines_of(run_dir)
    for layer, (own, rest, whole) in enumerate(
        zip(*(MEAN[arm] for arm in ("probe", "rest", "whole")), strict=True)
    ):
        total = pick(lines, "ablation_sum_blocks", layer)
        assert abs(total.estimate - own - rest) < 0.3
        apart = pick(lines, "ablation_sum_minus_whole_blocks", layer)
        assert abs(apart.estimate - (own + rest - whole)) < 0.2
        assert (apart.low > 0) == (own + rest > whole) and (apart.high < 0) == (own + rest < whole)


def test_without_a_probe_the_embedding_is_the_own_direction(run_dir):
    arms = tuple(arm for arm in ablation_file.ARMS if arm not in ablation_file.OF_PROBE)
    write(run_dir, arms)
    lines = lines_of(run_dir)
    expected = MEAN["embedding"][0] + MEAN["rest"][0]
    assert abs(pick(lines, "ablation_sum_blocks", 0).estimate - expected) < 0.3
    assert not [x for x in lines if "probe" in x.estimator]


def test_strata_are_bins_of_rarity_and_lags(run_dir):
    made = variables(("whole",), n=240)
    rare = made["rarity"] == 9
    made["loss"][rare] += 1
    write(
        run_dir,
        ("whole",),
        {
            "blocks": made,
            "copies": made | {"lag": np.resize([1, 20, 100, 300], 240).astype(np.int32)},
        },
    )
    lines = lines_of(run_dir)
    name = "ablation_loss_blocks_whole"
    common, rarer = (
        pick(lines, name, 0, inputs.rarity_label(number)).estimate for number in (6, 9)
    )
    assert abs(rarer - common - 1) < 0.15
    strata = {x.stratum for x in lines if x.estimator == name}
    assert strata == {"all", "rarity 6 to 7 nat", "rarity 9 to 10 nat", "lag 16", "lag 64"}
    strata = {x.stratum for x in lines if x.estimator == "ablation_gain_copies"}
    lags = {"lag 1 to 15", "lag 16 to 63", "lag 64 to 255", "lag 256 or more"}
    assert strata == {"all", "rarity 6 to 7 nat", "rarity 9 to 10 nat"} | lags


def test_sequences_without_an_arm_are_left_out_of_it_alone(run_dir):
    made = variables(("embedding", "foreign"))
    half = np.arange(120) % 2 == 0
    made["loss"][half, 1], made["n_targets"][half, 1] = np.nan, 0
    made["clean"][half, 1] = made["earlier"][half, 1] = np.nan
    made["loss"][half, 0] += 5
    write(run_dir, ("embedding", "foreign"), {"blocks": made})
    lines = lines_of(run_dir)
    assert pick(lines, "ablation_loss_blocks_embedding", 0).clusters == 120
    foreign = pick(lines, "ablation_loss_blocks_foreign", 0)
    assert foreign.clusters == 60 and abs(foreign.estimate - 0.3) < 0.1
    difference = pick(lines, "ablation_difference_blocks_embedding_foreign", 0)
    assert difference.clusters == 60 and abs(difference.estimate - 1.7) < 0.1


def test_few_sequences_give_numbers_without_intervals(run_dir):
    write(run_dir, ("whole",), {"blocks": variables(("whole",), n=10)})
    line = pick(lines_of(run_dir), "ablation_loss_blocks_whole", 0)
    assert math.isfinite(line.estimate) and math.isnan(line.low) and "too few" in line.note


def test_a_gain_that_may_be_0_has_no_share(run_dir):
    made = variables(("whole",))
    made["earlier"] = made["clean"] + np.random.default_rng(3).normal(0, 1, (120, 1)).astype("f4")
    write(run_dir, ("whole",), {"blocks": made})
    line = pick(lines_of(run_dir), "ablation_share_blocks_whole", 0)
    assert math.isnan(line.low) and "denominator" in line.note


def test_an_ablation_of_another_model_is_refused(run_dir):
    write(run_dir, ("whole",), change={"model": {"sha256": "0"}})
    with pytest.raises(errors.DataError, match="of another model than its run"):
        lines_of(run_dir)


def test_a_damaged_one_is_no_absent_one(run_dir):
    write(run_dir, ("whole",))
    path = run_dir / ablation_file.FOLDER / ablation_file.RESULT
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(errors.DataError):
        lines_of(run_dir)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_verdict_follows_the_sign(run_dir, sign):
    arms = ("embedding", "foreign", "whole")
    made = variables(arms)
    made["loss"][:, 0] = made["loss"][:, 1] + sign
    write(run_dir, arms, {"blocks": made})
    lines = lines_of(run_dir)
    said = ablation_verdict.verdict(lines)
    line = pick(lines, "ablation_difference_blocks_embedding_foreign", 0)
    word = "more" if sign > 0 else "less"
    assert f"costs the copy {word} than replacing another" in readings.direction(line)
    more, less = ("layers 0 to 1", "no layer")[::sign]
    pair = "Replacing the own embedding costs more than replacing another token's embedding"
    assert f"{pair} at {more}, and less at {less}" in said
    assert "the copy gain is 4" in said and "costs at least half of it at layers 0 to 1." in said
    # What the interval does not show is not said.
    flat = [dataclasses.replace(x, low=-1.0, high=1.0) for x in lines_of(run_dir)]
    said = ablation_verdict.verdict(flat)
    assert f"{pair} at no layer, and less at no layer" in said
    assert "costs at least half of it at no layer." in said


def test_what_has_no_interval_is_said_to_be_unjudged_and_not_to_be_nothing(run_dir):
    arms = ("embedding", "foreign", "whole")
    write(run_dir, arms, {"blocks": variables(arms, n=6)})
    said = ablation_verdict.verdict(lines_of(run_dir))
    assert "whole stream costs at least half of it cannot be judged: too few" in said
    assert "Whether replacing the own embedding costs more than" in said and "no layer" not in said
    shutil.rmtree(run_dir / ablation_file.FOLDER)
    write(run_dir, arms[:2])
    said = ablation_verdict.verdict(lines_of(run_dir))
    assert "whole stream" not in said


def test_the_mean_to_mid_depth_needs_all_of_its_layers(run_dir, monkeypatch):
    arms = ("embedding", "foreign")
    write(run_dir, arms)
    deeper = dataclasses.replace(info_of(run_dir), layer_names=tuple(f"h.{i}" for i in range(5)))
    lines = {x.estimator: x for x in ablation.estimate(deeper)}
    line = lines["ablation_early_blocks_embedding_foreign"]
    assert math.isnan(line.estimate) and line.note == "needs the losses at all layers from 1 to 2"
    assert line.primary and math.isnan(line.low)
    (other,) = ablation.absent(deeper, list(lines.values()))
    assert other.note.startswith("the ablation lacks") and line.estimator != other.estimator


def test_layers_that_follow_each_other_are_a_range(run_dir):
    write(run_dir, ("whole",))
    line = pick(lines_of(run_dir), "ablation_loss_blocks_whole", 0)
    for numbers, words in (
        ((), "no layer"),
        ((3,), "layer 3"),
        ((0, 1, 2, 5, 7, 8), "layers 0 to 2, 5, 7 to 8"),
    ):
        lines = [dataclasses.replace(line, layer=number) for number in numbers]
        assert ablation_verdict.layer_names(lines) == words


def test_a_study_has_the_lines_of_the_run_and_of_its_nulls(studied, tmp_path):
    folders = [shutil.copytree(studied / n, tmp_path / n) for n in ("trained", "random-1")]
    for folder in folders:
        write(folder, ("embedding", "foreign", "whole"))
    done = study.study(folders[0], folders[1:])
    runs = {x.run for x in done.results if x.estimator == "ablation_loss_blocks_whole"}
    assert runs == {"trained", "random-init (seed 1)"}
    assert "repeated random blocks the copy gain" in done.verdicts["Q3"]
    for line in done.results:
        assert estimators.ESTIMATORS[line.estimator].unit == line.unit
    without = study.study(studied / "trained").verdicts["Q3"]
    assert "copy gain" not in without
