"""Every sentence about a direction, on rows planted with it, with its opposite, and without."""

import dataclasses
import math

import numpy as np
import pytest
from study import signs

from jaxlens.study import positions, readings, sentences
from jaxlens.study.questions import crossed, induction
from jaxlens.study.report import copying, discarding, primaries, rarity, series
from jaxlens.study.stats import multiplicity

SIGNS = (1, -1, 0)

# What the rows of sign 1 were made to do, and those of sign -1, in words that only tests have.
PLANTED = {
    "jump_share_kl_final_matched": ("larger share", "smaller share"),
    "excess_slope_same_type": ("rarer tokens are kept more", "rarer tokens are kept less"),
    "crossed_rarity": ("rarer tokens are kept more", "rarer tokens are kept less"),
    "crossed_rarity_squared": ("rises with rarity", "falls with rarity"),
    "within_type_surprisal": ("kept less", "kept more"),
    "retrieval_depth_adjusted_10": ("later", "earlier"),
    "scramble_recover": ("rises and falls again more", "rises and falls again less"),
    "copied_within_type": ("copied less often", "copied more often"),
    "probe_minus_lens_recall_1_own": (
        "a linear probe finds the own token",
        "the lens finds the own token",
    ),
    "ablation_early_blocks_embedding_foreign": (
        "costs the copy more than replacing another",
        "costs the copy less than replacing another",
    ),
    "ablation_early_blocks_probe_random_shift": (
        "costs the copy more than a random shift",
        "costs the copy less than a random shift",
    ),
    "partial_correlation_surprisal": ("kept less", "kept more"),
    "partial_correlation_rarity": ("smaller ranks", "greater ranks"),
}


@pytest.fixture(scope="module")
def studies():
    return {sign: signs.study(sign) for sign in SIGNS}


def line(study, estimator):
    """The line that verdicts speak of."""
    at = (None, study.run.middle)
    found = [r for r in study.results if r.estimator == estimator and r.layer in at]
    if estimator == "jump_share_kl_final_matched":  # its sign is that of the difference
        return next(r for r in found if r.null.startswith("random-init"))
    found = [r for r in found if r.primary] or [r for r in found if not r.null]
    return next(r for r in found if r.run == "trained" and r.stratum == "all")


@pytest.mark.parametrize("estimator", PLANTED)
def test_what_a_sign_says_is_what_was_planted(studies, estimator):
    more, less = PLANTED[estimator]
    for sign, said in ((1, more), (-1, less)):
        found = line(studies[sign], estimator)
        assert said in readings.direction(found), (sign, found.estimate)
        opposite = less if said == more else more
        assert opposite not in readings.direction(found)
    assert readings.direction(line(studies[0], estimator)).startswith("no direction")


def test_every_estimator_with_a_direction_is_planted_here():
    # The other ones of an ablation are planted in test_ablation.py.
    ablated = {name for name in readings.READINGS if name.startswith("ablation_")} - set(PLANTED)
    assert set(readings.READINGS) - ablated == {
        *PLANTED,
        "twins_gain",
        "twins_depth_difference_10",
    }


@pytest.mark.parametrize("sign", SIGNS)
def test_a_verdict_says_the_planted_direction_and_not_the_other(studies, sign):
    study = studies[sign]
    for estimator in PLANTED:
        if estimator.startswith("partial_correlation"):
            continue  # numbers alone
        found = line(study, estimator)
        verdict = study.verdicts[found.question]
        assert f"{found.estimate:.3g}" in verdict
        reading = readings.READINGS[estimator]
        if sign == 0:
            assert reading.above not in verdict and reading.below not in verdict
        else:
            right, wrong = (reading.above, reading.below)[::sign]
            assert right in verdict and wrong not in verdict
        assert readings.direction(found) in verdict


def test_a_verdict_of_preservation_says_what_the_null_runs_have(studies):
    study = studies[1]
    (null,) = study.nulls
    for estimator in ("excess_slope_same_type", "within_type_surprisal"):
        (found,) = (
            r
            for r in study.results
            if (r.estimator, r.run, r.layer) == (estimator, null.label, null.middle)
            and r.stratum == "all"
        )
        value = readings.format_number(found)
        assert f"In {null.label} it is {value}." in study.verdicts["Q2"]
        assert math.isfinite(found.low) and abs(found.estimate) < abs(
            line(study, estimator).estimate
        )


