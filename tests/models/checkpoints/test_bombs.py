"""Files that promise more than they hold: refused at once, and for little memory."""

import json
import os
import pathlib
import struct

import checkpoints
import msgpack
import numpy as np
import orbax.checkpoint
import pytest
import warm
from models.checkpoints import victim

from jaxlens.files import untrusted
from jaxlens.models import tokenizer
from jaxlens.models.checkpoints import formats

MAX_MIB = 50
SECONDS = 20


def header(table, size=None):
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


def numbered(entry, count):
    """As many entries that differ in the number at ``@``, joined by commas in no time."""
    thousand = ",".join(entry.replace("@", f"@{number:03}") for number in range(1000))
    return ",".join(thousand.replace("@", str(number)) for number in range(1, count // 1000 + 1))


def safetensors_promise(directory):
    checkpoints.write_config(directory)
    size = 2**36
    table = {"wte.weight": {"dtype": "F32", "shape": [2**34], "data_offsets": [0, size]}}
    (directory / "model.safetensors").write_bytes(header(table))
    os.truncate(directory / "model.safetensors", size + len(header(table)))


def safetensors_buffer(directory):
    """A mask, which is dropped and so need not be read."""
    state = checkpoints.torch_state(checkpoints.make()[1])
    checkpoints.write_safetensors(directory, state)
    raw = (directory / "model.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    table, size = json.loads(raw[8:start]), len(raw) - start
    table["h.0.attn.bias"] = {"dtype": "U8", "shape": [2**36], "data_offsets": [size, size + 2**36]}
    table["h.0.attn.other"] = {"dtype": "U8", "shape": [0], "data_offsets": [size + 2**36] * 2}
    (directory / "model.safetensors").write_bytes(header(table) + raw[start:])
    os.truncate(directory / "model.safetensors", len(header(table)) + size + 2**36)


def safetensors_header(directory):
    checkpoints.write_config(directory)
    text = '{"__metadata__":{' + numbered('"@":""', 6_000_000) + "}}"
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text.encode())


def safetensors_names(directory):
    checkpoints.write_config(directory)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    table = {str(number): empty for number in range(30_000)}
    assert len(header(table)) > formats.LARGEST_HEADER * 0.9
    (directory / "model.safetensors").write_bytes(header(table))


def msgpack_promise(directory):
    checkpoints.write_config(directory)
    size = 2**30
    start = b"\x81\xa1a\xc9" + struct.pack(">I", size) + b"\x01"
    (directory / "flax_model.msgpack").write_bytes(start)
    os.truncate(directory / "flax_model.msgpack", len(start) + size)


def msgpack_names(directory):
    checkpoints.write_config(directory)
    inner = {f"{number:x}": None for number in range(1000)}
    tree = {f"{number:x}": inner for number in range(1000)}
    (directory / "flax_model.msgpack").write_bytes(msgpack.packb(tree))


def msgpack_one_map(directory):
    checkpoints.write_config(directory)
    tree = dict.fromkeys(map(str, range(1_000_000)))
    (directory / "flax_model.msgpack").write_bytes(msgpack.packb(tree))


def msgpack_maps(directory):
    checkpoints.write_config(directory)
    (directory / "flax_model.msgpack").write_bytes(b"\xdf\x00\x10\x00\x00\xa1a" * 10**6)


def big_config(directory):
    victim.model(directory)
    (directory / "config.json").write_bytes(b"[" + b"[]," * 10_000_000 + b"0]")


def full_config(directory):
    victim.model(directory)
    (directory / "config.json").write_bytes(
        b"[" + b"[]," * (untrusted.MAX_JSON_BYTES // 3 - 1) + b"0]"
    )


def full_index(directory):
    checkpoints.write_shards(directory, "msgpack")
    name = directory / "flax_model.msgpack.index.json"
    name.write_bytes(b"[" + b"{}," * (untrusted.MAX_JSON_BYTES // 3 - 1) + b"0]")


def promising_config(directory):
    victim.model(directory)
    checkpoints.write_config(directory, {**checkpoints.CONFIG, "vocab_size": 10**7})


def terabytes(directory):
    victim.model(directory, "msgpack")
    change = {"vocab_size": 10**7, "n_embd": 10**5, "n_layer": 1000}
    checkpoints.write_config(directory, {**checkpoints.CONFIG, **change})


def many_layers(directory):
    state = {"wpe.weight": np.zeros((7, 6), np.float32)}
    state["h.0.mlp.c_fc.weight"] = np.zeros((6, 10**5), np.float32)
    change = {"n_layer": 1000, "n_inner": 10**5}
    checkpoints.write_safetensors(directory, state, {**checkpoints.CONFIG, **change})


def orbax_shape(directory):
    _, params = checkpoints.make()
    params["wte"] = np.zeros((4 * 10**6, 6), np.float32)  # compresses to nothing
    checkpoints.write_config(directory)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory.absolute() / "orbax", params)


def big_tokenizer(directory):
    text = json.dumps(victim.bpe(vocab={"VOCAB": 0}, merges=[]))
    text = text.replace('"VOCAB": 0', numbered('"token @":@', 2_600_000))
    (victim.model(directory) / "tokenizer.json").write_text(text)
    assert (directory / "tokenizer.json").stat().st_size > 50 * 2**20


def deep_tokenizer(directory):
    deep = '{"type":"Sequence","normalizers":[' * 10**5
    text = json.dumps(victim.TOKENIZER)[:-1] + ',"normalizer":' + deep
    (victim.model(directory) / "tokenizer.json").write_text(text)


def tokenizer_holes(directory):
    vocab = {"a": 0, "b": tokenizer.LARGEST_ID}
    (victim.model(directory) / "tokenizer.json").write_text(
        json.dumps(victim.bpe(vocab=vocab, merges=[]))
    )


BOMBS = [
    *(safetensors_promise, safetensors_buffer, safetensors_header, safetensors_names),
    *(msgpack_promise, msgpack_names, msgpack_one_map, msgpack_maps, big_config, full_config),
    *(full_index, promising_config, terabytes, many_layers, orbax_shape, big_tokenizer),
    *(deep_tokenizer, tokenizer_holes),
]

GROWN = """
import fuzzing, pathlib, sys, time
from jaxlens import errors
from jaxlens.models.tokenizer import load_tokenizer
from jaxlens.models.checkpoints import checkpoint as weights
good, bad = map(pathlib.Path, sys.argv[1:])
weights.load(good), load_tokenizer(good)
before, began = fuzzing.peak_kib(), time.perf_counter()
try:
    weights.load(bad), load_tokenizer(bad)
except errors.DataError as error:
    print((fuzzing.peak_kib() - before) / 1024, time.perf_counter() - began)
"""


# One of each format, and two of the configuration and of the tokenizer.
SHORT = (
    *(safetensors_promise, msgpack_promise, orbax_shape, full_config, terabytes),
    *(deep_tokenizer, tokenizer_holes),
)


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(bomb, id=bomb.__name__, marks=[pytest.mark.long] * (bomb not in SHORT))
        for bomb in BOMBS
    ],
)
def test_bombs_are_refused_at_once_and_take_little_memory(tmp_path, bomb):
    if not pathlib.Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc/self/status")
    good = victim.model(tmp_path / "good", "orbax" if bomb is orbax_shape else "safetensors")
    bomb(tmp_path / "bad")
    status, printed, said = warm.run(GROWN, good, tmp_path / "bad")
    assert status == 0, said
    assert printed, "it was loaded"
    grown, seconds = map(float, printed.split())
    assert grown < MAX_MIB
    assert seconds < SECONDS


def test_memory_that_a_fork_takes_is_seen():
    taking = "import fuzzing; before = fuzzing.peak_kib(); b'x' * (64 << 20)"
    status, printed, said = warm.run(f"{taking}; print(fuzzing.peak_kib() - before)")
    assert status == 0, said
    assert int(printed) >= 60 << 10


def test_mask_is_dropped_unread(tmp_path):
    """What ``safetensors_buffer`` holds is a sound model but for its last tensor."""
    safetensors_buffer(tmp_path)
    assert "h.0.attn.other" in checkpoints.refused(tmp_path)
