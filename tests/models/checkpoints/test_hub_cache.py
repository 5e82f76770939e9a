"""Models of every family out of the hub's cache, read by its own library without a network."""

import json

import checkpoints
import hub_files
import pytest
import safetensors.numpy
import warm
from families import CASES, weights

from jaxlens import models
from jaxlens.models.checkpoints import checkpoint

# The case of Gemma 3 is its text model alone, of the type gemma3_text.
CONFIGS = {"gpt2": checkpoints.CONFIG} | {
    name: CASES[name][1] for name in models.FAMILIES if name in CASES
}
FIRST, SECOND = hub_files.COMMIT, hub_files.COMMIT[::-1]
NAMED = {"main": SECOND, "training/step1000": FIRST, "v1.0": FIRST}
REVISIONS = NAMED | {"": SECOND, FIRST: FIRST, SECOND: SECOND}
"""Branches, tags and commits, and which of the two commits each is; the empty one is the default.
"""

LOAD = """
import json, os, sys
assert "huggingface_hub" not in sys.modules
os.environ.update(json.loads(sys.argv[1]))
from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint
for source, revision in json.loads(sys.argv[2]):
    try:
        print(json.dumps(checkpoint.load(source, revision or None).sha256))
    except errors.JaxlensError as error:
        print(json.dumps([type(error).__name__, error.message, error.hint]))
"""


def load(environment, wanted):
    """Hashes of the weights of models, or class, message and hint of the error."""
    status, printed, said = warm.run(LOAD, json.dumps(environment), json.dumps(wanted))
    assert status == 0, said
    return [json.loads(line) for line in printed.splitlines()]


def write_sharded(folder, config, seed):
    """Safetensors in two files with an index; returns the hash of the weights in memory."""
    state = weights.random_state(models.parse(config), seed)
    files = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    index = {name: files[number % 2] for number, name in enumerate(sorted(state))}
    checkpoints.write_config(folder, config)
    for file in files:
        part = {name: value for name, value in state.items() if index[name] == file}
        safetensors.numpy.save_file(part, folder / file)
    checkpoints.write_index(folder, "safetensors", index)
    return checkpoint.from_state_dict(state, config).sha256


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The cache, and the hash of each model's weights at each commit."""
    root = tmp_path_factory.mktemp("hub")
    expected = {}
    for case, config in CONFIGS.items():
        for commit, seed in ((FIRST, 1), (SECOND, 2)):
            folder = root / f"{case}-{seed}"
            expected[case, commit] = write_sharded(folder, config, seed)
            refs = [name for name, named in NAMED.items() if named == commit]
            environment = hub_files.cache(root / "home", f"org/{case}", folder, commit, refs)
    return environment, expected


def test_every_family_is_read_at_branches_tags_and_commits(cached):
    environment, expected = cached
    assert set(CONFIGS) == set(models.FAMILIES) - {"gemma3_text"}
    assert len(set(expected.values())) == 2 * len(CONFIGS)
    wanted = [(case, revision) for case in CONFIGS for revision in REVISIONS]
    found = load(environment, [(f"org/{case}", revision) for case, revision in wanted])
    for (case, revision), digest in zip(wanted, found, strict=True):
        assert digest == expected[case, REVISIONS[revision]], (case, revision)


def test_revision_that_is_not_cached_and_a_missing_blob_are_said(cached, tmp_path):
    environment, _ = cached
    wanted = [("org/mistral", "v2"), ("org/mistral", "0" * 40), ("org/none", "")]
    for (source, revision), (kind, message, hint) in zip(
        wanted, load(environment, wanted), strict=True
    ):
        assert kind == "MissingError" and "HF_HUB_OFFLINE is set" in hint
        assert source in message and revision in message
    write_sharded(tmp_path / "files", CONFIGS["llama"], 3)
    partial = hub_files.cache(tmp_path / "home", "org/name", tmp_path / "files")
    snapshot = tmp_path / f"home/hub/models--org--name/snapshots/{hub_files.COMMIT}"
    shard = snapshot / "model-00002-of-00002.safetensors"
    shard.resolve().unlink()
    ((kind, message, hint),) = load(partial, [("org/name", "")])
    assert kind == "MissingError" and shard.name in message
