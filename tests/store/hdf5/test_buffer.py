"""The memory that HDF5 takes for a file behaves as a file does."""

import os

from hypothesis import given
from hypothesis import strategies as st

from jaxlens.store.hdf5 import buffer

PLACE = st.integers(0, 300)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PLACE, st.binary(max_size=200)),
        st.tuples(st.just("read"), PLACE, st.integers(0, 200)),
        st.tuples(st.just("truncate"), PLACE, st.none()),
        st.tuples(st.just("cut here"), PLACE, st.none()),
        st.tuples(st.just("clear"), st.just(0), st.none()),
    ),
    max_size=30,
)


def perform(file, step, place, what):
    """One step, and what it gave."""
    file.seek(place)
    if step == "write":
        return file.write(what), file.tell()
    if step == "read":
        target = bytearray(what)
        count = file.readinto(target)
        return count, bytes(target[:count])
    return file.truncate(place) if step == "truncate" else file.truncate()


@given(STEPS)
def test_buffer_does_what_a_file_does(steps):
    memory = buffer.Buffer()
    with open(os.memfd_create("model"), "w+b", buffering=0) as model:
        for step, place, what in steps:
            if step == "clear":
                memory.clear()
                model.truncate(0)
            else:
                assert perform(memory, step, place, what) == perform(model, step, place, what)
            model.seek(0)
            assert bytes(memory.image()) == model.read()
            if size := len(memory.image()):
                assert memory.seek(-1, os.SEEK_END) == size - 1
                assert memory.seek(1, os.SEEK_CUR) == size


def test_image_is_not_that_of_the_file_before():
    memory = buffer.Buffer()
    memory.write(b"x" * 100)
    memory.clear()
    memory.seek(50)
    memory.write(b"y")
    assert bytes(memory.image()) == bytes(50) + b"y"


def test_image_stays_as_it_is_where_the_next_one_needs_more_memory():
    memory = buffer.Buffer()
    memory.write(b"one")
    first = memory.image()
    memory.write(bytes(buffer.FIRST_BYTES))
    assert bytes(first) == b"one" and first.readonly
    assert memory.readable() and memory.writable() and memory.seekable()
