"""Q1 of real runs: what the lines of the table say beside their numbers."""

import math

from jaxlens.study import inputs
from jaxlens.study.questions import discarding


def test_a_test_without_a_break_names_none(studied):
    """Of two blocks there are too few layers for two lines."""
    lines = discarding._two_lines(inputs.load(studied / "trained"))
    assert len(lines) == 4
    for line in lines:
        assert math.isnan(line.estimate)
        assert "shape: not estimable" in line.note and "break" not in line.note
        assert "nan" not in line.note