def test_a_verdict_of_crossed_effects_says_what_null_runs_have_or_why_there_is_nothing(studies):
    study = studies[1]
    (null,) = study.nulls

    def at_mid_depth(run):
        return [
            sentences.find(study.results, name, layer=run.middle, run=run.label)
            for name in crossed.NAMES
        ]

    two = [readings.format_number(found) for found in at_mid_depth(null)]
    assert f"In {null.label} the two are {two[0]} and {two[1]}." in study.verdicts["Q2"]
    n = at_mid_depth(study.run)[0].n
    assert f"On {n:,} sampled positions" in study.verdicts["Q2"]
    against = {r.estimator: r for r in study.results if r.null == "random-init x 1"}
    for name, ours, theirs in zip(
        crossed.NAMES, at_mid_depth(study.run), at_mid_depth(null), strict=True
    ):
        assert math.isclose(against[name].estimate, ours.estimate - theirs.estimate)
        assert against[name].low > 0 and against[name].n == n
    without = dataclasses.replace(study.run, positions=None)
    lines = crossed.estimate(without) + crossed.contrasts(study.run, [study.run, without])
    assert {line.note for line in lines} == {positions.NO_ROWS}
    assert len(lines) == 2 * (study.run.n_layers + 1)
    assert crossed.sentences(lines, without, [null]) == [
        f"The {readings.READINGS['crossed_rarity'].label} cannot be estimated: {positions.NO_ROWS}."
    ]


@pytest.mark.parametrize("sign", SIGNS)
def test_a_row_of_the_figure_of_primaries_lies_on_the_side_that_its_label_names(studies, sign):
    study = studies[sign]
    (plot,) = primaries.figures(study)
    (panel,) = plot.panels
    (curve,) = panel.curves
    assert len(panel.rows) == 5
    for row, value, found in zip(panel.rows, curve.values, primaries.lines(study), strict=True):
        words, label = " ".join(row.split()), f"{found.question} {readings.label(found)}"
        assert words.startswith(label)
        said = words[len(label) :]
        expected = readings.NO_DIRECTION if sign == 0 else PLANTED[found.estimator][sign < 0]
        assert expected in said
        assert sign == 0 or math.copysign(1, value) == sign
    # A label names a quantity: no verb of a direction.
    for reading in readings.READINGS.values():
        claims = {"lowers", "raises", "later", "earlier", "more", "less", "greater", "smaller"}
        assert not claims & set(reading.label.split())


def test_a_finding_in_plain_words_agrees_with_its_judgement(studies):
    for sign, study in studies.items():
        for found in primaries.lines(study):
            words = readings.finding(found)
            assert f"{found.estimate:.3g}" in words
            said = PLANTED[found.estimator]
            if sign:
                assert found.judgement == multiplicity.LARGER
                words = words.lower()
                assert said[sign < 0] in words and said[sign > 0] not in words
            else:
                # Few types make the interval of a slope over types wide.
                assert found.judgement in (multiplicity.SMALLER, multiplicity.UNDECIDED)
                undecided = found.judgement == multiplicity.UNDECIDED
                none = "Undecided, even the direction" if undecided else "No effect that matters"
                assert words.startswith(none)


def test_a_finding_between_and_without_numbers_claims_no_more_than_there_is(studies):
    found = line(studies[1], "retrieval_depth_adjusted_10")
    small = dataclasses.replace(found, low=0.01, high=0.05, judgement=multiplicity.SMALLER)
    assert "later than their controls, but by too little to matter" in readings.finding(small)
    open_ = dataclasses.replace(found, low=0.01, judgement=multiplicity.UNDECIDED)
    assert "later than their controls; whether by enough" in readings.finding(open_)
    both = dataclasses.replace(found, low=-0.2, judgement=multiplicity.UNDECIDED)
    assert readings.finding(both).startswith("Undecided, even the direction")
    none = dataclasses.replace(
        found, estimate=math.nan, low=math.nan, high=math.nan, note="why; and more"
    )
    none = dataclasses.replace(none, judgement=multiplicity.NOT_ESTIMABLE)
    assert readings.finding(none).endswith("copies minus controls at equal covariates (why).")
    bare = dataclasses.replace(none, estimate=0.3)
    assert "later" not in readings.finding(bare)
    assert readings.direction(bare) == readings.NO_INTERVAL
    # A number stands beside it: it was estimated, and not judged.
    assert readings.judgement(bare) == "not judged"
    assert readings.judgement(none) == "not estimable"
    assert readings.judgement(found) == "large enough to matter"


