"""Bad input: one error line, one hint line, the promised exit code, and nothing lost."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors import numpy
from sweeps import TINY, configure, digest, flags, refused, run_cli, script_with_small_files

import jaxlens
from jaxlens import errors, models
from jaxlens.lens import implementations, reference
from jaxlens.models import loading
from jaxlens.models.checkpoints import checkpoint
from jaxlens.sweep import run as sweep


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy of the model to damage."""
    return shutil.copytree(tiny, tmp_path / "broken")


def test_a_missing_model_is_named(texts, tmp_path, capsys):
    said = refused(capsys, 66, *flags(tmp_path / "nowhere", texts, tmp_path / "out"))
    assert "nowhere" in said


def test_a_hub_id_without_a_network_names_the_switch(texts, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refused(capsys, 66, *flags("someone/some-gpt2", texts, tmp_path / "out"))
    assert "someone/some-gpt2" in said
    assert "HF_HUB_OFFLINE" in said


def test_another_architecture_is_refused_by_name(broken, texts, tmp_path, capsys):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    assert "mamba" in refused(capsys, 65, *flags(broken, texts, tmp_path / "out"))


def test_truncated_weights_are_refused(broken, texts, tmp_path, capsys):
    path = broken / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    assert "model.safetensors" in refused(capsys, 65, *flags(broken, texts, tmp_path / "out"))


def test_weights_that_are_no_numbers_name_their_tensor(broken, texts, tmp_path, capsys):
    tensors = numpy.load_file(broken / "model.safetensors")
    name = next(n for n in tensors if n.endswith("h.1.mlp.c_fc.weight"))
    tensors[name][0, 0] = np.nan
    numpy.save_file(tensors, broken / "model.safetensors")
    assert name in refused(capsys, 65, *flags(broken, texts, tmp_path / "out"))


def test_pickled_weights_are_refused_with_a_way_out(broken, texts, tmp_path, capsys):
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(pickle.dumps({"wte": [1.0]}))
    assert "safetensors" in refused(capsys, 65, *flags(broken, texts, tmp_path / "out"))


def test_a_model_without_a_tokenizer_is_refused(broken, texts, tmp_path, capsys):
    (broken / "tokenizer.json").unlink()
    assert "tokenizer" in refused(capsys, 66, *flags(broken, texts, tmp_path / "out"))


def test_a_missing_corpus_is_named(tiny, tmp_path, capsys):
    said = refused(capsys, 66, *flags(tiny, tmp_path / "none.txt", tmp_path / "out"))
    assert "none.txt" in said


def test_an_unreadable_corpus_is_refused(tiny, tmp_path, capsys):
    broken = tmp_path / "texts.jsonl.gz"
    broken.write_bytes(b"\x1f\x8b\x08\x00 this is no archive")
    assert "texts.jsonl.gz" in refused(capsys, 65, *flags(tiny, broken, tmp_path / "out"))


def test_a_corpus_without_documents_is_refused(tiny, tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('\n{"text": ""}\n')
    said = refused(capsys, 65, *flags(tiny, empty, tmp_path / "out"))
    assert "empty.jsonl: none of its records is usable (2 empty)" in said


def test_strict_stops_at_the_first_malformed_line(tiny, texts, tmp_path, capsys):
    said = refused(capsys, 65, *flags(tiny, texts, tmp_path / "out"), "--strict")
    assert "texts.jsonl:8" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--set", "lens.tyle=3"),
        ("run", "--set", "lens.tile"),
        ("run", "--rows", "some"),
        ("run", "--limit", "many"),
        ("run", "--shard", "2/2"),
        ("run", "--set", "lens.precision=tf32"),
        ("run", "--set", "plan.length=100000"),
        ("run", "--set", "plan.overlap=256"),
        ("run", "--shard", "²/4"),
        ("run", "--rows", "none", "--set", "plan.step_sequences=100000000000"),
        ("run", "--set", "seed=" + "9" * 5000),
        ("run", "--no-such-flag"),
        ("no-such-command",),
    ],
)
def test_a_wrong_call_exits_with_2(arguments, tmp_path, capsys):
    more = ("--out", tmp_path / "out") if arguments[0] == "run" else ()
    refused(capsys, 2, *arguments, *more)
    assert not (tmp_path / "out").exists()  # before hours of tokens are made


