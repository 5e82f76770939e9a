"""Every container in and out, bit for bit."""

import hashlib
import struct

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization

from jaxlens import errors, models
from jaxlens.models import gpt2
from jaxlens.models.checkpoints import checkpoint

pytestmark = pytest.mark.usefixtures("also_streamed")


@pytest.mark.parametrize("config", [checkpoints.CONFIG, checkpoints.UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("fmt", checkpoints.FORMATS)
def test_every_format_keeps_float32_bit_for_bit(tmp_path, fmt, config):
    architecture, params = checkpoints.make(config)
    checkpoint.save(tmp_path / "m", architecture, params, fmt)
    loaded = checkpoint.load(tmp_path / "m")
    assert loaded.architecture == architecture
    assert loaded.directory == tmp_path / "m"
    checkpoints.assert_same_bits(loaded.params, params)
    assert checkpoint.digest(loaded.params) == checkpoint.digest(params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("fmt", checkpoints.FORMATS)
def test_half_precision_files_load_as_their_rounded_float32(tmp_path, fmt, dtype):
    architecture, params = checkpoints.make()
    checkpoint.save(tmp_path, architecture, params, fmt, dtype)
    rounded = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)).astype(np.float32), params)
    checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, rounded)


@pytest.mark.parametrize("config", [checkpoints.CONFIG, checkpoints.UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("fmt", checkpoints.FORMATS)
def test_head_bias_survives_every_format(tmp_path, fmt, config):
    architecture, params = checkpoints.make(config)
    bias = np.linspace(-1, 1, 11, dtype=np.float32)
    params["lm_head"] = {**params.get("lm_head", {}), "bias": bias}
    checkpoint.save(tmp_path, architecture, params, fmt)
    checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, params)


@pytest.mark.parametrize("source", checkpoints.FORMATS)
@pytest.mark.parametrize("target", checkpoints.FORMATS)
def test_converting_between_any_two_formats_keeps_the_digest(tmp_path, source, target):
    architecture, params = checkpoints.make(checkpoints.UNTIED)
    checkpoint.save(tmp_path / "a", architecture, params, source)
    first = checkpoint.load(tmp_path / "a")
    checkpoint.save(tmp_path / "b", first.architecture, first.params, target)
    assert checkpoint.digest(checkpoint.load(tmp_path / "b").params) == checkpoint.digest(params)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_saved_weights_can_be_read_by_whom_the_umask_lets(tmp_path, fmt):
    checkpoint.save(tmp_path, *checkpoints.make(), fmt)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_saved_safetensors_are_pytorch_names_and_values(tmp_path):
    architecture, params = checkpoints.make(checkpoints.UNTIED)
    checkpoint.save(tmp_path, architecture, params, "safetensors")
    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    expected = checkpoints.torch_state(params, checkpoints.UNTIED)
    assert stored.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(stored[name], value, err_msg=name)


def test_saved_msgpack_is_what_flax_reads(tmp_path):
    architecture, params = checkpoints.make(checkpoints.UNTIED)
    checkpoint.save(tmp_path, architecture, params, "msgpack")
    stored = serialization.msgpack_restore((tmp_path / "flax_model.msgpack").read_bytes())
    jax.tree.map(np.testing.assert_array_equal, stored, checkpoints.flax_tree(params))


def test_tokenizer_files_are_copied_as_far_as_they_are_there(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.json", "merges.txt", "secret.txt"):
        (source / name).write_text(name)
    architecture, params = checkpoints.make()
    checkpoint.save(tmp_path / "m", architecture, params, "msgpack", tokenizer_from=source)
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"config.json", "flax_model.msgpack", "tokenizer.json", "merges.txt"}


def test_save_never_replaces_weights(tmp_path):
    architecture, params = checkpoints.make()
    checkpoint.save(tmp_path, architecture, params, "msgpack")
    before = (tmp_path / "flax_model.msgpack").read_bytes()
    with pytest.raises(errors.ConfigError, match=r"already holds flax_model\.msgpack"):
        checkpoint.save(tmp_path, *checkpoints.make(seed=2), "safetensors")
    assert (tmp_path / "flax_model.msgpack").read_bytes() == before


def test_save_refuses_what_it_cannot_store(tmp_path):
    architecture, params = checkpoints.make()
    with pytest.raises(errors.ConfigError, match="gguf"):
        checkpoint.save(tmp_path, architecture, params, "gguf")
    with pytest.raises(errors.ConfigError, match="int8"):
        checkpoint.save(tmp_path, architecture, params, "msgpack", "int8")
    with pytest.raises(errors.DataError, match="shape"):
        checkpoint.save(
            tmp_path, models.parse({**checkpoints.CONFIG, "n_layer": 1}), params, "msgpack"
        )
    params["wte"][3, 2] = 1e6
    with pytest.raises(errors.DataError, match="wte overflows in float16"):
        checkpoint.save(tmp_path, architecture, params, "safetensors", "float16")
    assert not list(tmp_path.iterdir())


def test_save_into_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.StorageError) as caught:
        checkpoint.save(tmp_path / "file", *checkpoints.make(), "msgpack")
    assert caught.value.exit_code == 74