def test_entropy_at_mid_depth_is_called_what_it_is(studies):
    assert "less certain than at the last layer" in studies[1].verdicts["Q0"]
    assert "less entropy than at the last layer" in studies[-1].verdicts["Q0"]
    assert not {"certain", "less entropy"} & set(studies[0].verdicts["Q0"].split())


def panel(plots, name, place):
    (found,) = (plot for plot in plots if plot.name == name)
    return found.panels[place], found.caption


@pytest.mark.parametrize("sign", (1, -1))
def test_captions_that_name_a_side_are_right_about_it(studies, sign):
    source = series.Source(studies[sign])
    middle = studies[sign].run.middle
    figures = [*discarding.figures(source), *rarity.figures(source), *copying.figures(source)]
    slopes, caption = panel(figures, "slopes", 0)
    assert "above 0: rarer tokens are kept more" in caption
    assert math.copysign(1, slopes.curves[0].values[middle]) == sign
    slopes, caption = panel(figures, "slopes", 1)
    assert "below 0: surprising ones are kept more" in caption
    assert math.copysign(1, slopes.curves[0].values[middle]) == sign
    excess, caption = panel(figures, "excess", 0)
    assert "above 0, more of the input is kept" in caption
    assert math.copysign(1, np.nanmean(excess.curves[0].values)) == sign
    later, caption = panel(figures, "retrieval", 0)
    assert "right of 0, copies are retrieved later" in caption
    assert math.copysign(1, later.curves[0].values[-1]) == sign
    copied, caption = panel(figures, "copied", 0)
    assert "below 0: tokens that are kept are copied more often" in caption
    assert math.copysign(1, copied.curves[0].values[middle]) == sign
    nearer, caption = panel(figures, "nearer", 0)
    assert "nearer to the last layer" in caption
    kl_final, kl_input = (source.along(f"mean_kl_{n}", "trained")[0] for n in ("final", "input"))
    np.testing.assert_array_equal(nearer.curves[0].values > 0.5, kl_final < kl_input)
    coming, caption = panel(figures, "nearer", 1)
    assert "moves nearer to the output" in caption
    steps = np.diff(kl_final)
    np.testing.assert_array_equal(coming.curves[0].values[1:] > 0.5, steps < 0)


def test_planted_copies_are_called_better_or_worse_by_their_sign(studies):
    of = studies[0].run
    rng = np.random.default_rng(0)
    for sign, words in ((1, "better"), (-1, "worse"), (0, "no direction")):
        control = rng.integers(40, 60, (300, signs.LAYERS))
        copy = rng.integers(40, 60, (300, signs.LAYERS)) if sign == 0 else control * 2**-sign
        pairs = induction.Pairs(
            copy.astype(int), control, np.arange(300) % 60, np.zeros(300, int), np.full(300, 16)
        )
        assert words in induction.verdict(induction.estimate(of, pairs))


def test_planted_copies_that_are_never_retrieved_count_as_one_layer_too_late(studies):
    """Copies arrive at the last layer or never; of those that arrive alone, none would be late."""
    of = studies[0].run
    arrives = np.arange(200) % 2 == 0
    ranks = np.full((200, signs.LAYERS), 50)
    ranks[arrives, -1] = 3
    always = np.full((200, signs.LAYERS), 50)
    always[:, -1] = 3
    sequence = np.arange(200) % 40
    zeros = np.zeros(200, int)
    for copy, control, words in ((ranks, always, "later"), (always, ranks, "earlier")):
        pairs = induction.Pairs(copy, control, sequence, zeros, zeros + 16)
        lines = induction.estimate(of, pairs)
        (found,) = (
            r for r in lines if r.estimator == "twins_depth_difference_10" and r.stratum == "all"
        )
        layer = 1 / (signs.LAYERS - 1)
        assert math.isclose(found.estimate, (0.5 if words == "later" else -0.5) * layer)
        assert words in readings.direction(found) and words in induction.verdict(lines)


def test_a_p_value_too_small_for_a_float_is_not_0():
    assert readings.format_p(0.0, "-") == "<1e-300" and readings.format_p(float("nan"), "-") == "-"
    assert readings.format_p(0.0312, "-") == "0.031"
