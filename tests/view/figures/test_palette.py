import itertools

import pytest

from jaxlens.view.figures import palette

READABLE = 4.5
"""Contrast that WCAG 2 asks of text (level AA)."""


@pytest.mark.parametrize("ends", [palette.LIGHT, palette.DARK])
def test_the_ramp_keeps_its_order_in_grey(ends):
    grey = [palette.luminance(colour) for colour in palette.ramp(ends, 33)]
    steps = [b - a for a, b in itertools.pairwise(grey)]
    assert all(step < 0 for step in steps) if ends is palette.LIGHT else min(steps) > 0


@pytest.mark.parametrize("ends", [palette.LIGHT, palette.DARK])
def test_every_colour_has_an_ink_that_can_be_read_on_it(ends):
    for colour in palette.ramp(ends, 33):
        ink, ground = palette.luminance(palette.ink(colour)), palette.luminance(colour)
        low, high = sorted([ink, ground])
        assert (high + 0.05) / (low + 0.05) >= READABLE


def test_luminance_is_that_of_the_standard():
    assert palette.luminance("#000000") == 0
    assert palette.luminance("#ffffff") == pytest.approx(1)
    assert palette.luminance("#808080") == pytest.approx(0.2159, abs=1e-4)


def test_the_ramp_is_made_in_oklab():
    # Lightness of OKLab back from sRGB, by the published matrices.
    found = []
    for colour in palette.ramp(count=5):
        linear = []
        for i in (1, 3, 5):
            c = int(colour[i : i + 2], 16) / 255
            linear.append(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        red, green, blue = linear
        long = 0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue
        middle = 0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue
        short = 0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue
        cone = [value ** (1 / 3) for value in (long, middle, short)]
        found.append(0.2104542553 * cone[0] + 0.7936177850 * cone[1] - 0.0040720468 * cone[2])
    steps = [a - b for a, b in itertools.pairwise(found)]
    # Colours outside of sRGB are cut, which moves lightness a little.
    assert max(steps) - min(steps) < 0.03
