"""Files that promise more than they hold: refused at once, and for little memory."""

import json
import os
import pathlib
import struct
import subprocess
import sys

import checkpoints
import msgpack
import numpy as np
import orbax.checkpoint
import pytest
from models import victim

from jaxlens.corpus import vocabulary
from jaxlens.models import files, formats

MOST_MIB = 50
SECONDS = 20


def header(table, size=None):
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


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
    entries = ",".join(f'"{number}":""' for number in range(6_000_000))
    text = b'{"__metadata__":{' + entries.encode() + b"}}"
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)


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
    tree = {f"{number:x}": None for number in range(1_000_000)}
    (directory / "flax_model.msgpack").write_bytes(msgpack.packb(tree))


def msgpack_maps(directory):
    checkpoints.write_config(directory)
    (directory / "flax_model.msgpack").write_bytes(b"\xdf\x00\x10\x00\x00\xa1a" * 10**6)


def big_config(directory):
    victim.model(directory)
    (directory / "config.json").write_bytes(b"[" + b"[]," * 33_000_000 + b"0]")


def full_config(directory):
    victim.model(directory)
    (directory / "config.json").write_bytes(b"[" + b"[]," * (files.LARGEST_JSON // 3 - 1) + b"0]")


def full_index(directory):
    checkpoints.write_shards(directory, "msgpack")
    name = directory / "flax_model.msgpack.index.json"
    name.write_bytes(b"[" + b"{}," * (files.LARGEST_JSON // 3 - 1) + b"0]")


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
    params["wte"] = np.zeros((10**7, 6), np.float32)  # compresses to nothing
    checkpoints.write_config(directory)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory.absolute() / "orbax", params)


def big_tokenizer(directory):
    vocab = {f"{number:09}": number for number in range(2_600_000)}
    (victim.model(directory) / "tokenizer.json").write_text(
        json.dumps(victim.bpe(vocab=vocab, merges=[]))
    )
    assert (directory / "tokenizer.json").stat().st_size > 50 * 2**20


def deep_tokenizer(directory):
    deep = '{"type":"Sequence","normalizers":[' * 10**5
    text = json.dumps(victim.TOKENIZER)[:-1] + ',"normalizer":' + deep
    (victim.model(directory) / "tokenizer.json").write_text(text)


def tokenizer_holes(directory):
    vocab = {"a": 0, "b": vocabulary.LARGEST_ID}
    (victim.model(directory) / "tokenizer.json").write_text(
        json.dumps(victim.bpe(vocab=vocab, merges=[]))
    )


BOMBS = [
    *(safetensors_promise, safetensors_buffer, safetensors_header, safetensors_names),
    *(msgpack_promise, msgpack_names, msgpack_one_map, msgpack_maps, big_config, full_config),
    *(full_index, promising_config, terabytes, many_layers, orbax_shape, big_tokenizer),
    *(deep_tokenizer, tokenizer_holes),
]

# The peak that getrusage knows is inherited from the parent; this one starts with the program.
GROWN = """
import pathlib, sys, time
from jaxlens import errors
from jaxlens.corpus import vocabulary
from jaxlens.models import weights
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
good, bad = sys.argv[1:]
weights.load(good), vocabulary.load_tokenizer(good)
before, began = peak(), time.perf_counter()
try:
    weights.load(bad), vocabulary.load_tokenizer(bad)
except errors.DataError as error:
    print(peak() - before, time.perf_counter() - began)
"""


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_bombs_are_refused_at_once_and_take_little_memory(tmp_path, bomb):
    if not pathlib.Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc/self/status")
    good = victim.model(tmp_path / "good", "orbax" if bomb is orbax_shape else "safetensors")
    bomb(tmp_path / "bad")
    command = [sys.executable, "-c", GROWN, good, tmp_path / "bad"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout, "it was loaded"
    grown, seconds = map(float, done.stdout.split())
    assert grown < MOST_MIB
    assert seconds < SECONDS


def test_mask_is_dropped_unread(tmp_path):
    """What ``safetensors_buffer`` holds is a sound model but for its last tensor."""
    safetensors_buffer(tmp_path)
    assert "h.0.attn.other" in checkpoints.refused(tmp_path)
