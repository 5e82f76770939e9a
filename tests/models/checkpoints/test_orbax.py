"""Orbax checkpoints: damaged, of another model."""

import checkpoints
import numpy as np
import orbax.checkpoint
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint as weights

pytestmark = pytest.mark.usefixtures("also_streamed")


def test_orbax_that_does_not_fit_the_config_is_refused(tmp_path):
    weights.save(tmp_path, *checkpoints.make(), "orbax")
    for change in ({"n_layer": 3}, {"vocab_size": 12}, {"n_inner": 4}):
        checkpoints.write_config(tmp_path, {**checkpoints.CONFIG, **change})
        assert "orbax: tensor" in checkpoints.refused(tmp_path)
    checkpoints.write_config(tmp_path, checkpoints.UNTIED)
    assert "lm_head/weight is missing" in checkpoints.refused(tmp_path)


def test_orbax_with_values_that_are_not_finite_is_refused(tmp_path):
    _, params = checkpoints.make()
    params["h"]["ln_1"]["bias"][1, 2] = np.nan
    checkpoints.write_config(tmp_path)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", params)
    assert "h/ln_1/bias" in checkpoints.refused(tmp_path)


@pytest.mark.parametrize("victim", ["_METADATA", "manifest.ocdbt", "_CHECKPOINT_METADATA"])
@pytest.mark.parametrize("damage", ["empty", "noise", "gone"])
def test_damaged_orbax_metadata_is_one_clean_error(tmp_path, capfd, victim, damage):
    weights.save(tmp_path, *checkpoints.make(), "orbax")
    for path in tmp_path.rglob(victim):
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(b"" if damage == "empty" else bytes(range(256)))
    try:
        checkpoint = weights.load(tmp_path)
    except errors.DataError as error:
        assert str(tmp_path / "orbax") in error.message
        assert "\n" not in error.message
    else:
        assert weights.digest(checkpoint.params) == weights.digest(checkpoints.make()[1])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", ["cut", "noise", "gone"])
def test_damaged_orbax_data_is_refused(tmp_path, damage):
    weights.save(tmp_path, *checkpoints.make(), "orbax")
    for path in tmp_path.rglob("d/*"):
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(content[:-9] if damage == "cut" else content[::-1])
    checkpoints.refused(tmp_path)


def test_empty_orbax_directory_is_refused(tmp_path):
    checkpoints.write_config(tmp_path)
    (tmp_path / "orbax").mkdir()
    assert "orbax" in checkpoints.refused(tmp_path)


def test_orbax_in_other_layouts_loads(tmp_path):
    _, params = checkpoints.make()
    for number, options in enumerate(
        ({"use_ocdbt": False}, {"use_zarr3": True}, {"use_ocdbt": False, "use_zarr3": True})
    ):
        folder = tmp_path / str(number)
        checkpoints.write_config(folder)
        handler = orbax.checkpoint.PyTreeCheckpointHandler(**options)
        with orbax.checkpoint.Checkpointer(handler) as checkpointer:
            checkpointer.save(folder / "orbax", params)
        assert weights.digest(weights.load(folder).params) == weights.digest(params)