def test_an_unknown_key_in_a_file_names_the_file(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("stor: {rows: core}\n")
    said = refused(capsys, 2, "run", "-c", path, "--out", tmp_path / "out")
    assert str(path) in said
    assert "store" in said


def test_an_output_that_is_a_file_is_refused(tiny, texts, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    refused(capsys, 74, *flags(tiny, texts, tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_without_permission_is_refused(tiny, texts, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(capsys, 74, *flags(tiny, texts, tmp_path / "locked" / "out"))


def test_a_folder_with_other_things_in_it_is_refused(tiny, texts, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert "thesis.tex" in refused(capsys, 2, *flags(tiny, texts, out))
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_an_error_line_and_the_run_resumes(tiny, texts, tmp_path, swept):
    """Files larger than the limit fail as on a full disk, in a process of its own."""
    out = tmp_path / "out"
    code = script_with_small_files(20_000)
    command = [str(a) for a in flags(tiny, texts, out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 74, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert sweep.run(configure(tiny, texts, out)).finished
    assert digest(out) == digest(swept)


@pytest.mark.parametrize(
    ("setting", "field"),
    [("plan.step_sequences=5", "plan.step_sequences"), ("lens.decoder=plain", "lens.decoder")],
)
def test_a_second_run_with_another_configuration_names_the_field(
    tiny, texts, swept, capsys, setting, field
):
    before = digest(swept)
    how = flags(tiny, texts, swept)
    assert field in refused(capsys, 2, *how, "--set", setting)
    assert digest(swept) == before


def test_a_second_run_over_another_corpus_is_refused(tiny, swept, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("another text altogether")
    before = digest(swept)
    assert "corpus" in refused(capsys, 2, *flags(tiny, other, swept))
    assert digest(swept) == before


def test_verify_of_no_run_and_of_a_damaged_run(swept, tmp_path, capsys):
    refused(capsys, 66, "verify", tmp_path)
    copy = shutil.copytree(swept, tmp_path / "copy")
    (copy / "shards" / "part-00002.h5").unlink()
    assert "part-00002" in refused(capsys, 65, "verify", copy)


def test_a_lens_that_is_not_the_model_refuses_to_start(tiny, texts, tmp_path, capsys, monkeypatch):
    def moved(streams, unembed, known, options, table):
        return reference.read(streams.at[..., 0].add(3.0), unembed, known, options)

    monkeypatch.setitem(implementations.IMPLEMENTATIONS, "tiled", moved)
    out = tmp_path / "out"
    assert "identity gate" in refused(capsys, 69, *flags(tiny, texts, out))
    assert not list(out.glob("shards/*.h5"))


def test_an_unexpected_failure_is_one_line_too(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(sweep, "run", fail)
    said = refused(capsys, 1, "run", "--out", tmp_path / "out")
    assert "RuntimeError: first line" in said
    assert "second line" not in said


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert run_cli("run", "--model", tmp_path / "none", "--debug") == 66
    assert "Traceback" in capsys.readouterr().err


def test_converted_checkpoints_are_the_same_model(tiny, tmp_path, capsys):
    source = tiny
    for to in ("orbax", "msgpack", "safetensors"):
        assert run_cli("convert", source, tmp_path / to, "--to", to) == 0
        source = tmp_path / to
    one, two = checkpoint.load(tiny), checkpoint.load(tmp_path / "safetensors")
    assert checkpoint.digest(one.params) == checkpoint.digest(two.params)
    assert one.architecture == two.architecture == models.parse(TINY)
    assert loading.from_checkpoint(two).tokenizer is not None
    refused(capsys, 2, "convert", tiny, tmp_path / "orbax", "--to", "orbax")


def test_out_of_memory_says_what_to_lower(tmp_path, capsys, monkeypatch):
    for error in (MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: out of memory")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(sweep, "run", fail)
        assert "plan.step_sequences" in refused(capsys, 2, "run", "--out", tmp_path / "out")


def test_a_device_that_is_not_there_is_a_configuration_error():
    code = "from jaxlens.cli.main import main; main(['env'])"
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2, done.stderr
    assert "JAX_PLATFORMS" in done.stderr


def test_a_dry_run_refuses_what_the_run_would(tiny, texts, swept, capsys):
    how = (*flags(tiny, texts, swept), "--dry-run")
    before = digest(swept)
    assert "lens.decoder" in refused(capsys, 2, *how, "--set", "lens.decoder=plain")
    assert run_cli(*how, "--quiet") == 0
    assert "expected time" in capsys.readouterr().out  # what a dry run is asked to print
    assert digest(swept) == before


def test_a_setting_without_its_option_is_named(tiny, texts, tmp_path, capsys):
    words = (*flags(tiny, texts, tmp_path / "out"), "--set", "lens.tile=512", "lens.block=64")
    said = refused(capsys, 2, *words)
    assert "lens.block=64 belongs to no option" in said
    assert "write --set before each: --set lens.block=64" in said


def test_env_is_json(capsys):
    assert run_cli("env") == 0
    assert json.loads(capsys.readouterr().out)["packages"]["jax"]


def test_every_error_has_its_own_exit_code():
    kinds = errors.JaxlensError.__subclasses__()
    assert sorted(kind.exit_code for kind in kinds) == [2, 65, 66, 69, 74, 75]


def test_a_strangers_run_is_verified_apart_with_the_same_words(swept, tmp_path, capsys):
    assert run_cli("verify", swept, "--untrusted") == 0
    assert "ok" in capsys.readouterr().out
    out = shutil.copytree(swept, tmp_path / "strange")
    shard = out / "shards" / "part-00002.h5"
    os.truncate(shard, shard.stat().st_size - 1)
    (out / "shards" / "part-00003.h5").unlink()
    (out / "shards" / "part-00003.h5").symlink_to("/etc/hostname")
    for how in ((), ("--fast",), ("--untrusted",), ("--untrusted", "--fast")):
        assert run_cli("verify", out, *how) == 65
        printed = capsys.readouterr()
        assert "part-00002.h5" in printed.out and "part-00003.h5" in printed.out
        assert [line.split(":")[0] for line in printed.err.splitlines()] == ["error", "hint"]
    assert "nowhere" in refused(capsys, 66, "verify", tmp_path / "nowhere", "--untrusted")


def test_another_limit_is_refused_by_its_tokens_and_not_by_their_hashes(
    swept, tiny, texts, tmp_path, capsys
):
    """The rows of a token depend on all of the corpus: on what foreign tokens are drawn from."""
    out = shutil.copytree(swept, tmp_path / "run")
    with jaxlens.open_run(out) as run:
        there = run.n_tokens
    for more in (("--limit", "300"), ("--limit", "300", "--set", "lens.top_k=2")):
        said = refused(capsys, 2, *flags(tiny, texts, out), *more)
        assert f"its corpus has {there:,} tokens, this one 300" in said
        assert "cannot be extended" in said and "--limit" in said.partition("hint: ")[2]
        assert "sha256" not in said and ("lens.top_k is 1 there, 2 here" in said) == (len(more) > 2)
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(reversed(texts.read_text().splitlines())) + "\n")
    said = refused(capsys, 2, *flags(tiny, other, out))
    assert "other tokens, as many as this one" in said and "sha256" not in said
