"""The comparison with other tools: the table from its records, the check of its numbers."""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest

PEERS = pathlib.Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture(scope="module")
def peers():
    """The modules of the folder, by name; they import each other as scripts do."""
    found, before = {}, dict(sys.modules)
    for name in ("case", "agree", "table"):
        spec = importlib.util.spec_from_file_location(name, PEERS / f"{name}.py")
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    for name in found:
        sys.modules.pop(name)
    sys.modules.update({name: before[name] for name in found if name in before})
    return found


def measured(rate, busy=2.0):
    packages = ("jaxlens-logitlens", "torch", "tuned-lens")
    return {
        "tokens_per_second": rate,
        "slowest": rate - 2,
        "fastest": rate + 2,
        "peak_bytes": 3 * 2**30,
        "busy_threads": busy,
        "threads": 2,
        "versions": dict.fromkeys(packages, "1.2+cpu"),
    }


def record(**changes):
    made = {
        "shape": "gpt2",
        "device": "cpu",
        "tokens": 256,
        "rounds": 5,
        "note": "",
        "environment": {"cores": 2, "processor": "Made Up", "devices": [{"kind": "cpu"}]},
        "measured": {
            "tuned-lens": measured(20.0),
            "pytorch": measured(50.0),
            "jaxlens": measured(100.0),
            "jaxlens-bfloat16": measured(200.0),
        },
        "agreement": {
            "jaxlens-bfloat16": {"worst_nats": 0.05, "worst_rank": 900, "same_ranks": 0.1},
            "pytorch": {"worst_nats": 1e-4, "worst_rank": 2, "same_ranks": 0.98},
        },
    }
    return made | changes


def test_the_table_has_ours_first_and_then_the_fastest(peers):
    text = peers["table"].section(record())
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    names = [line.split("|")[1].strip() for line in rows]
    assert names == [
        "jaxlens, bfloat16 operands",
        "jaxlens",
        "PyTorch + transformers, in blocks",
        "tuned-lens",
    ]
    label = "PyTorch + transformers, in blocks"
    assert rows[2] == f"| {label} | 1.2 | 50 | 48 to 52 | 2.00 × | 3.0 GiB |"


def test_the_caption_states_the_agreement_of_float32_alone(peers):
    text = peers["table"].caption(record())
    assert (
        "within 1e-04 nat; 98% or more of the ranks are equal, none is off by more than 2" in text
    )
    assert "rest" not in text


def test_a_busy_machine_is_told(peers):
    busy = record(note="under load", measured={"jaxlens": measured(100.0, busy=1.0)})
    assert "Taken under load." in peers["table"].caption(busy)
    assert "jaxlens had too few threads" in peers["table"].caption(busy)


def test_the_newest_record_that_fits_is_taken(peers):
    records = [record(rounds=1), record(rounds=2), record(rounds=3, device="cuda")]
    records += [record(rounds=4, tokens=512), record(rounds=5, shape="mini")]
    newest = peers["table"].newest
    assert newest(records)["rounds"] == 4
    assert newest(records, tokens=256)["rounds"] == 2
    assert newest(records, device="cuda")["rounds"] == 3
    with pytest.raises(SystemExit, match="no record"):
        newest(records, tokens=7)


def test_a_peer_that_the_table_lacks_gets_a_ratio_from_rounds_of_its_own(peers):
    table = peers["table"]
    rates = {"jaxlens": 10.0, "jaxlens-bfloat16": 30.0, "pytorch-bfloat16": 12.0}
    some = {
        name: measured(rate) | {"tokens_per_processor_second": rate} for name, rate in rates.items()
    }
    only = record(only=["jaxlens-bfloat16", "pytorch-bfloat16"], measured=some, tokens=64)
    # It is newer, and not taken for the table.
    assert table.newest([record(), only])["tokens"] == 256
    text = table.section(record(), added=table.additions([record(), only], record()))
    label = "PyTorch, bfloat16 operands, in blocks"
    assert f"| {label} | 1.2 |  |  | 2.50 × | 3.0 GiB |" in text
    assert f"{label}: only the ratio, of processor time" in text
    assert "tuned-lens | 1.2 | 20 " in text
    assert label not in table.section(record())


