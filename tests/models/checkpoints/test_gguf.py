"""GGUF files: the same bits as the safetensors of the values that they stand for, or refused."""

import os
import struct
import sys

import checkpoints
import numpy as np
import pytest
import warm
from families import gemma, llama, parts

from jaxlens import errors, models
from jaxlens.models import loading
from jaxlens.models.checkpoints import checkpoint, gguf_header, layout

pytest.importorskip("gguf")
import gguf_files
from gguf_files import CONFIGS, TYPES, gguf

# The oracle is float64, the engine's products and sums float32.
RELATIVE = 5e-6
MAX_MIB, SECONDS = 50, 20
TOKENS = np.random.default_rng(3).integers(0, 96, (1, 24))


@pytest.fixture
def state(tmp_path):
    return gguf_files.random_state(CONFIGS["llama"], tmp_path / "state")


@pytest.fixture
def written(tmp_path, state):
    """Writes a file of the first configuration, and gives its path."""

    def write(name="model.gguf", config=CONFIGS["llama"], **how):
        gguf_files.write(tmp_path / name, config, how.pop("state", state), **how)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", TYPES)
def test_values_are_those_of_the_same_model_as_safetensors(tmp_path, name, kind):
    config = CONFIGS[name]
    source = gguf_files.random_state(config, tmp_path / "state")
    meant = gguf_files.write(tmp_path / "model.gguf", config, source, kind)
    same = checkpoints.write_safetensors(tmp_path / "same", meant, config)
    expected, found = checkpoint.load(same), checkpoint.load(tmp_path / "model.gguf")
    assert found.architecture == expected.architecture
    checkpoints.assert_same_bits(found.params, expected.params)
    streamed = checkpoint.load(tmp_path / "model.gguf", read=False)
    checkpoints.assert_same_bits(layout.nested(dict(streamed.take())), expected.params)
    assert streamed.sha256 == found.sha256 == expected.sha256


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name not in ("llama", "gemma3")))
        for name in CONFIGS
        if name != "llama-tied"
    ],
)
def test_streams_are_those_of_the_oracle(tmp_path, name):
    config = CONFIGS[name]
    source = gguf_files.random_state(config, tmp_path / "state")
    meant = gguf_files.write(tmp_path / "model.gguf", config, source, "Q8_0")
    model = loading.from_checkpoint(loading.load_checkpoint(tmp_path / "model.gguf", read=False))
    streams = np.asarray(loading.forward(model.params, model.config, TOKENS))
    wide = {key: value.astype(np.float64) for key, value in meant.items()}
    # The oracle's Qwen 2 has windows from some layer on.
    config = config | {"max_window_layers": 99}
    segments = np.zeros(TOKENS.shape[1])
    oracle = gemma if "gemma" in name else llama
    expected = oracle.residuals(wide, config, TOKENS[0], np.arange(TOKENS.shape[1]), segments)
    largest = np.abs(expected).max((1, 2), keepdims=True)
    assert (np.abs(streams[:, 0] - expected) / largest).max() < RELATIVE


LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}


def factors(scaling, theta=5e5, size=16):
    plain = parts.frequencies(size, theta)
    return (plain / parts.frequencies(size, theta, scaling)).astype(np.float32)


def test_factors_of_llama_3_are_its_scaling_and_others_are_refused(written):
    config = CONFIGS["llama"] | {"rope_theta": 5e5}
    for number, scaling in enumerate((LLAMA3, LLAMA3 | {"factor": 8.0})):
        values = factors(scaling)
        assert len(set(values)) > 2  # some in between
        path = written(f"{number}.gguf", config, tensors={"rope_freqs.weight": values})
        found = checkpoint.load(path).architecture
        assert found == models.parse(config | {"rope_scaling": scaling})
    values = factors(LLAMA3 | {"high_freq_factor": 8.0})
    path = written("other.gguf", config, tensors={"rope_freqs.weight": values})
    assert "rope_freqs.weight" in checkpoints.refused(path)
    path = written("long.gguf", config, tensors={"rope_freqs.weight": np.ones(9, np.float32)})
    assert "rope_freqs.weight" in checkpoints.refused(path)