def test_failed_write_leaves_no_weights(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(errors.StorageError, match="No space left"):
        checkpoint.save(tmp_path, *checkpoints.make(), "safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_flax_kernels_are_transposed_even_where_they_are_square(tmp_path):
    _, params = checkpoints.make()
    loaded = checkpoint.load(
        checkpoints.write_msgpack(tmp_path, checkpoints.flax_tree(params))
    ).params
    kernel = params["h"]["attn"]["c_proj"]["kernel"]
    assert kernel.shape[1] == kernel.shape[2]
    np.testing.assert_array_equal(loaded["h"]["attn"]["c_proj"]["kernel"], kernel)
    assert not np.array_equal(kernel, kernel.swapaxes(1, 2))


@pytest.mark.parametrize("prefix", [True, False])
def test_flax_names_load_with_and_without_prefix(tmp_path, prefix):
    _, params = checkpoints.make()
    tree = checkpoints.flax_tree(params)
    loaded = checkpoint.load(
        checkpoints.write_msgpack(tmp_path, tree if prefix else tree["transformer"])
    )
    checkpoints.assert_same_bits(loaded.params, params)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_torch_names_load_with_and_without_prefix(tmp_path, prefix):
    _, params = checkpoints.make()
    state = {
        prefix + k.removeprefix("transformer."): v
        for k, v in checkpoints.torch_state(params).items()
    }
    checkpoints.assert_same_bits(
        checkpoint.load(checkpoints.write_safetensors(tmp_path, state)).params, params
    )


def test_causal_mask_buffers_are_dropped(tmp_path):
    _, params = checkpoints.make()
    state = checkpoints.torch_state(params)
    for layer in range(2):
        state[f"transformer.h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 7, 7), bool))
        state[f"transformer.h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    checkpoints.assert_same_bits(
        checkpoint.load(checkpoints.write_safetensors(tmp_path, state)).params, params
    )


def test_layers_sort_as_integers(tmp_path):
    config = {**checkpoints.CONFIG, "n_layer": 12}
    _, params = checkpoints.make(config)
    checkpoints.assert_same_bits(
        checkpoint.load(
            checkpoints.write_msgpack(tmp_path / "f", checkpoints.flax_tree(params), config)
        ).params,
        params,
    )
    state = checkpoints.torch_state(params)
    checkpoints.assert_same_bits(
        checkpoint.load(checkpoints.write_safetensors(tmp_path / "t", state, config)).params, params
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_stored_types_become_float32(tmp_path, dtype):
    _, params = checkpoints.make()
    narrow = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), params)
    expected = jax.tree.map(lambda x: x.astype(np.float32), narrow)
    tree = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), checkpoints.flax_tree(params))
    state = {k: v.astype(jnp.dtype(dtype)) for k, v in checkpoints.torch_state(params).items()}
    checkpoints.assert_same_bits(
        checkpoint.load(checkpoints.write_msgpack(tmp_path / "f", tree)).params, expected
    )
    checkpoints.assert_same_bits(
        checkpoint.load(checkpoints.write_safetensors(tmp_path / "t", state)).params, expected
    )