def test_who_rounds_operands_is_compared_with_jaxlens_that_does(peers):
    everybody = record()["measured"] | {"pytorch-bfloat16": measured(80.0)}
    assert "| 2.50 × |" in peers["table"].row("pytorch-bfloat16", everybody)
    assert "| 2.00 × |" in peers["table"].row("pytorch", everybody)


def test_writing_makes_the_check_pass(peers, tmp_path, monkeypatch):
    table = peers["table"]
    readme, records = tmp_path / "README.md", tmp_path / "peers.jsonl"
    page = tmp_path / "performance.md"
    for path in (readme, page):
        path.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    records.write_text(json.dumps(record()) + "\n")
    arguments = [
        "table.py",
        "--readme",
        str(readme),
        "--records",
        str(records),
        "--page",
        str(page),
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, "--check"])
    with pytest.raises(SystemExit, match="--write"):
        table.main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--write"])
    table.main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--check"])
    table.main()
    for path in (readme, page):
        text = path.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert ("PyTorch" in text) == (path is page)


def test_a_record_of_a_busy_machine_is_never_written(peers, tmp_path, monkeypatch):
    table, records = peers["table"], tmp_path / "peers.jsonl"
    busy = record()
    busy["measured"]["pytorch"] = measured(20.0, busy=1.0)
    records.write_text(json.dumps(busy) + "\n")
    readme = tmp_path / "README.md"
    readme.write_text(f"{table.BEGIN}{table.END}")
    arguments = [
        "--readme",
        str(readme),
        "--page",
        str(readme),
        "--records",
        str(records),
        "--write",
    ]
    monkeypatch.setattr(sys, "argv", ["table.py", *arguments])
    with pytest.raises(SystemExit, match="busy machine"):
        table.main()
    assert readme.read_text() == f"{table.BEGIN}{table.END}"


def test_a_readme_without_markers_is_refused(peers):
    with pytest.raises(SystemExit, match="has no"):
        peers["table"].replaced("nothing", "text")


def test_every_real_record_makes_a_table(peers):
    table = peers["table"]
    records = table.read(table.RECORDS)
    assert records
    for real in records:
        assert table.section(real).count("\n|") == 2 + len(real["measured"])


def numbers(case, ranks=5, nats=1.0):
    shape = (3, 1, 40)
    found = {name: np.full(shape, nats, np.float32) for name in case.NATS}
    found |= {name: np.full(shape, ranks, np.int32) for name in case.RANKS}
    return found | {"top_id": np.zeros(shape, np.int32)}


def test_rounding_is_the_same_work_and_a_forgotten_bias_is_not(peers):
    agree, case = peers["agree"], peers["case"]
    wanted, near = numbers(case), numbers(case, nats=1.0001)
    near["rank_input"][0, 0, 0] += 2
    apart = agree.differences(wanted, near)
    assert agree.objections(apart, 50257, "float32") == []
    assert agree.summary(apart)["worst_rank"] == 2
    for broken in (numbers(case, nats=1.1), numbers(case, nats=np.nan), numbers(case, ranks=90)):
        assert agree.objections(agree.differences(wanted, broken), 50257, "float32")


def test_ranks_of_another_final_token_are_left_out(peers):
    agree, case = peers["agree"], peers["case"]
    wanted, found = numbers(case), numbers(case)
    found["top_id"][-1, 0, 3] = 7
    found["rank_final"][:, 0, 3] = 40_000
    apart = agree.differences(wanted, found)
    assert apart["rank_final"] == {"same": 1.0, "worst": 0.0}
    assert apart["top_id"]["same"] < 1


def test_the_tokens_and_the_model_are_the_same_every_time(peers, tmp_path):
    case = peers["case"]
    for name in ("a", "b"):
        case.make_model(tmp_path / name, "mini")
    files = [tmp_path / name / "model.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    tokens, following = case.make_tokens(tmp_path / "a", 64, 256)
    assert tokens.shape == following.shape == (2, 32)
    np.testing.assert_array_equal(tokens[:, 1:], following[:, :-1])
    with pytest.raises(SystemExit, match="do not fill"):
        case.make_tokens(tmp_path / "a", 33, 32)


def test_jaxlens_loads_the_model_of_the_case(peers, tmp_path):
    import jaxlens

    peers["case"].make_model(tmp_path / "model", "mini")
    assert jaxlens.load_model(tmp_path / "model").config.vocab_size == 211
