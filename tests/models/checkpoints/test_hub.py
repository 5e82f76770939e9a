"""Where models are looked for."""

import checkpoints
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint as weights


@pytest.mark.parametrize(
    "source",
    ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", "a b", "", "x" * 5000, "a\0b"],
)
def test_path_that_is_not_there_is_missing(source):
    message = checkpoints.refused(source, errors.MissingError)
    assert any(words in message for words in ("no such directory", "no weights", "no valid hub id"))


@pytest.mark.parametrize(
    "page",
    [
        "https://huggingface.co/org/name",
        "https://hf.co/org/name/tree/main",
        "http://hf.co/org/name/",
    ],
)
def test_address_of_a_page_of_the_hub_is_answered_with_its_id(page):
    assert checkpoints.refused(page, errors.MissingError).endswith("the hub id alone: org/name")


@pytest.mark.parametrize("source", [3, None, ["gpt2"], b"gpt2"])
def test_what_names_no_model_is_refused(source):
    assert "a hub id" in checkpoints.refused(source, errors.ConfigError)


def test_missing_path_object_is_never_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.chdir(tmp_path)
    checkpoints.refused(tmp_path.relative_to(tmp_path) / "gpt2", errors.MissingError)


def test_directory_without_weights_says_what_was_looked_for(tmp_path):
    checkpoints.write_config(tmp_path)
    message = checkpoints.refused(tmp_path, errors.MissingError)
    for name in ("model.safetensors", "flax_model.msgpack", "orbax"):
        assert name in message


def test_revision_of_a_local_directory_is_refused(tmp_path):
    weights.save(tmp_path, *checkpoints.make(), "msgpack")
    with pytest.raises(errors.ConfigError, match="revision"):
        weights.load(tmp_path, revision="main")


def test_message_repeats_the_path_as_it_was_given(tmp_path, monkeypatch):
    checkpoints.write_config(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) not in checkpoints.refused("./m", errors.MissingError)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of one repository in a folder; remembers what was asked for."""
    asked = []
    folder = tmp_path / "snapshot"
    folder.mkdir()

    def snapshot_download(name, revision=None, allow_patterns=None):
        asked.append((name, revision, tuple(allow_patterns)))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return folder, asked


def test_hub_id_downloads_only_the_files_that_are_needed(hub):
    folder, asked = hub
    _, params = checkpoints.make()
    checkpoints.write_safetensors(folder, checkpoints.torch_state(params))
    checkpoint = weights.load("org/name", revision="v2")
    checkpoints.assert_same_bits(checkpoint.params, params)
    assert checkpoint.directory == folder
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("org/name", "v2")
    assert not any("msgpack" in p or "bin" in p or p == "*" for p in patterns)
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(patterns)


def test_hub_id_falls_back_to_flax_weights(hub):
    folder, asked = hub
    _, params = checkpoints.make()
    checkpoints.write_msgpack(folder, checkpoints.flax_tree(params))
    checkpoints.assert_same_bits(weights.load("gpt2").params, params)
    assert [any("msgpack" in p for p in patterns) for _, _, patterns in asked] == [False, True]


def test_existing_directory_wins_over_a_hub_id_of_its_name(hub, tmp_path):
    _, asked = hub
    weights.save(tmp_path / "gpt2", *checkpoints.make(), "msgpack")
    weights.load("gpt2")
    assert asked == []


def test_hub_repository_without_readable_weights_is_missing(hub):
    message = checkpoints.refused("org/name", errors.MissingError)
    assert "org/name" in message
    assert "model.safetensors" in message


@pytest.mark.parametrize("name", ["org/name", "gpt2"])
def test_offline_hub_is_missing_and_the_hint_names_the_variable(tmp_path, monkeypatch, name):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    message = checkpoints.refused(name, errors.MissingError)
    assert name in message
    assert "HF_HUB_OFFLINE" in message


def test_cached_hub_model_loads_offline(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _, params = checkpoints.make()
    commit = "0" * 40
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    checkpoints.write_safetensors(
        repository / "snapshots" / commit, checkpoints.torch_state(params)
    )
    checkpoints.assert_same_bits(weights.load("org/name").params, params)
