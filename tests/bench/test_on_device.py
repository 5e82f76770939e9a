"""The script for an accelerator: its table, its budgets, and that it finds what is wrong."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def on_device():
    return module("on_device")


def rate(part, what, tokens_per_second, **more):
    return {"part": part, "what": what, "rate": tokens_per_second, **more}


LINES = [
    {
        "part": "gpt2",
        "device": "1 x Made Up",
        "versions": {"jax": "1.2"},
        "multiply_flops": 4e14,
        "copy_bytes": 2e12,
        "precision": "bfloat16",
    },
    {"part": "numerics", "check": "forward", "right": True, "found": "1e-6"},
    rate("gpt2", "end to end", 80_000.0, of_multiply=0.41),
    rate("gpt2-torch", "eager", 40_000.0),
    rate("gpt2-torch", "compile", 41_000.0),
    {"part": "gpt2-torch", "ended": "over its budget", "seconds": 80.0},
]


def test_the_table_says_rates_goals_and_what_was_cut_short(on_device):
    text = on_device.table(LINES)
    assert "400 TFLOP/s (bfloat16), copy 2,000 GB/s" in text
    assert "numerics: 1 of 1 checks are right" in text
    assert "gpt2: 0.41 of the multiply rate, 0.40 wanted: reached" in text
    assert "gpt2: 2.00 times PyTorch, eager, 4.00 wanted: NOT reached" in text
    assert "gpt2: 1.95 times PyTorch, compile, 2.00 wanted: NOT reached" in text
    assert "gpt2-torch: over its budget after 80 s" in text
    wrong = on_device.table([*LINES, {"check": "lens", "right": False, "found": "2 nat"}])
    assert "numerics: 1 of 2" in wrong and "WRONG lens: 2 nat" in wrong


@pytest.fixture
def parts(on_device, tmp_path, monkeypatch):
    """Parts that are scripts of the test."""

    def make(**sources):
        found = {}
        for name, (seconds, source) in sources.items():
            path = tmp_path / f"{name}.py"
            path.write_text("import json, sys, time\n" + source)
            found[name] = (seconds, (str(path),))
        monkeypatch.setattr(on_device, "PARTS", found)
        monkeypatch.setattr(on_device, "HERE", tmp_path)

    return make


SLOW = "print(json.dumps({'what': 'first', 'rate': 1.0}), flush=True); time.sleep(600)"


@pytest.mark.long
def test_a_part_that_is_slow_is_stopped_and_what_it_found_is_kept(on_device, parts):
    parts(slow=(8.0, SLOW), broken=(60.0, "print('not JSON'); sys.exit(3)"))
    found = on_device.run("slow", 8.0, small=False)
    assert found[0] == rate("slow", "first", 1.0)
    assert found[-1]["ended"] == "over its budget" and 8 <= found[-1]["seconds"] < 60
    assert [line["ended"] for line in on_device.run("broken", 60.0, small=True)] == [
        "failed with status 3"
    ]
    assert on_device.run("slow", 4.0, small=False)[0]["ended"] == "no time left"


@pytest.mark.parametrize(("right", "status"), [("True", 0), ("False", 1)])
def test_records_are_appended_and_a_wrong_number_is_a_failure(
    on_device, parts, tmp_path, monkeypatch, right, status
):
    parts(numerics=(60.0, f"print(json.dumps({{'check': 'x', 'right': {right}, 'found': ''}}))"))
    records = tmp_path / "records.jsonl"
    records.write_text('{"before": 1}\n')
    monkeypatch.setattr(
        sys, "argv", ["on_device.py", "--records", str(records), "--only", "numerics"]
    )
    with pytest.raises(SystemExit) as ended:
        on_device.main()
    assert ended.value.code == status
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert lines[0] == {"before": 1} and lines[1]["part"] == "numerics"
    assert lines[1]["command"][0] == "benchmarks/on_device.sh"


def test_the_comparison_refuses_what_is_not_rounding(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    compare = module("on_device_numerics")._compare
    exact = {
        "entropy": np.ones((2, 1, 3)),
        "rank_next_low": np.full((2, 1, 3), 4),
        "rank_next_high": np.full((2, 1, 3), 5),
        "top_id": np.zeros((2, 1, 3, 1), int),
        "top_gap": np.array([[[1.0, 1.0, 1e-6]]] * 2),
    }
    names = {"entropy": 1.0, "rank_next": 5, "top_id": 0}

    def found(**changes):
        values = {name: np.full((2, 1, 3), value) for name, value in (names | changes).items()}
        return values | {"top_id": values["top_id"][..., None]}

    assert compare(exact, found(entropy=1.0 + 1e-5), "float32")[0]
    assert compare(exact, found(entropy=1.05, rank_next=900), "bfloat16")[0]
    for wrong in ({"entropy": 1.05}, {"entropy": np.nan}, {"rank_next": 6}, {"top_id": 1}):
        assert not compare(exact, found(**wrong), "float32")[0]
    assert not compare(exact, found(entropy=1.2), "bfloat16")[0]
    tied = found()
    tied["top_id"][..., 2, :] = 7  # where the two best are equal but for rounding
    assert compare(exact, tied, "float32")[0]


@pytest.mark.long
def test_a_small_run_passes_on_any_machine(tmp_path):
    records = tmp_path / "records.jsonl"
    command = [str(FOLDER / "on_device.sh"), "--small", "--records", str(records)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "end to end" in done.stdout and "WRONG" not in done.stdout
    parts = {json.loads(line)["part"] for line in records.read_text().splitlines()}
    assert parts == {"numerics", "gpt2", "gpt2-torch"}
