"""Checkpoints in several files with an index."""

import shutil

import checkpoints
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint

pytestmark = pytest.mark.usefixtures("also_streamed")


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_sharded_checkpoints_load(tmp_path, fmt):
    params, _, _ = checkpoints.write_shards(tmp_path, fmt)
    checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, params)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_missing_shard_is_named(tmp_path, fmt):
    _, _, files = checkpoints.write_shards(tmp_path, fmt)
    (tmp_path / files[1]).unlink()
    assert files[1] in checkpoints.refused(tmp_path, errors.MissingError)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
@pytest.mark.parametrize(
    "shard",
    ["../outside", "/etc/passwd", "sub/shard", "../..", "", "a\\b", "a\nb", "a\0b", 3, None, ["x"]],
)
def test_index_pointing_outside_of_the_directory_is_refused(tmp_path, fmt, shard):
    _, index, files = checkpoints.write_shards(tmp_path / "m", fmt)
    suffix = checkpoints.FILE[fmt].split(".")[1]
    # The file that the first case points at exists and is valid.
    shutil.copy(tmp_path / "m" / files[0], tmp_path / f"outside.{suffix}")
    for name, file in index.items():
        if file == files[0]:
            index[name] = f"{shard}.{suffix}" if isinstance(shard, str) and shard else shard
    checkpoints.write_index(tmp_path / "m", fmt, index)
    assert "index.json" in checkpoints.refused(tmp_path / "m")


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_tensor_in_two_shards_is_refused(tmp_path, fmt):
    _, _, files = checkpoints.write_shards(tmp_path, fmt)
    shutil.copy(tmp_path / files[0], tmp_path / files[1])
    assert "belongs to" in checkpoints.refused(tmp_path)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_tensor_that_only_the_index_knows_is_named(tmp_path, fmt):
    _, index, files = checkpoints.write_shards(tmp_path, fmt)
    name = "transformer.h.9.ln_1.bias"
    checkpoints.write_index(tmp_path, fmt, {**index, name: files[0]})
    assert name in checkpoints.refused(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": 3}',
        "\x00",
        "[" * 10**5,
    ],
)
def test_malformed_index_is_refused(tmp_path, text):
    checkpoints.write_shards(tmp_path, "msgpack")
    (tmp_path / "flax_model.msgpack.index.json").write_text(text)
    assert "flax_model.msgpack.index.json" in checkpoints.refused(tmp_path)


def test_index_that_names_a_tensor_twice_is_refused(tmp_path):
    _, _, files = checkpoints.write_shards(tmp_path, "safetensors")
    text = f'{{"weight_map": {{"wte.weight": "{files[0]}", "wte.weight": "{files[1]}"}}}}'
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "'wte.weight' is there twice" in checkpoints.refused(tmp_path)
