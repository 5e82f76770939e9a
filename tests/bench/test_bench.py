"""The benchmark measures the real sweep, and its figures hang together."""

import json

import numpy as np
import pytest

from jaxlens import config, errors
from jaxlens.bench import counts, measure, random_model, roofline
from jaxlens.bench.report import Report
from jaxlens.cli import main

TINY = {"plan.length": "32", "plan.step_sequences": "2", "devices": "1", "lens.block": "16"}


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", *arguments])
    return ended.value.code


@pytest.fixture(scope="module")
def report(tiny, tmp_path_factory):
    """A report by the command line, as JSON."""
    path = tmp_path_factory.mktemp("bench") / "bench.jsonl"
    settings = [f"--set={key}={value}" for key, value in TINY.items()]
    flags = ["--model", str(tiny), "--rounds", "2", "--json", str(path), *settings]
    assert run(*flags, "--picture", str(path.with_suffix(".png"))) == 0
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    (line,) = path.read_text().splitlines()
    return json.loads(line)


def test_every_stage_has_its_rounds(report):
    assert set(report["seconds"]) == {"sweep", "forward", "lens", "fetch", "publish"}
    assert all(len(s) == 2 and min(s) > 0 for s in report["seconds"].values())
    assert (report["tokens"], report["sweep_tokens"], report["devices"]) == (64, 128, 1)
    assert report["published_bytes"] > 128 * 3 * 2
    assert report["compile_seconds"] > 0 and report["peak_bytes"]["host"] > 2**26
    assert report["environment"]["packages"]["jax"]


def test_no_figure_without_its_accuracy(report):
    found = report["accuracy"]
    assert 0 < found["nats"] < 1e-2 and found["ranks"] > 0.99 and found["top"] > 0.99


def test_shares_of_the_multiply_rate_come_from_counted_operations(report):
    lens = 2 * 3 * 8 * 4096
    blocks = 2 * (2 * 8 * (4 * 8 + 2 * 32) + 2 * 32 * 8)
    assert report["flops"] == {"forward": blocks, "lens": lens, "sweep": blocks + lens}
    found = Report(**report)
    assert found.rate("lens") == 64 / np.median(report["seconds"]["lens"])
    assert found.rate("sweep") == 128 / np.median(report["seconds"]["sweep"])
    share = found.rate("lens") * lens / report["multiply_flops"]
    assert found.of_multiply("lens") == pytest.approx(share)
    assert report["copy_bytes"] > 1e8
    title, (roof,), points = roofline.points([found])
    assert "tiny" in title and roof.flops == report["multiply_flops"]
    (point,) = [p for p in points if p.stage == "lens"]
    assert point.flops == pytest.approx(share * roof.flops)
    assert point.intensity == lens / report["bytes_moved"]["lens"]


def test_operations_of_the_published_shape_are_those_of_the_cost_model():
    flops = counts.count_flops(random_model.architecture("gpt2"), 1024)
    assert flops["lens"] == pytest.approx(1004e6, rel=0.01)
    # The cost model multiplies whole lines in attention, where half is masked.
    assert flops["forward"] + 12 * 2 * 1024 * 768 == pytest.approx(208e6, rel=0.01)


def test_a_grid_prints_a_line_a_configuration(report, monkeypatch, capsys):
    configurations = list(measure.grid("gpt2", config.load([], {}, {})))
    assert len(configurations) == len(set(configurations)) == 12
    assert {c.lens.precision for c in configurations} == {"float32", "bfloat16"}
    made = []

    def measured(shape, given, rounds):
        made.append((shape, given.plan, given.lens, rounds))
        return Report(**report)

    monkeypatch.setattr(measure, "measure", measured)
    assert run("gpt2", "--sweep", "--rounds", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13 and "tok/s" in lines[0] and "of best tokens" in lines[1]
    assert made == [("gpt2", one.plan, one.lens, 1) for one in configurations]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt5"], "unknown shape gpt5"),
        (["gpt2", "--model", "packaged"], "a shape and a model"),
        (["--rounds", "0"], "rounds is 0"),
        (["--precision", "float16"], "lens.precision"),
        (["--picture", "roof.gif"], "a picture roof.gif"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, message):
    assert run(*arguments) == errors.ConfigError.exit_code
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: ") and message in said[0]
    assert said[1].startswith("hint: ") and len(said) == 2
