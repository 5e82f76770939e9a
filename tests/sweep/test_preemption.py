"""Being asked to stop: the shard in work is finished where the grace allows it, else dropped."""

import os
import signal
import threading
import time

import pytest
from sweeps import configure, digest, flags, run_cli, start

from jaxlens import errors
from jaxlens.sweep import preemption, run


class AskedAfter:
    """Progress that asks to stop after so many steps."""

    def __init__(self, asked, steps):
        self.asked, self.steps = asked, steps

    def begin(self, total, done):
        pass

    def advance(self, count):
        pass

    def computed(self, count):
        self.steps -= 1
        if self.steps == 0:
            self.asked.request("SIGTERM")


def parts(out):
    return sorted(path.name for path in (out / "shards").glob("*.h5"))


def test_with_time_left_the_shard_in_work_is_finished_and_no_other(tiny, texts, tmp_path, swept):
    asked = preemption.StopRequest(600)
    # A shard has four steps; one is always dispatched ahead, so here shard 1 is in work.
    with pytest.raises(errors.InterruptedRun, match="SIGTERM") as caught:
        run.run(configure(tiny, texts, tmp_path), AskedAfter(asked, 4), asked)
    assert caught.value.exit_code == 75
    assert parts(tmp_path) == ["part-00000.h5", "part-00001.h5"]
    assert run.run(configure(tiny, texts, tmp_path)).finished
    assert digest(tmp_path) == digest(swept)


def test_without_time_the_shard_in_work_is_dropped(tiny, texts, tmp_path, swept):
    asked = preemption.StopRequest(1.0)  # less than publishing a shard may take
    with pytest.raises(errors.InterruptedRun):
        run.run(configure(tiny, texts, tmp_path), AskedAfter(asked, 4), asked)
    assert parts(tmp_path) == ["part-00000.h5"]
    assert run.run(configure(tiny, texts, tmp_path)).finished
    assert digest(tmp_path) == digest(swept)


def test_without_any_grace_a_signal_interrupts_at_once():
    asked = preemption.StopRequest(0)
    with pytest.raises(errors.InterruptedRun), preemption.on_signals(asked), asked.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_a_signal_while_nothing_is_in_work_interrupts_at_once():
    with (
        pytest.raises(errors.InterruptedRun, match="SIGUSR1"),
        preemption.on_signals(preemption.StopRequest(60)),
    ):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(5)


def test_work_that_outlasts_its_grace_is_interrupted():
    asked = preemption.StopRequest(0.2)
    began = time.monotonic()
    with pytest.raises(errors.InterruptedRun), preemption.on_signals(asked), asked.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.requested and not asked.has_time_for(0.3)
        time.sleep(30)
    assert time.monotonic() - began < 20


def test_a_second_signal_does_not_wait():
    asked = preemption.StopRequest(600)
    with pytest.raises(errors.InterruptedRun), preemption.on_signals(asked), asked.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_handlers_and_timer_are_put_back():
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]
    asked = preemption.StopRequest(600)
    with preemption.on_signals(asked), asked.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]


def test_outside_the_main_thread_no_handler_is_touched():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with preemption.on_signals(preemption.StopRequest(1)) as asked:
            seen.append((signal.getsignal(signal.SIGTERM), asked.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.long)]
)
def test_the_command_line_exits_with_75_and_resumes(tiny, texts, tmp_path, swept, number):
    out = tmp_path / "out"
    command = flags(tiny, texts, out)
    process = start(*command)
    while process.poll() is None and not list(out.glob("shards/*.h5")):
        time.sleep(0.002)
    process.send_signal(number)
    assert process.wait() == 75
    assert run_cli(*command) == 0
    assert digest(out) == digest(swept)