def test_arrays_that_flax_stores_in_chunks_are_joined(tmp_path, monkeypatch):
    _, params = checkpoints.make()
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    directory = checkpoints.write_msgpack(tmp_path, checkpoints.flax_tree(params))
    assert b"__msgpack_chunked_array__" in (directory / "flax_model.msgpack").read_bytes()
    checkpoints.assert_same_bits(checkpoint.load(directory).params, params)


def test_chunks_that_disagree_with_their_shape_are_refused(tmp_path):
    tree = checkpoints.flax_tree(checkpoints.make()[1])
    for chunks in ({"0": np.zeros(65, np.float32)}, {"0": 3}, {}, {"1": np.zeros(66, np.float32)}):
        tree["transformer"]["wte"]["embedding"] = {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 11, "1": 6},
            "chunks": chunks,
        }
        checkpoints.refused(checkpoints.write_msgpack(tmp_path, tree))


def test_safetensors_are_preferred_to_msgpack(tmp_path):
    _, wanted = checkpoints.make(seed=1)
    checkpoints.write_msgpack(tmp_path, checkpoints.flax_tree(checkpoints.make(seed=2)[1]))
    checkpoints.write_safetensors(tmp_path, checkpoints.torch_state(wanted))
    checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, wanted)


def test_identical_stored_head_of_a_tied_model_is_dropped(tmp_path):
    _, params = checkpoints.make()
    state = {**checkpoints.torch_state(params), "lm_head.weight": params["wte"].copy()}
    checkpoints.assert_same_bits(
        checkpoint.load(checkpoints.write_safetensors(tmp_path, state)).params, params
    )


def test_stored_head_that_contradicts_tied_embeddings_is_refused(tmp_path):
    _, params = checkpoints.make()
    head = params["wte"].copy()
    head[10, 5] += 1e-3
    state = {**checkpoints.torch_state(params), "lm_head.weight": head}
    assert "lm_head differs from wte" in checkpoints.refused(
        checkpoints.write_safetensors(tmp_path, state)
    )


def test_digest_is_of_paths_shapes_and_little_endian_values():
    total = hashlib.sha256()
    params = {"b": {"x": np.array([[1.5, -2.0]], np.float32)}, "a": np.array([3.0], np.float32)}
    total.update(b"a 1\n" + struct.pack("<f", 3.0))
    total.update(b"b/x 1x2\n" + struct.pack("<ff", 1.5, -2.0))
    assert checkpoint.digest(params) == total.hexdigest()


def test_digest_depends_on_neither_array_type_nor_memory_order():
    _, params = checkpoints.make()
    expected = checkpoint.digest(params)
    assert checkpoint.digest(jax.tree.map(jnp.asarray, params)) == expected
    assert checkpoint.digest(jax.tree.map(np.asfortranarray, params)) == expected
    assert checkpoint.digest(jax.tree.map(lambda x: x.astype(">f4"), params)) == expected


def test_digest_changes_with_one_bit():
    _, params = checkpoints.make()
    before = checkpoint.digest(params)
    params["h"]["ln_2"]["bias"][1, 0] = np.nextafter(
        params["h"]["ln_2"]["bias"][1, 0], np.float32(1)
    )
    assert checkpoint.digest(params) != before


def test_initial_weights_round_trip(tmp_path):
    architecture = models.parse(checkpoints.UNTIED)
    params = gpt2.init(architecture, seed=0)
    checkpoint.save(tmp_path, architecture, params, "safetensors")
    checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, params)
