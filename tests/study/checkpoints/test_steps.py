"""Labels of checkpoints: what is recorded, what is given, and the axis that they make."""

import json
import math
import shutil

import numpy as np
import pytest

from jaxlens import errors
from jaxlens.store import records
from jaxlens.study.checkpoints import steps


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("step1000", 1000),
        ("step0", 0),
        ("checkpoint-1000", 1000),
        ("step_1000", 1000),
        ("global_step143000", 143_000),
        ("iter_0005000", 5000),
        ("ckpt-20", 20),
        ("Step1000", 1000),
        ("step1000-tokens4B", 1000),
        ("stage2-step7-step9", 9),
        ("step1000_hf", 1000),
        ("step10k", None),
        ("step1.5", None),
        ("step1e5", None),
        ("footstep3", None),
        ("1000", None),
        ("main", None),
        ("step", None),
    ],
)
def test_a_step_is_read_from_a_name_and_a_unit_makes_it_none(text, step):
    assert steps.named(text) == step


@pytest.mark.parametrize(
    ("text", "step"),
    [("1000", 1000), ("1,000", 1000), ("143_000", 143_000), ("0.5", 0.5), ("step8", 8)]
    + [(text, None) for text in ("10k", "final", "-1", "1e5", "1,00", "nan")],
)
def test_a_given_label_is_a_number_or_a_name(text, step):
    assert steps.number(text) == step


@pytest.fixture
def run_of(swept, tmp_path):
    """A copy of a run whose notes say where its model came from."""

    def make(name, **model):
        copy = shutil.copytree(swept, tmp_path / name)
        (note,) = (copy / "environment").glob("*.json")
        document = json.loads(note.read_text())
        document["settings"]["model"] = model
        note.write_bytes(records.encode_note(document))
        return copy

    return make


def test_the_revision_counts_before_the_path_and_that_before_the_name_of_the_run(run_of):
    both = run_of("step3", path="out/checkpoint-2", revision="step1")
    assert steps.recorded(both) == (1, steps.REVISION)
    assert steps.recorded(run_of("step4", path="out/checkpoint-2/")) == (2, steps.MODEL)
    assert steps.recorded(run_of("step5", path="step_6/model")) == (6, steps.MODEL)
    # Further up a number may be of anything.
    assert steps.recorded(run_of("step7", path="step8/a/model")) == (7, steps.FOLDER)
    assert steps.recorded(run_of("main", path="gpt2", revision="main")) is None
    assert steps.recorded(run_of("odd", path=["step9"], revision=7)) is None


def test_a_run_without_a_step_has_all_numbered_and_is_named(run_of):
    runs = [run_of("step10", path="gpt2"), run_of("last", path="gpt2")]
    labels = steps.labelled(runs)
    assert labels.texts == ("1", "2") and labels.steps is None
    assert set(labels.sources) == {steps.POSITION}
    assert str(runs[1]) in labels.note and str(runs[0]) not in labels.note
    given = steps.labelled(runs, ["10", "20"])
    assert (given.texts, given.steps, given.note) == (("10", "20"), (10, 20), "")
    one = steps.labelled(runs, [None, "20"])
    assert one.texts == ("10", "20") and one.sources == (steps.FOLDER, steps.GIVEN)
    named = steps.labelled(runs, [None, "final"])
    assert named.texts == ("10", "final") and named.steps is None and not named.note


def test_labels_that_do_not_fit_are_refused():
    for given, why in ((["1"], "1 label for 2 runs"), (["1", " "], "an empty label")):
        with pytest.raises(errors.ConfigError, match=why):
            steps.labelled(["a", "b"], given)
    with pytest.raises(errors.ConfigError, match="a and b are both labelled 1,000"):
        steps.require_distinct(["a", "b"], steps.labelled(["a", "b"], ["1000", "1,000"]))


def axis_of(*numbers):
    texts = tuple(f"{n:g}" for n in numbers)
    return steps.axis(steps.Labels(texts, numbers, (steps.GIVEN,) * len(numbers)))


def test_steps_within_two_powers_of_ten_stand_at_their_numbers():
    axis = axis_of(0.0, 10.0, 1000.0)
    assert axis.name == "step"
    np.testing.assert_array_equal(axis.at, [0, 10, 1000])


def test_more_than_two_powers_of_ten_are_logarithmic_and_0_stands_apart():
    axis = axis_of(0.0, 1.0, 10.0, 1000.0)
    assert "logarithmic" in axis.name and "0 stands apart" in axis.name
    zero, *others = axis.at
    np.testing.assert_allclose(others, [0, 1, 3])
    assert zero == pytest.approx(-0.15 * 3) and math.isfinite(zero)
    assert axis_of(1.0, 1000.0).name == "step (logarithmic)"


def test_steps_rise_from_left_to_right_and_categories_stand_as_given():
    axis = axis_of(300.0, 100.0, 200.0)
    assert axis.order == (1, 2, 0)
    np.testing.assert_array_equal(axis.at, [100, 200, 300])
    named = steps.axis(steps.Labels(("b", "a"), None, (steps.GIVEN,) * 2))
    assert named.order == (0, 1) and named.name == "checkpoint"
