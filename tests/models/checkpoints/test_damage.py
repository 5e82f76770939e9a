"""Damaged and hostile files: one clean error each, and no code run."""

import json
import pickle
import struct

import checkpoints
import jax
import msgpack
import numpy as np
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint as weights

pytestmark = pytest.mark.usefixtures("also_streamed")


def header(table):
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text


SAFETENSORS_GARBAGE = {
    "empty": b"",
    "short": b"\x01\x02",
    "noise": bytes(range(256)) * 4,
    "header beyond the file": struct.pack("<Q", 2**20) + b"{}",
    "oversized header": struct.pack("<Q", 2**62) + b"{}",
    "offsets beyond the file": header(
        {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}
    ),
    "shape beyond the offsets": header(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}
    )
    + b"0000",
    "unknown type": header({"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}})
    + b"0000",
    "eight-bit floats": header(
        {"wte.weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    )
    + b"0000",
    "a pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("case", SAFETENSORS_GARBAGE)
def test_garbage_safetensors_are_one_clean_error(tmp_path, case):
    checkpoints.write_config(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(SAFETENSORS_GARBAGE[case])
    assert "model.safetensors" in checkpoints.refused(tmp_path)


def array(shape, dtype, data, code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))


def pack(value):
    return msgpack.packb({"transformer": {"wte": {"embedding": value}}})


NESTED = b"\x81\xa1a"
MSGPACK_GARBAGE = {
    "empty": b"",
    "noise": bytes(range(255, 0, -1)) * 4,
    "a number": msgpack.packb(3),
    "a list": msgpack.packb([1, 2]),
    "a pickle": pickle.dumps({"a": 1}),
    "map beyond the file": b"\xdf\xff\xff\xff\xff",
    "list beyond the file": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "nested lists, a memory bomb": b"\x81\xa1a" + b"\xdd\x00\x00\xff\xff" * 20000,
    "extension beyond the file": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "text beyond the file": b"\x81\xdb\xff\xff\xff\xff",
    "nested too deeply": NESTED * 100 + b"\xc0",
    "nested without end": NESTED * 10**5,
    "trailing bytes": pack(array((1,), "float32", b"0000")) + b"\x00",
    "key is a number": msgpack.packb({1: 2}),
    "key is there twice": b"\x82\xa1a\x01\xa1a\x01",
    "key with a slash": msgpack.packb({"h/0": {}}),
    "leaf is text": pack("weights"),
    "leaf is null": pack(None),
    "complex number": pack(msgpack.ExtType(2, msgpack.packb((1.0, 2.0)))),
    "scalar": pack(array((), "float32", b"0000", code=3)),
    "unknown extension": pack(msgpack.ExtType(77, b"os.system")),
    "timestamp": b"\x81\xa1a\xd6\xff0000",
    "objects": pack(array((1,), "object", b"\x41" * 8)),
    "objects by letter": pack(array((1,), "O", b"\x41" * 8)),
    "structured": pack(array((1,), "f4,f4", b"\x41" * 8)),
    "strings": pack(array((1,), "S8", b"\x41" * 8)),
    "dates": pack(array((1,), "datetime64[s]", b"\x41" * 8)),
    "quarter precision": pack(array((8,), "float8_e4m3fn", b"\x41" * 8)),
    "shape beyond the data": pack(array((2**40,), "float32", b"0000")),
    "shape that overflows": pack(array((2**63, 2**63), "float32", b"0000")),
    "negative shape": pack(array((-1,), "float32", b"0000")),
    "shape of text": pack(array("ab", "float32", b"0000")),
    "shape of booleans": pack(array((True,), "float32", b"0000")),
    "data is no bytes": pack(array((1,), "float32", [1, 2])),
    "too few fields": pack(msgpack.ExtType(1, msgpack.packb((1, 2)))),
    "no fields": pack(msgpack.ExtType(1, b"")),
    "bomb inside an array": pack(msgpack.ExtType(1, b"\xdd\x00\x00\xff\xff" * 10000)),
}


@pytest.mark.parametrize("case", MSGPACK_GARBAGE)
def test_garbage_msgpack_is_one_clean_error(tmp_path, case):
    checkpoints.write_config(tmp_path)
    (tmp_path / "flax_model.msgpack").write_bytes(MSGPACK_GARBAGE[case])
    assert "flax_model.msgpack" in checkpoints.refused(tmp_path)


def damages(data, count, seed):
    """``count`` damaged copies: truncations, flipped bits, overwritten runs, half and half."""
    random = np.random.default_rng(seed)
    for number in range(count):
        copy = bytearray(data)
        place = int(random.integers(len(copy)))
        if number % 3 == 0:
            del copy[place:]
        elif number % 3 == 1:
            copy[place] ^= 1 << int(random.integers(8))
        else:
            run = random.bytes(int(random.integers(1, 9)))
            copy[place : place + len(run)] = run
        yield bytes(copy)


@pytest.mark.parametrize(("fmt", "count"), [("msgpack", 1000), ("safetensors", 500)])
def test_damaged_file_loads_checked_weights_or_fails_cleanly(tmp_path, fmt, count):
    architecture, params = checkpoints.make()
    weights.save(tmp_path, architecture, params, fmt)
    path = tmp_path / checkpoints.FILE[fmt]
    loaded = failed = 0
    # Structure is dense at the start of the file, where half of the damage goes.
    data = path.read_bytes()
    head = [d + data[600:] for d in damages(data[:600], count // 2, seed=1)]
    for damaged in [*damages(data, count // 2, seed=2), *head]:
        path.write_bytes(damaged)
        try:
            checkpoint = weights.load(tmp_path)
        except errors.JaxlensError as error:
            assert isinstance(error, errors.DataError)
            assert "\n" not in error.message
            assert checkpoints.FILE[fmt] in error.message
            failed += 1
            continue
        loaded += 1
        shapes = jax.tree.map(np.shape, checkpoint.params)
        assert shapes == jax.tree.map(np.shape, params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpoint.params))
    assert failed > count // 4  # the rest is damage inside the numbers
    assert loaded + failed == 2 * (count // 2)


class Bomb:
    """Whoever unpickles it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "model.ckpt"])
def test_pickles_are_refused_with_a_way_out_and_never_run(tmp_path, name):
    model = tmp_path / "m"
    checkpoints.write_config(model)
    (model / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    message = checkpoints.refused(model)
    assert name in message
    assert "safetensors" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", checkpoints.FILE.values())
def test_pickle_under_another_name_never_runs(tmp_path, file):
    checkpoints.write_config(tmp_path)
    (tmp_path / file).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    checkpoints.refused(tmp_path)
    assert not (tmp_path / "ran").exists()
