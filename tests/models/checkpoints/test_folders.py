"""Paths that are nearly a model, and files that hold something else than their name says."""

import json
import os
import shutil

import checkpoints
import numpy as np
import orbax.checkpoint
import pytest
import safetensors.numpy
import tokenizers
from models.checkpoints import victim

from jaxlens import errors
from jaxlens.files import file_types
from jaxlens.models.checkpoints import checkpoint
from jaxlens.models.tokenizer import load_tokenizer

COMMIT = "0123456789abcdef" * 2 + "01234567"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 548118077\n"
)


def model(directory, seed=1):
    _, params = checkpoints.make(seed=seed)
    checkpoints.write_safetensors(directory, checkpoints.torch_state(params))
    return params


@pytest.mark.parametrize("name", ["model.safetensors", "gpt2.safetensors", "weights.msgpack"])
def test_weights_file_is_read_with_the_config_beside_it(tmp_path, name):
    _, params = checkpoints.make()
    model(tmp_path, seed=2)
    if name.endswith(".safetensors"):
        checkpoints.write_safetensors(tmp_path, checkpoints.torch_state(params), name=name)
    else:
        checkpoints.write_msgpack(tmp_path, checkpoints.flax_tree(params), name=name)
    loaded = checkpoint.load(tmp_path / name)
    checkpoints.assert_same_bits(loaded.params, params)
    assert loaded.directory == tmp_path


def test_config_may_be_given_instead_of_the_file(tmp_path):
    params = model(tmp_path)
    (tmp_path / "config.json").unlink()
    loaded = checkpoint.load(tmp_path / "model.safetensors", config=checkpoints.CONFIG)
    checkpoints.assert_same_bits(loaded.params, params)


def test_index_file_is_read_and_a_shard_alone_is_refused(tmp_path):
    params, _, shards = checkpoints.write_shards(tmp_path, "safetensors")
    index = tmp_path / "model.safetensors.index.json"
    checkpoints.assert_same_bits(checkpoint.load(index).params, params)
    message = checkpoints.refused(tmp_path / shards[0])
    assert "one of several files" in message and str(index) in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "README.md"])
def test_file_that_holds_no_weights_is_refused(tmp_path, name):
    victim.model(tmp_path)
    (tmp_path / "README.md").write_text("x")
    assert "a model is a directory" in checkpoints.refused(tmp_path / name)


def test_only_checkpoint_of_a_training_run_is_taken(tmp_path):
    params = model(tmp_path / "checkpoint-500")
    (tmp_path / "runs").mkdir()
    (tmp_path / "checkpoint-7").mkdir()  # holds no weights
    loaded = checkpoint.load(tmp_path)
    checkpoints.assert_same_bits(loaded.params, params)
    assert loaded.directory == tmp_path / "checkpoint-500"


def test_checkpoint_that_holds_a_pickle_is_named_from_the_folder_above(tmp_path):
    checkpoints.write_config(tmp_path / "checkpoint-500")
    (tmp_path / "checkpoint-500/pytorch_model.bin").write_bytes(b"x")
    message = checkpoints.refused(tmp_path)
    assert "checkpoint-500: pytorch_model.bin is a pickle" in message


def test_tokenizer_beside_the_checkpoints_is_theirs_if_they_have_none(tmp_path):
    model(tmp_path / "checkpoint-500")
    (tmp_path / "tokenizer.json").write_text(json.dumps(victim.TOKENIZER))
    assert checkpoint.load(tmp_path).directory == tmp_path
    (tmp_path / "checkpoint-500/tokenizer.json").write_text(json.dumps(victim.TOKENIZER))
    assert checkpoint.load(tmp_path).directory == tmp_path / "checkpoint-500"


def test_checkpoint_that_is_named_takes_the_tokenizer_of_the_folder_above(tmp_path, monkeypatch):
    for step in (10, 20):
        model(tmp_path / f"checkpoint-{step}")
    (tmp_path / "tokenizer.json").write_text(json.dumps(victim.TOKENIZER))
    named = checkpoints.refused(tmp_path, errors.ConfigError).partition("name one of them: ")[2]
    assert checkpoint.load(named).directory == tmp_path
    monkeypatch.chdir(tmp_path / "checkpoint-10")
    assert checkpoint.load(".").directory == tmp_path
    (tmp_path / "checkpoint-20").rename(tmp_path / "other")
    assert checkpoint.load(tmp_path / "other").directory == tmp_path / "other"


