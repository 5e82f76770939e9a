"""GGUF files of hub repositories, named by their quantisation: ``org/name:Q4_K_M``."""

import shutil

import checkpoints
import hub_files
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint, hub, hub_gguf

pytest.importorskip("gguf")
import gguf_files

NAMES = [
    "README.md",
    "tiny-1.1b.Q2_K.gguf",
    "tiny-1.1b.Q4_K_M.gguf",
    "tiny-1.1b.IQ4_K.gguf",
    "tiny-1.1b-q8_0.gguf",
    "BF16.gguf",
    "mmproj-tiny-F16.gguf",
    "tiny-mmproj-F16.gguf",
    "tiny-F16.gguf",
    "large/tiny-F32-00001-of-00002.gguf",
    "large/tiny-F32-00002-of-00002.gguf",
    "a-Q6_K.gguf",
    "b.q6_k.gguf",
    "Q5_0.gguf",
    "tiny-Q5_0.gguf",
    "../up-Q3_K.gguf",
]


def choose(quantisation, names=NAMES):
    return hub_gguf.choose(hub_gguf.files(names), quantisation, "org/name", "org/name at v1")


def refused(quantisation, kind, names=NAMES):
    return checkpoints.refused(quantisation, kind, lambda q: choose(q, names))


@pytest.mark.parametrize(
    ("quantisation", "file"),
    {
        "Q4_K_M": "tiny-1.1b.Q4_K_M.gguf",
        "q4_k_m": "tiny-1.1b.Q4_K_M.gguf",
        "Q8_0": "tiny-1.1b-q8_0.gguf",
        "bf16": "BF16.gguf",
        "F16": "tiny-F16.gguf",
        "a-q6_k": "a-Q6_K.gguf",
        "Q5_0": "Q5_0.gguf",
        "tiny-Q5_0": "tiny-Q5_0.gguf",
    }.items(),
)
def test_quantisation_names_one_file_in_either_case(quantisation, file):
    assert choose(quantisation) == file


@pytest.mark.parametrize("quantisation", ["Q4_K", "K_M", "4_K_M", "Q4", "mmproj-tiny-F16", "Q3_K"])
def test_part_of_a_quantisation_names_no_file(quantisation):
    message = refused(quantisation, errors.MissingError)
    assert f"org/name at v1: no GGUF file of the quantisation {quantisation} |" in message
    assert "there are BF16, F16, IQ4_K, Q2_K, Q4_K_M, Q5_0, Q6_K, q6_k, q8_0;" in message


def test_several_files_parts_and_none_are_said():
    message = refused("Q6_K", errors.ConfigError)
    assert "a-Q6_K.gguf, b.q6_k.gguf" in message and "org/name:a-Q6_K" in message
    message = refused("f32", errors.DataError)
    assert "several parts" in message and "large/tiny-F32-00001-of-00002.gguf" in message
    assert "llama-gguf-split --merge" in message
    parts = [name for name in NAMES if "-of-" in name]
    assert "in several parts only" in refused("Q4_K_M", errors.MissingError, parts)
    assert "no GGUF files" in refused("Q4_K_M", errors.MissingError, ["model.safetensors"])


@pytest.fixture
def repository(tmp_path):
    """Files of a repository, and the values that the one of Q4_0 stands for."""
    folder = tmp_path / "repository"
    config = gguf_files.CONFIGS["llama"]
    state = gguf_files.random_state(config, tmp_path / "state")
    folder.mkdir()
    meant = {}
    for kind in ("Q4_0", "Q8_0"):
        meant[kind] = gguf_files.write(folder / f"tiny-{kind}.gguf", config, state, kind)
    shutil.copyfile(folder / "tiny-Q8_0.gguf", folder / "tiny-IQ4_K.gguf")
    (folder / "config.json").write_text("{}")
    expected = checkpoints.write_safetensors(tmp_path / "expected", meant["Q4_0"], config)
    return folder, checkpoint.load(expected).params


def test_hub_is_asked_for_the_one_file_and_its_cache_reads_it_again(repository, tmp_path):
    folder, expected = repository
    home = tmp_path / "home"
    asked = "org/name:q4_0", "org/name:Q4_0@v1", f"org/name:Q4_0@{hub_files.COMMIT}"
    with hub_files.serve(home, "org/name", folder) as (online, fetched):
        *found, unknown, missing, unnamed = hub_files.located(
            online, *asked, "org/name:Q4_0@v2", "org/name:Q4_K", "org/name"
        )
        assert [name for name in fetched if name != "config.json"] == ["tiny-Q4_0.gguf"]
    path, label = found[0]
    assert path.endswith(f"models--org--name/snapshots/{hub_files.COMMIT}/tiny-Q4_0.gguf")
    assert label == "org/name/tiny-Q4_0.gguf"
    checkpoints.assert_same_bits(checkpoint.load(path).params, expected)
    assert found == [found[0]] * 3
    assert unknown[0] == "MissingError" and "v2: the hub has no such revision" in unknown[1]
    assert missing[0] == "MissingError" and "there are IQ4_K, Q4_0, Q8_0;" in missing[2]
    assert unnamed[0] == "MissingError" and "tiny-Q8_0.gguf" in unnamed[1]
    assert "name one after a colon: org/name:" in unnamed[2]
    # The library has listed what it did not fetch, and knows that the snapshot is a part.
    *again, other, bare = hub_files.located(
        hub_files.offline(home), *asked, "org/name:Q8_0", "org/name"
    )
    assert again == found
    assert other[:1] == ["MissingError"] and "there are Q4_0;" in other[2]
    assert bare[0] == "MissingError" and "org/name:Q4_0" in bare[2]


def test_hub_without_the_repository_and_no_hub_are_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with hub_files.serve(tmp_path, "org/name", tmp_path / "empty") as (online, _):
        unknown, empty = hub_files.located(online, "org/other:Q4_0", "org/name:Q4_0")
    assert unknown[0] == "MissingError" and "no such repository" in unknown[1]
    assert empty[0] == "MissingError" and "no GGUF files" in empty[2]
    ((kind, message, hint),) = hub_files.located(online, "org/other:Q4_0")
    assert kind == "MissingError" and "the hub cannot be reached" in message
    ((kind, message, hint),) = hub_files.located(hub_files.offline(tmp_path), "org/other:Q4_0")
    assert kind == "MissingError" and "HF_HUB_OFFLINE is set" in hint


@pytest.mark.parametrize("source", ["./here:Q4_0", "here:Q4_0", "here/x-Q4_0.gguf:Q4_0"])
def test_quantisation_of_a_local_path_is_refused(tmp_path, monkeypatch, source):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/x-Q4_0.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert "is a local path" in checkpoints.refused(source, errors.ConfigError)


def test_existing_path_wins_and_a_path_object_is_never_an_id(tmp_path, monkeypatch):
    _, params = checkpoints.make()
    checkpoints.write_safetensors(tmp_path / "org/name:Q4_0", checkpoints.torch_state(params))
    monkeypatch.chdir(tmp_path)
    checkpoints.assert_same_bits(checkpoint.load("org/name:Q4_0").params, params)
    assert hub.label("org/name:Q4_0", tmp_path) == "org/name:Q4_0"
    for source in ("./org/other:Q4_0", "a/b/c:Q4_0", "org/name:", "org/name::Q4_0"):
        checkpoints.refused(source, errors.MissingError)