def test_header_is_read_as_the_package_reads_it(written):
    def extra(writer):
        writer.add_array("tokenizer.ggml.tokens", ["a", "\u2581b", ""])
        writer.add_array("tokenizer.ggml.scores", [0.5, -1.0, 2.0])
        writer.add_bool("tokenizer.ggml.add_bos_token", True)
        writer.add_float64("general.pi", 3.14)
        writer.add_int8("general.small", -3)

    path = written(kind="Q4_0", extra=extra)
    found = gguf_header.read(path, "x", with_strings=True)
    reader = gguf.GGUFReader(path)
    keys = [key for key in reader.fields if not key.startswith("GGUF.")]
    assert list(found.metadata) == keys
    for key in keys:
        value = found.metadata[key]
        value = value.tolist() if isinstance(value, np.ndarray) else value
        assert value == reader.fields[key].contents()
    assert list(found.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        info = found.tensors[tensor.name]
        assert info.offset == tensor.data_offset and info.type == tensor.tensor_type
        assert info.shape == tuple(int(size) for size in reversed(tensor.shape))


def test_file_in_a_folder_has_to_be_named(written):
    path = written()
    assert str(path) in checkpoints.refused(path.parent, errors.MissingError)


def settings(**entries):
    def extra(writer):
        for name, value in entries.items():
            key = name.replace("__", ".")
            if isinstance(value, str):
                writer.add_string(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            else:
                writer.add_uint32(key, value)

    return extra


UNKNOWN = {
    "experts": (settings(llama__expert_count=8), "llama.expert_count"),
    "window": (settings(llama__attention__sliding_window=4), "attention.sliding_window"),
    "softcap": (settings(llama__attn_logit_softcapping=30.0), "attn_logit_softcapping"),
    "yarn": (settings(llama__rope__scaling__type="yarn"), "yarn"),
    "part": (settings(split__count=3), "llama-gguf-split --merge"),
    "adapter": (settings(general__type="adapter"), "adapter"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_settings_that_are_not_known_are_refused_by_name(written, what):
    extra, named = UNKNOWN[what]
    if what == "adapter":  # the writer has stated the type by itself

        def extra(writer):
            writer.kv_data[0]["general.type"] = gguf.GGUFValue("adapter", gguf.GGUFValueType.STRING)

    assert named in checkpoints.refused(written(extra=extra))


def test_settings_that_ask_for_nothing_change_nothing(written):
    extra = settings(llama__expert_count=0, general__quantization_version=2, vendor__note="x")
    assert checkpoint.load(written(extra=extra)).sha256 == checkpoint.load(written("b.gguf")).sha256


def test_other_architectures_and_tensors_are_refused_by_name(written, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "mamba.gguf", "mamba")
    writer.add_tensor("x", np.zeros(3, np.float32))
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()
    assert "'mamba'" in checkpoints.refused(tmp_path / "mamba.gguf")
    path = written(tensors={"blk.0.ffn_gate_exps.weight": np.zeros((2, 3), np.float32)})
    assert "blk.0.ffn_gate_exps.weight" in checkpoints.refused(path)


def test_missing_and_wrong_tensors_are_refused_by_name(written, state):
    name = "model.layers.1.mlp.up_proj.weight"
    path = written(state={k: v for k, v in state.items() if k != name})
    assert "layers.1.mlp.up_proj.weight is missing" in checkpoints.refused(path)
    path = written("wide.gguf", state=state | {name: np.zeros((96, 96), np.float32)})
    assert f"{name} has shape [96, 96]" in checkpoints.refused(path)
    values = state[name].copy()
    values[3, 4] = np.nan
    assert "not finite" in checkpoints.refused(written("nan.gguf", state=state | {name: values}))


def test_sizes_that_contradict_each_other_are_refused(written):
    for key, value in (
        ("llama.rope.dimension_count", 8),
        ("llama.vocab_size", 97),
        ("llama.attention.value_length", 8),
    ):

        def extra(writer, key=key, value=value):
            writer.kv_data[0][key] = gguf.GGUFValue(value, gguf.GGUFValueType.UINT32)

        assert key in checkpoints.refused(written(f"{key}.gguf", extra=extra))


def test_type_that_is_not_read_is_refused_by_name(written):
    path = written()
    raw = path.read_bytes()
    entry = b"blk.0.attn_q.weight" + struct.pack("<IQQ", 2, 64, 64)
    at = raw.index(entry) + len(entry)
    for number, shown in ((28, "F64"), (999, "999")):
        path.write_bytes(raw[:at] + struct.pack("<I", number) + raw[at + 4 :])
        message = checkpoints.refused(path)
        assert f"blk.0.attn_q.weight is of the type {shown}" in message


def test_rows_that_blocks_do_not_divide_are_refused(written):
    path = written()
    raw = path.read_bytes()
    entry = b"blk.0.attn_q.weight" + struct.pack("<IQ", 2, 64)
    path.write_bytes(raw.replace(entry, entry[:-8] + struct.pack("<Q", 63), 1))
    assert "has shape [64, 63]" in checkpoints.refused(path)
    at = path.read_bytes().index(entry[:-8]) + len(entry) + 8
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + struct.pack("<I", 8) + raw[at + 4 :])
    assert "rows of 63 values, in blocks of 32" in checkpoints.refused(path)


def test_truncated_file_is_refused_at_every_length(written):
    path = written(kind="Q4_0")
    raw = path.read_bytes()
    start = gguf_header.read(path, "x").tensors["token_embd.weight"].offset
    lengths = [*range(0, start, 97), *range(start, len(raw), 5003), len(raw) - 1]
    for length in lengths:
        path.write_bytes(raw[:length])
        message = checkpoints.refused(path)
        assert "GGUF" in message or "truncated" in message, length


def test_other_versions_and_byte_orders_are_refused_by_name(written, tmp_path):
    path = written()
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + struct.pack("<I", 1) + raw[8:])
    assert "version 1 of GGUF" in checkpoints.refused(path)
    path.write_bytes(raw[:4] + struct.pack(">I", 3) + raw[8:])
    assert "big-endian" in checkpoints.refused(path)
    path.write_bytes(b"\x00" * 64)
    assert "not a GGUF file" in checkpoints.refused(path)


def entry(key, kind, value):
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def header(*entries, n_tensors=0, n_entries=None):
    count = len(entries) if n_entries is None else n_entries
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, count) + b"".join(entries)


def array(kind, length):
    return struct.pack("<IQ", kind, length)


NAMED = entry("general.architecture", 8, struct.pack("<Q", 5) + b"llama")
BOMBS = {
    "entries": header(n_entries=2**60),
    "tensors": header(NAMED, n_tensors=2**60),
    "string": header(entry("general.name", 8, struct.pack("<Q", 2**62))),
    "numbers": header(entry("a", 9, array(12, 2**60))),
    "strings": header(entry("a", 9, array(8, 2**60))),
    "short strings": header(NAMED, entry("a", 9, array(8, 2**21) + bytes(2**24))),
    "arrays of strings": header(
        NAMED, *(entry(str(n), 9, array(8, 2**20) + bytes(2**23)) for n in range(5))
    ),
    "nested arrays": header(entry("a", 9, array(9, 2**20))),
    "axes": header(NAMED, n_tensors=1) + struct.pack("<QcI", 1, b"x", 2**30),
}
GROWN = """
import fuzzing, sys, time
from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint
good, bad = sys.argv[1:]
checkpoint.load(good)
before, began = fuzzing.peak_kib(), time.perf_counter()
try:
    checkpoint.load(bad)
except errors.DataError as error:
    print((fuzzing.peak_kib() - before) / 1024, time.perf_counter() - began)
"""


@pytest.mark.parametrize("what", BOMBS)
def test_headers_that_promise_more_than_there_is_take_little_memory(written, tmp_path, what):
    (tmp_path / "bad.gguf").write_bytes(BOMBS[what])
    # A file in which all of it could lie.
    os.truncate(tmp_path / "bad.gguf", 2**36)
    status, printed, said = warm.run(GROWN, written(), tmp_path / "bad.gguf")
    assert status == 0 and printed, said
    grown, seconds = map(float, printed.split())
    assert grown < MAX_MIB and seconds < SECONDS


def test_needs_its_package(written, monkeypatch):
    path = written()
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install '.[gguf]'" in checkpoints.refused(path, errors.MissingError)