def test_link_of_the_hubs_cache_that_leads_nowhere_says_how_to_fetch_it(tmp_path):
    repository, _ = cache(tmp_path, COMMIT, main=COMMIT)
    link = repository / "snapshots" / COMMIT / "model.safetensors"
    link.resolve().unlink()
    message = checkpoints.refused(repository, errors.MissingError)
    assert "model.safetensors: a link to" in message
    assert message.endswith(f"hf download org/name --cache-dir {tmp_path}")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/model.safetensors").symlink_to("../gone")
    checkpoints.write_config(tmp_path / "alone")
    message = checkpoints.refused(tmp_path / "alone", errors.MissingError)
    assert "a link to ../gone, which is not there" in message


def test_tokenizer_that_adds_special_tokens_is_said_to(tmp_path, caplog):
    caplog.set_level("INFO", "jaxlens")
    (tmp_path / "tokenizer.json").write_text(json.dumps(victim.TOKENIZER))
    load_tokenizer(tmp_path)
    assert "special tokens" not in caplog.text
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    load_tokenizer(tmp_path)
    assert "--set corpus.bos=none" in caplog.text
    caplog.clear()
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(tmp_path)
    first = tokenizer.id_to_token(0)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    load_tokenizer(tmp_path)
    assert "--set corpus.bos=none" in caplog.text


def test_several_checkpoints_are_named_in_the_order_of_training(tmp_path):
    for step in (1000, 500, 20):
        model(tmp_path / f"checkpoint-{step}")
    message = checkpoints.refused(tmp_path, errors.ConfigError)
    assert "checkpoint-20, checkpoint-500, checkpoint-1000 |" in message
    assert f"{tmp_path}/checkpoint-1000" in message


def test_weights_of_the_folder_itself_win_over_its_checkpoints(tmp_path):
    params = model(tmp_path)
    model(tmp_path / "checkpoint-500", seed=2)
    checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, params)


def cache(folder, *commits, main=None):
    """A repository in the hub's cache, made of links as the hub's library makes it."""
    repository = folder / "models--org--name"
    made = {}
    for seed, commit in enumerate(commits):
        snapshot = repository / "snapshots" / commit
        made[commit] = model(snapshot, seed)
        blobs = repository / "blobs"
        blobs.mkdir(exist_ok=True)
        for file in list(snapshot.iterdir()):
            blob = blobs / f"{seed}-{file.name}"
            file.rename(blob)
            file.symlink_to(os.path.relpath(blob, snapshot))
    if main is not None:
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text(main)
    return repository, made


def test_repository_of_the_hubs_cache_is_resolved_by_its_main_reference(tmp_path):
    other = "f" * 40
    repository, made = cache(tmp_path, other, COMMIT, main=COMMIT)
    checkpoints.assert_same_bits(checkpoint.load(repository).params, made[COMMIT])
    snapshot = repository / "snapshots" / other
    assert (snapshot / "model.safetensors").is_symlink()
    checkpoints.assert_same_bits(checkpoint.load(snapshot).params, made[other])


def test_only_snapshot_is_taken_without_a_reference(tmp_path):
    repository, made = cache(tmp_path, COMMIT)
    checkpoints.assert_same_bits(checkpoint.load(repository).params, made[COMMIT])


@pytest.mark.parametrize("main", ["../../../..", "/etc", "x" * 1000, "", "a" * 39, "\0"])
def test_reference_that_names_no_commit_is_refused(tmp_path, main):
    repository, _ = cache(tmp_path, COMMIT, main=main)
    assert "refs/main: names no commit" in checkpoints.refused(repository)


def test_repository_without_the_snapshot_says_which_there_are(tmp_path):
    repository, _ = cache(tmp_path, COMMIT, main="e" * 40)
    assert COMMIT in checkpoints.refused(repository, errors.MissingError)
    shutil.rmtree(repository / "refs")
    cache(tmp_path, "d" * 40)
    message = checkpoints.refused(repository, errors.MissingError)
    assert COMMIT in message and "d" * 40 in message


def test_levels_of_the_hubs_cache_around_a_model_name_what_is_there(tmp_path):
    repository, _ = cache(tmp_path, COMMIT, main=COMMIT)
    assert "models--org--name" in checkpoints.refused(tmp_path, errors.MissingError)
    assert COMMIT in checkpoints.refused(repository / "snapshots", errors.MissingError)


