"""The file of an ablation: what is written is what is read, and damage is found."""

import h5py
import numpy as np
import pytest

from jaxlens import config, errors
from jaxlens.store import ablation_file, ablation_parts

ARMS, LAYERS = ["embedding", "whole"], [0, 3]
SPEC = {"model": {"sha256": "0"}, "ablation": {"arms": ARMS, "layers": LAYERS, "seed": 0}}
SPEC_BYTES = config.canonical(SPEC)
NOTES = ablation_file.Notes(77, {"copies": {"reason": 3}})


def variables(n, seed=0):
    random = np.random.default_rng(seed)
    targets = random.integers(1, 5, (n, 2)).astype(np.int32)
    targets[0, 1] = 0
    loss = random.normal(1, 1, (n, 2, 2)).astype(np.float32)
    loss[0, 1] = np.nan
    made = {"loss": loss, "n_targets": targets}
    made |= {name: random.normal(-2, 1, (n, 2)).astype(np.float32) for name in ("clean", "earlier")}
    for name in ("rarity", "lag", "cluster", "group", "source", "target", "copied"):
        made[name] = random.integers(0, 9, n).astype(np.int32)
    return made


@pytest.fixture
def folder(tmp_path):
    ablation_parts.begin(tmp_path, SPEC_BYTES)
    materials = {"blocks": variables(7), "copies": variables(5, 1)}
    mean = np.ones((2, 3), np.float32)
    ablation_file.write(tmp_path, SPEC_BYTES, materials, ["input", "h.2"], mean, NOTES)
    return tmp_path


def test_what_is_written_is_read(folder):
    found = ablation_file.read(folder)
    assert (found.spec, found.arms, found.layers) == (SPEC, tuple(ARMS), tuple(LAYERS))
    assert found.notes == NOTES
    for material, seed, n in (("blocks", 0, 7), ("copies", 1, 5)):
        for name, value in vars(found.materials[material]).items():
            np.testing.assert_array_equal(value, variables(n, seed)[name])
    assert ablation_file.is_finished(folder, config.spec_hash(SPEC_BYTES))
    assert not ablation_file.is_finished(folder, "0" * 64)


def test_means_weigh_by_targets_and_leave_out_what_is_not_defined(folder):
    part = ablation_file.read(folder).materials["blocks"]
    weight = part.n_targets[1:, 1]
    np.testing.assert_allclose(
        part.mean_loss()[1], np.average(part.loss[1:, 1], axis=0, weights=weight), rtol=1e-5
    )
    arm = int(part.n_targets.sum(0).argmax())
    gain = np.average((part.clean - part.earlier)[:, arm], weights=part.n_targets[:, arm])
    assert part.gain() == pytest.approx(gain)
    nothing = part.where(np.zeros(7, bool))
    assert np.isnan(nothing.mean_loss()).all() and np.isnan(nothing.gain())


def test_other_tools_read_units_meanings_and_axes(folder):
    with h5py.File(folder / ablation_file.RESULT) as file:
        assert file["layer_name"][()].tolist() == [b"input", b"h.2"]
        for material in ("blocks", "copies"):
            for name, item in file[material].items():
                assert name == "sequence" or (item.attrs["long_name"] and item.attrs["units"])
            loss = file[material]["loss"]
            assert [d.keys()[0] for d in loss.dims] == ["sequence", "arm", "layer"]
        assert file.attrs["spec"].encode() == SPEC_BYTES


@pytest.mark.parametrize("at", [100, 2000, -3])
def test_a_flipped_bit_is_found(folder, at):
    path = folder / ablation_file.RESULT
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises(errors.DataError, match=r"ablation\.h5 is damaged") as caught:
        ablation_file.read(folder)
    named = f"remove {path}, then run the same jaxlens ablate {folder.parent} again"
    assert caught.value.hint.startswith(named)
    assert not ablation_file.is_finished(folder, config.spec_hash(SPEC_BYTES))


@pytest.mark.parametrize(
    "spec",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"ablation":{}}',
        b'{"ablation":{"arms":5}}',
        b'{"ablation":{"arms":[[1]]}}',
    ],
)
def test_a_damaged_spec_is_one_error_that_says_what_to_remove(folder, spec):
    (folder / ablation_file.SPEC).write_bytes(spec)
    with pytest.raises(errors.DataError, match=r"ABLATION\.json is damaged") as caught:
        ablation_parts.begun_settings(folder)
    assert caught.value.hint.startswith(f"remove {folder}, then run the same command again")


def test_an_absent_one_names_the_command(tmp_path):
    with pytest.raises(errors.MissingError) as caught:
        ablation_file.read(tmp_path)
    assert "jaxlens ablate" in caught.value.hint


def test_parts_of_another_spec_or_shape_are_not_taken(tmp_path):
    arrays = {"loss": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}
    ablation_parts.write_arrays(tmp_path, ablation_parts.part_name(0), arrays, "a" * 64)
    read = ablation_parts.read_arrays
    found = read(tmp_path, "part-00000.h5", "a" * 64, {"loss": (1, 2, 3)})
    np.testing.assert_array_equal(found["loss"], arrays["loss"])
    assert read(tmp_path, "part-00000.h5", "b" * 64, {"loss": (1, 2, 3)}) is None
    assert read(tmp_path, "part-00000.h5", "a" * 64, {"loss": (2, 2, 3)}) is None
    assert read(tmp_path, "part-00001.h5", "a" * 64, {"loss": (1, 2, 3)}) is None
    path = tmp_path / "part-00000.h5"
    path.write_bytes(path.read_bytes()[:-1])
    assert read(tmp_path, "part-00000.h5", "a" * 64, {"loss": (1, 2, 3)}) is None


def test_only_parts_are_removed(tmp_path):
    for name in ("part-00000.h5", "mean.h5", "notes.txt", "part-1.h5", "ablation.h5"):
        (tmp_path / name).write_bytes(b"")
    ablation_parts.remove_parts(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ablation.h5", "notes.txt", "part-1.h5"]


def test_another_spec_in_the_folder_is_refused_and_a_damaged_one_said(folder):
    other = config.canonical({**SPEC, "ablation": {**SPEC["ablation"], "seed": 1}})
    with pytest.raises(errors.ConfigError, match=r"ablation\.seed is 0 there, 1 here"):
        ablation_parts.begin(folder, other)
    ablation_parts.begin(folder, SPEC_BYTES)
    (folder / ablation_file.SPEC).write_bytes(b"{")
    with pytest.raises(errors.DataError, match=r"ABLATION\.json is damaged"):
        ablation_parts.begin(folder, SPEC_BYTES)
