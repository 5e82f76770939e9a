"""What every command promises holds for every family: one model of each, and the same tests."""

import json
import shutil

import jax
import numpy as np
import pytest
from families import CASES
from sweeps import PACKAGED, configure, digest, flags, once, run_cli

import jaxlens
from jaxlens import designs, models
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import commit, layout, verify
from jaxlens.sweep import repair, run

# One configuration of each model type, the last. All but one are long: the others differ in the
# forward alone, which parity tests cover. The short one has most of what GPT-2 has not.
OF_TYPE = {config["model_type"]: name for name, (_, config) in CASES.items()}
SHORT = "gemma3_text"
EACH = [
    pytest.param(name, marks=[] if kind == SHORT else [pytest.mark.long])
    for kind, name in OF_TYPE.items()
]
BOS = 0


@pytest.fixture(scope="module", params=EACH)
def model(request, tmp_path_factory):
    """A checkpoint with the packaged tokenizer, which puts a BOS token before each text."""
    _, config = CASES[request.param]

    def make(folder):
        architecture = models.parse(config | {"bos_token_id": BOS})
        params = models.init(architecture, 0)
        checkpoint.save(folder, architecture, params, "safetensors", tokenizer_from=PACKAGED)
        settings = {"add_bos_token": True, "bos_token": "<|endoftext|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    return once(tmp_path_factory, f"family-{request.param}", make)


@pytest.fixture(scope="module")
def sweep(model, texts, tmp_path_factory):
    def make(out):
        assert run.run(configure(model, texts, out)).finished

    return once(tmp_path_factory, f"{model.name}-sweep", make)


def test_rows_are_what_the_model_reads_with_its_bos_token(model, sweep):
    assert verify.verify(sweep).ok
    spec = layout.read_spec(sweep).document
    assert spec["corpus"]["bos"] == "window"
    loaded = jaxlens.load_model(model)
    assert loaded.adds_bos
    length = spec["plan"]["length"]
    with jaxlens.open_run(sweep) as rows:
        document, offset = rows["document"][:], rows["offset"][:]
        counts = np.bincount(document)
        chosen = int(np.argmax(counts)), int(np.argmin(np.where(counts > 3, counts, 9999)))
        places = [np.flatnonzero((document == d) & (offset < length - 1)) for d in chosen]
        lines = np.full((2, 1 + len(places[0])), BOS, np.int32)  # padded behind, unseen
        for line, where in zip(lines, places, strict=True):
            line[1 : 1 + len(where)] = rows["token"][:][where]
        read = jaxlens.read_lens(loaded, lines).present()
        for i, where in enumerate(places):
            for name in ("kl_final", "entropy"):
                expected = np.asarray(read[name])[:, i, 1 : 1 + len(where)].T
                np.testing.assert_allclose(rows[name][:][where], expected, atol=2e-4, err_msg=name)
            assert (rows["position"][:][where] == np.arange(1, len(where) + 1)).all()
        assert (rows["top_id"][:][..., 0] < loaded.config.vocab_size).all()


def test_a_resumed_or_repaired_run_has_the_same_bytes(model, sweep, texts, tmp_path):
    begun = shutil.copytree(sweep, tmp_path / "run")
    commit.discard(begun, 1)
    assert run.run(configure(model, texts, begun)).computed == 1
    assert digest(begun) == digest(sweep)
    layout.shard_path(begun, 0).write_bytes(b"")
    assert repair.repair(begun, configure(model, texts, None, devices=1)).recomputed == (0,)
    assert digest(begun) == digest(sweep)


def test_commands_read_it(model, texts, tmp_path, capsys):
    assert run_cli("show", "the quick brown fox", "--model", model, "--follow", " the") == 0
    table = tmp_path / "prompts.jsonl"
    table.write_text('{"prompt": "the quick brown", "answer": " fox"}\n')
    assert run_cli("prompts", table, "--model", model) == 0
    assert run_cli(*flags(model, texts, tmp_path / "out"), "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    capsys.readouterr()


@pytest.mark.long  # whether each family can be shared is tested in test_placement
def test_devices_that_share_it_read_what_one_reads(model, sweep, texts, tmp_path):
    two = tmp_path / "two"
    assert run.run(configure(model, texts, two, **{"mesh.model": 2, "devices": 2})).finished
    with jaxlens.open_run(sweep) as one, jaxlens.open_run(two) as other:
        for name in ("kl_final", "entropy", "norm"):
            if name in one.names:
                np.testing.assert_allclose(other[name][:], one[name][:], rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"store.tallies": "study", "store.rows": "none", "store.shard_tokens": 2048},
        {"null": "random-init"},
        {"null": "shuffled", "lens.decoder": "plain"},
        {"lens.precision": "bfloat16", "model.dtype": "bfloat16"},
        {"corpus.bos": "start", "plan.overlap": 5},
        {"corpus.paths": [designs.REPEATS]},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_every_kind_of_run_takes_it(model, texts, tmp_path, changes):
    assert run.run(configure(model, texts, tmp_path / "run", **changes)).finished
    assert verify.verify(tmp_path / "run").ok


def test_bytes_of_weights_are_kept_by_every_format(model, tmp_path):
    loaded = checkpoint.load(model)
    for fmt in ("msgpack", "orbax"):
        checkpoint.save(tmp_path / fmt, loaded.architecture, loaded.params, fmt)
        again = checkpoint.load(tmp_path / fmt)
        assert again.sha256 == loaded.sha256
        jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)