def test_level_too_high_or_too_low_is_said(tmp_path):
    model(tmp_path / "models/gpt2")
    (tmp_path / "models/gpt2/runs").mkdir()
    message = checkpoints.refused(tmp_path / "models", errors.MissingError)
    assert f"{tmp_path}/models/gpt2" in message
    message = checkpoints.refused(tmp_path / "models/gpt2/runs", errors.MissingError)
    assert "in the directory above" in message


UNREADABLE = {
    "adapter_model.safetensors": "merge it first",
    "adapter_model.bin": "merge it first",
    "adapter_config.json": "merge it first",
    "pytorch_model.bin": "save_pretrained",
    "ggml-model-f16.bin": "GGML",
    "pytorch_model-00001-of-00002.bin": "save_pretrained",
    "ckpt.pt": "jaxlens.load_model(torch.load",
    "epoch=3.ckpt": "jaxlens.load_model(torch.load",
    "model.ckpt.index": "TensorFlow",
    "model.ckpt.data-00000-of-00001": "TensorFlow",
    "tf_model.h5": "TensorFlow",
    "model.onnx": "safetensors",
    "__0_0.distcp": "accelerate",
    "model.zip": "unpack",
    "model.safetensors.dvc": "dvc pull",
    "model.safetensors.incomplete": "did not finish",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_weights_that_are_not_read_are_named_with_the_remedy(tmp_path, name):
    checkpoints.write_config(tmp_path)
    (tmp_path / name).write_bytes(b"x")
    for source in (tmp_path, tmp_path / name):
        message = checkpoints.refused(source)
        assert name in message and UNREADABLE[name] in message


@pytest.mark.parametrize("inside", ["", "checkpoint-500"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapter_beside_the_weights_is_not_passed_over(tmp_path, name, inside):
    params = model(tmp_path / inside)
    (tmp_path / inside / name).write_text("{}")
    assert "merge it first" in checkpoints.refused(tmp_path)
    loaded = checkpoint.load(tmp_path / inside / "model.safetensors")  # was asked for
    checkpoints.assert_same_bits(loaded.params, params)


def test_other_names_of_safetensors_and_shards_without_index_are_named(tmp_path):
    model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "gpt2.safetensors")
    message = checkpoints.refused(tmp_path, errors.MissingError)
    assert f"{tmp_path}/gpt2.safetensors" in message
    checkpoints.write_shards(tmp_path / "s", "safetensors")
    (tmp_path / "s/model.safetensors.index.json").unlink()
    message = checkpoints.refused(tmp_path / "s", errors.MissingError)
    assert "model-00001-of-00002.safetensors" in message
    assert "no model.safetensors.index.json" in message


def test_missing_shards_are_counted_before_any_is_read(tmp_path):
    _, _, shards = checkpoints.write_shards(tmp_path, "safetensors")
    (tmp_path / shards[1]).unlink()
    (tmp_path / shards[0]).write_bytes(b"")  # damaged: would be told first
    message = checkpoints.refused(tmp_path, errors.MissingError)
    assert shards[1] in message and "1 of the 2 files" in message


@pytest.mark.parametrize("name", ["global_step500", "pytorch_model_fsdp_0"])
def test_folders_of_sharded_training_checkpoints_are_named(tmp_path, name):
    (tmp_path / name).mkdir()
    assert f"{name}/ is a sharded training checkpoint" in checkpoints.refused(tmp_path)


def test_safetensors_with_a_header_of_any_length_is_no_stand_in(tmp_path):
    """Their first bytes are its length: 640 begins as pickles do."""
    _, params = checkpoints.make()
    state = checkpoints.torch_state(params)
    raw = safetensors.numpy.save(state)
    length = int.from_bytes(raw[:8], "little")
    checkpoints.write_config(tmp_path)
    for wanted in (length, 0x0480, 0x0580, 0x0A80):
        if wanted >= length:
            text = raw[8 : 8 + length].ljust(wanted)
            whole = wanted.to_bytes(8, "little") + text + raw[8 + length :]
            (tmp_path / "model.safetensors").write_bytes(whole)
            checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, params)


def test_directory_without_weights_says_what_it_holds(tmp_path):
    assert "it is empty" in checkpoints.refused(tmp_path, errors.MissingError)
    for name in ("notes.txt", "\x1b[2J.txt"):
        (tmp_path / name).write_text("")
    message = checkpoints.refused(tmp_path, errors.MissingError)
    assert "notes.txt" in message and message.isprintable()


FOREIGN = {"params": {"transformer": {"wte": {"embedding": checkpoints.make()[1]["wte"]}}}}


def save_orbax(folder, tree):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), tree)


