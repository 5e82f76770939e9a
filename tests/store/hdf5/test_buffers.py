"""The buffer that HDF5 takes for a file behaves as a file does."""

import os

from hypothesis import given
from hypothesis import strategies as st

from jaxlens.store.hdf5 import buffers

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
    buffer = buffers.Buffer()
    with open(os.memfd_create("model"), "w+b", buffering=0) as model:
        for step, place, what in steps:
            if step == "clear":
                buffer.clear()
                model.truncate(0)
            else:
                assert perform(buffer, step, place, what) == perform(model, step, place, what)
            model.seek(0)
            assert bytes(buffer.image()) == model.read()
            if size := len(buffer.image()):
                assert buffer.seek(-1, os.SEEK_END) == size - 1
                assert buffer.seek(1, os.SEEK_CUR) == size


def test_image_is_not_that_of_the_file_before():
    buffer = buffers.Buffer()
    buffer.write(b"x" * 100)
    buffer.clear()
    buffer.seek(50)
    buffer.write(b"y")
    assert bytes(buffer.image()) == bytes(50) + b"y"


def test_image_stays_as_it_is_where_the_next_one_needs_more_memory():
    buffer = buffers.Buffer()
    buffer.write(b"one")
    first = buffer.image()
    buffer.write(bytes(buffers.FIRST_BYTES))
    assert bytes(first) == b"one" and first.readonly
    assert buffer.readable() and buffer.writable() and buffer.seekable()
