"""Ctrl-C, and what is drawn on a terminal meanwhile, in a real process on a real terminal."""

import json
import signal
import time

import pytest
from sweeps import digest, flags, start
from typed import Terminal


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A corpus that takes a while."""
    path = tmp_path_factory.mktemp("many") / "many.jsonl"
    lines = [json.dumps({"text": f"the old town number {n} " * 60}) for n in range(1200)]
    path.write_text("\n".join(lines))
    return path


HINT = "hint: run the same command to resume"


def test_ctrl_c_in_mid_sweep_says_how_to_resume(tiny, many, tmp_path):
    typed = Terminal(*flags(tiny, many, tmp_path / "out"))
    assert typed.wait(r"[1-9][\d,]* of [\d,]+ tokens"), typed.raw
    typed.type("\x03")
    typed.wait()
    assert typed.code == 130, typed.raw
    assert typed.screen()[-3:] == ["error: interrupted by Ctrl-C", HINT, ""]
    assert "Traceback" not in typed.raw


def test_ctrl_c_before_the_sweep_says_so_too_and_the_log_is_whole_lines(tiny, many, tmp_path):
    typed = Terminal(*flags(tiny, many, tmp_path / "out"))
    assert typed.wait("tokenising the corpus"), typed.raw
    typed.type("\x03")
    typed.wait()
    assert typed.code == 130, typed.raw
    screen = typed.screen()
    assert screen[-3:] == ["error: interrupted by Ctrl-C", HINT, ""]
    assert screen[0] in ("tokenising the corpus", "tokenising the corpus^C")
    assert not (tmp_path / "out" / "RUN.json").exists()


def test_log_lines_and_the_bar_keep_apart(tiny, texts, tmp_path):
    typed = Terminal(*flags(tiny, texts, tmp_path / "out"))
    typed.wait()
    assert typed.code == 0, typed.raw
    screen = typed.screen()
    assert "of 4," in typed.raw or "tok/s" in typed.raw  # a bar was drawn
    assert screen[:2] == ["tokenising the corpus", "compiling the step"]
    assert screen[2].startswith("skipped 2 documents or lines: 1 bad JSON, 1 empty")
    assert not any("━" in line for line in screen)


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.long
def test_hanging_up_stops_a_run_like_sigterm_and_nohup_does_not(tiny, texts, tmp_path, swept):
    out = tmp_path / "out"
    process = start(*flags(tiny, texts, out))
    while process.poll() is None and not list(out.glob("shards/*.h5")):
        time.sleep(0.002)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 75
    deaf = start(*flags(tiny, texts, out), ignoring="HUP")
    before = len(list(out.glob("shards/*.h5")))
    while deaf.poll() is None and len(list(out.glob("shards/*.h5"))) == before:
        time.sleep(0.002)
    deaf.send_signal(signal.SIGHUP)
    assert deaf.wait() == 0
    assert digest(out) == digest(swept)