def test_foreign_orbax_trees_are_refused_with_what_they_hold(tmp_path):
    checkpoints.write_config(tmp_path)
    save_orbax(tmp_path / "orbax", FOREIGN)
    message = checkpoints.refused(tmp_path)
    assert "params/transformer/wte/embedding" in message and "load_model(tree" in message
    message = checkpoints.refused(tmp_path / "orbax")
    assert "an Orbax checkpoint by itself" in message and str(tmp_path) in message
    save_orbax(tmp_path / "alone", FOREIGN)
    assert "params/transformer/wte/embedding" in checkpoints.refused(tmp_path / "alone")
    save_orbax(tmp_path / "manager/100/default", FOREIGN)
    (tmp_path / "manager/100/_CHECKPOINT_METADATA").write_text("{}")
    assert "by themselves, 100" in checkpoints.refused(tmp_path / "manager")
    message = checkpoints.refused(tmp_path / "manager/100")
    assert "params/transformer/wte/embedding" in message


def test_training_state_of_flax_in_a_file_says_what_to_save(tmp_path):
    tree = checkpoints.flax_tree(checkpoints.make()[1])
    checkpoints.write_msgpack(tmp_path, {"step": np.int32(3), "params": tree})
    assert "save their params alone" in checkpoints.refused(tmp_path)


STAND_INS = {
    "a Git LFS pointer": POINTER,
    "a git-annex pointer": b"/annex/objects/SHA256E-s5--ab.json\n",
    "a web page": b"\n<!DOCTYPE html>\n<html class=''>",
    "a ZIP archive": b"PK\x03\x04" + bytes(40),
    "a pickle": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "a GGUF file": b"GGUF\x03\x00\x00\x00" + bytes(40),
    "a gzip file": b"\x1f\x8b\x08\x00" + bytes(40),
}


@pytest.mark.parametrize("what", STAND_INS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "flax_model.msgpack"])
def test_file_that_holds_something_else_is_said_to(tmp_path, name, what):
    checkpoint.save(
        tmp_path, *checkpoints.make(), "msgpack" if "msgpack" in name else "safetensors"
    )
    (tmp_path / name).write_bytes(STAND_INS[what])
    assert f"/{name}: {what}" in checkpoints.refused(tmp_path)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
@pytest.mark.parametrize("which", ["index", "shard"])
def test_lfs_pointer_in_a_sharded_checkpoint_is_said(tmp_path, fmt, which):
    _, _, shards = checkpoints.write_shards(tmp_path, fmt)
    name = shards[1] if which == "shard" else f"{checkpoints.FILE[fmt]}.index.json"
    (tmp_path / name).write_bytes(POINTER)
    message = checkpoints.refused(tmp_path)
    assert f"{name}: a Git LFS pointer" in message and "git lfs pull" in message


def test_lfs_pointer_anywhere_in_an_orbax_checkpoint_is_said(tmp_path):
    checkpoint.save(tmp_path / "m", *checkpoints.make(), "orbax")
    inner = [path for path in (tmp_path / "m/orbax").rglob("*") if path.is_file()]
    assert len(inner) > 3
    for path in inner:
        kept = path.read_bytes()
        path.write_bytes(POINTER)
        message = checkpoints.refused(tmp_path / "m")
        assert path.name in message and "git lfs pull" in message
        path.write_bytes(kept)


@pytest.mark.parametrize("name", file_types.TOKENIZER_FILES)
def test_lfs_pointer_in_place_of_a_tokenizer_file_is_said(tmp_path, name):
    pairs = {"merges.txt": "vocab.json", "encoder.json": "vocab.bpe", "vocab.bpe": "encoder.json"}
    beside = [pairs.get(name, "merges.txt"), *([] if name in pairs else ["vocab.json"])]
    for other in beside if name not in ("tokenizer.json", "vocab.txt") else []:
        (tmp_path / other).write_text("{}" if other.endswith(".json") else "#version: 0.2\n")
    (tmp_path / name).write_bytes(POINTER)
    if name.endswith(".model"):  # is not read
        (tmp_path / "vocab.json").unlink()
        assert load_tokenizer(tmp_path) is None
        return
    with pytest.raises(errors.DataError, match=r"Git LFS pointer") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path / name) in caught.value.message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_in_json_is_no_fault(tmp_path, encoding):
    params, _, _ = checkpoints.write_shards(tmp_path, "safetensors")
    for name in ("config.json", "model.safetensors.index.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text, encoding=encoding)
    checkpoints.assert_same_bits(checkpoint.load(tmp_path).params, params)
