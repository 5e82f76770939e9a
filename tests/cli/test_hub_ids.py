"""Commands that are given a hub id with a quantisation, out of the hub's cache."""

import json
import os
import subprocess
import sys

import hub_files
import pytest

pytest.importorskip("gguf")
import gguf_files

pytestmark = pytest.mark.long  # that such a file is read is seen in `test_hub_gguf`

NAME = "org/tiny:q8_0"


@pytest.fixture(scope="module")
def cached(tokenizer, tmp_path_factory):
    """Environment of processes for which the cache is the hub; it holds two quantisations."""
    root = tmp_path_factory.mktemp("hub")
    spec = json.loads(tokenizer.to_str())
    words = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    special = {token["content"] for token in spec["added_tokens"]}

    def extra(writer):
        writer.add_string("tokenizer.ggml.model", "gpt2")
        writer.add_string("tokenizer.ggml.pre", "gpt-2")
        writer.add_array("tokenizer.ggml.tokens", words)
        writer.add_array("tokenizer.ggml.token_type", [3 if w in special else 1 for w in words])
        merges = [" ".join(pair) for pair in spec["model"]["merges"]]
        writer.add_array("tokenizer.ggml.merges", merges)

    config = gguf_files.CONFIGS["llama"] | {"vocab_size": len(words), "bos_token_id": 0}
    state = gguf_files.random_state(config, root / "state")
    (root / "files").mkdir()
    for kind in ("Q4_0", "Q8_0"):
        gguf_files.write(root / f"files/tiny-{kind}.gguf", config, state, kind, extra=extra)
    environment = hub_files.cache(root / "home", "org/tiny", root / "files", refs=("main", "v1"))
    return {**os.environ, **environment}, root / "files"


@pytest.fixture
def called(cached, tmp_path):
    """Runs a command; returns what it printed."""

    def call(*words, code=0):
        command = [sys.executable, "-m", "jaxlens", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=cached[0], cwd=tmp_path
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return call


def test_show_reads_the_named_file(cached, called):
    first, second = (
        json.loads(called("show", "when people say", "--json", "--model", model))
        for model in (NAME, cached[1] / "tiny-Q8_0.gguf")
    )
    assert first[0]["decoders"] == second[0]["decoders"]


def test_every_command_takes_the_name_and_runs_record_it(called, texts, tmp_path):
    how = ("--corpus", texts, "--set", "store.shard_tokens=1024", "--set", "store.tallies=study")
    (tmp_path / "run.yaml").write_text("model: {path: 'org/tiny:Q8_0', revision: v1}\n")
    called("run", "-c", "run.yaml", *how, "--out", "run")
    assert '"path":"org/tiny:Q8_0"' in "".join(
        path.read_text() for path in (tmp_path / "run/environment").rglob("*") if path.is_file()
    )
    called("probe", "run", "--model", NAME)
    called("ablate", "run", "--model", NAME)
    called("report", "run")
    page = (tmp_path / "run/report.html").read_text()
    assert "--model org/tiny:Q8_0 --set model.revision=v1" in page
    shard = next((tmp_path / "run/shards").iterdir())
    intact = shard.read_bytes()
    shard.write_bytes(intact[:-1000] + bytes(1000))
    called("repair", "run", "--model", NAME)
    assert shard.read_bytes() == intact
    (tmp_path / "prompts.csv").write_text('prompt,answer\n"when people say"," plasma"\n')
    called("prompts", "prompts.csv", "--model", NAME, "--out", "prompts.out.csv")
    assert len((tmp_path / "prompts.out.csv").read_text().splitlines()) == 1 + 3
    compared = called("show", "when people", "--model", NAME, "--against", "org/tiny:Q4_0")
    assert NAME in compared and "org/tiny:Q4_0" in compared
    called("convert", NAME, "converted", "--to", "safetensors")
    called("run", "--model", "converted", *how, "--out", "run")  # the same weights, the same run
    assert NAME in called("bench", "--model", NAME, "--rounds", "1", "--set", "plan.length=32")
    refused = called("run", "--model", "org/tiny:Q4", *how, "--out", "other", code=66)
    assert "there are Q4_0, Q8_0" in refused and not (tmp_path / "other").exists()
