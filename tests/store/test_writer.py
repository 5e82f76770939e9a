import gc
import threading
import time
import weakref

import pytest

from jaxlens import errors
from jaxlens.store import writer

PATIENCE = 10.0
"""Seconds after which a thread counts as stuck."""


def test_jobs_run_in_order_and_close_waits_for_them():
    done = []
    publisher = writer.Writer()
    for number in range(20):
        publisher.submit(lambda n=number: done.append(n))
    publisher.close()
    publisher.close()
    assert done == list(range(20))


def test_submit_blocks_while_two_jobs_wait():
    gate, submitted = threading.Event(), []
    publisher = writer.Writer()

    def produce():
        for number in range(5):
            publisher.submit(lambda: gate.wait(PATIENCE))
            submitted.append(number)

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.1)
    assert submitted == [0, 1, 2]  # one runs, two wait
    gate.set()
    producer.join(PATIENCE)
    assert submitted == [0, 1, 2, 3, 4]
    publisher.close()


def test_error_wakes_a_producer_that_waits_for_room():
    gate, caught = threading.Event(), []
    publisher = writer.Writer()

    def fail():
        gate.wait(PATIENCE)
        raise errors.StorageError("full")

    def produce():
        try:
            for _ in range(5):
                publisher.submit(fail)
        except errors.StorageError as error:
            caught.append(error)

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.05)
    gate.set()
    producer.join(PATIENCE)
    assert not producer.is_alive() and len(caught) == 1
    publisher.close()  # it was raised already


def test_error_is_raised_by_close_and_later_jobs_are_dropped():
    gate, done = threading.Event(), []
    publisher = writer.Writer()

    def fail():
        gate.wait(PATIENCE)
        raise errors.StorageError("full")

    publisher.submit(fail)
    publisher.submit(lambda: done.append(1))
    gate.set()
    with pytest.raises(errors.StorageError, match="full"):
        publisher.close()
    assert done == []


def test_every_submit_after_an_error_raises_it():
    publisher = writer.Writer()
    publisher.submit(lambda: 1 / 0)
    publisher._thread.join(PATIENCE)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            publisher.submit(lambda: None)
    publisher.close()


def test_failing_block_finishes_what_was_submitted_and_keeps_its_own_error():
    done = []
    with pytest.raises(KeyError, match="mine"), writer.Writer() as publisher:
        publisher.submit(lambda: done.append(1))
        raise KeyError("mine")
    assert done == [1] and not publisher._thread.is_alive()


def test_failing_block_notes_that_the_writer_failed_too():
    with pytest.raises(KeyError) as caught, writer.Writer() as publisher:
        publisher.submit(lambda: 1 / 0)
        publisher._thread.join(PATIENCE)
        raise KeyError("mine")
    assert "division" in caught.value.__notes__[0]


def test_leaving_the_block_raises_the_error_of_a_job():
    with pytest.raises(ZeroDivisionError), writer.Writer() as publisher:
        publisher.submit(lambda: 1 / 0)


def test_submitting_to_a_closed_writer_is_refused():
    publisher = writer.Writer()
    publisher.close()
    with pytest.raises(RuntimeError, match="closed"):
        publisher.submit(lambda: None)


def test_finished_job_is_forgotten_before_the_next_one_comes():
    class Image:
        def __call__(self):
            pass

    publisher = writer.Writer()
    image = Image()
    forgotten = weakref.ref(image)
    publisher.submit(image)
    del image
    deadline = time.monotonic() + PATIENCE
    while forgotten() is not None and time.monotonic() < deadline:
        time.sleep(0.005)
        gc.collect()
    assert forgotten() is None
    publisher.close()
