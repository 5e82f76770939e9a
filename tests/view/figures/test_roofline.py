"""The roofline shows the numbers of the records, and is refused before work is lost."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxlens import config, errors
from jaxlens.bench import counts, random_model
from jaxlens.sweep import resolve
from jaxlens.view.figures import files, roofline

ROOFS = [roofline.Roof("float32", 2e11, 5e9), roofline.Roof("bfloat16", 4e11, 5e9)]
POINTS = [
    roofline.Point("float32", "lens", 100.0, 1.5e11),
    roofline.Point("float32", "forward", 20.0, 9e10),
    roofline.Point("bfloat16", "lens", 150.0, 2.5e11),
]


def test_points_stand_where_the_records_say_and_roofs_where_the_limits_are():
    (axes,) = roofline._figure("a title", ROOFS, POINTS).axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    for point in POINTS:
        expected = [[point.intensity, point.flops]]
        np.testing.assert_array_equal(lines[f"{point.stage}, {point.roof}"], expected)
    for roof in ROOFS:
        x, y = lines[f"limit, {roof.name}"].T
        np.testing.assert_allclose(y, np.minimum(roof.flops, x * roof.bandwidth))
        assert x[0] < min(p.intensity for p in POINTS) and y[-1] == roof.flops
    assert axes.get_xlim()[1] > 150


@pytest.mark.parametrize("suffix", files.FORMATS)
def test_every_format_is_drawn(tmp_path, suffix):
    path = tmp_path / f"roof{suffix}"
    roofline.draw("gpt2 on 2 × a <processor> & more", ROOFS, POINTS, path)
    data = path.read_bytes()
    if suffix == ".svg":
        assert "}svg" in ElementTree.fromstring(data).tag
    else:
        assert data.startswith({".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])


def test_what_cannot_be_drawn_is_refused(tmp_path, monkeypatch):
    with pytest.raises(errors.ConfigError, match=r"a picture roof\.gif"):
        files.require(tmp_path / "roof.gif")
    with pytest.raises(errors.StorageError):
        roofline.draw("", ROOFS, POINTS, tmp_path / "nowhere" / "roof.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(errors.MissingError, match="matplotlib"):
        files.require(tmp_path / "roof.png")


def test_least_traffic_is_counted_by_hand():
    given = {"plan.length": 256, "plan.step_sequences": 2, "lens.block": 100, "lens.tile": 512}
    sizes = random_model.architecture("gpt2")
    moved = counts.count_bytes(resolve.resolve(config.load([], {}, given), sizes))
    streams = 13 * 768 * 4
    kernels = 12 * (768 * 3 * 768 + 768 * 768 + 2 * 768 * 4 * 768) * 4
    assert moved["forward"] == pytest.approx(kernels / 512 + streams)
    ends = 3 * 2 * 50257 * 4
    assert moved["lens"] == pytest.approx(streams + 2 * 50257 * 768 * 4 / 100 + ends)
    narrow = given | {"lens.precision": "bfloat16", "lens.residuals": "bfloat16"}
    less = counts.count_bytes(resolve.resolve(config.load([], {}, narrow), sizes))
    assert less["lens"] == pytest.approx((moved["lens"] - ends) / 2 + ends)
