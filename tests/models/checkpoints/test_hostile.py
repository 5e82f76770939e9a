"""Model files that somebody made to harm: refused early, without waiting, memory or code."""

import contextlib
import json
import os
import signal

import checkpoints
import numpy as np
import orbax.checkpoint
import pytest
import warm
from models.checkpoints import victim

from jaxlens import errors
from jaxlens.cli import main
from jaxlens.models import tokenizer
from jaxlens.models.checkpoints import checkpoint

SECONDS = 20


@contextlib.contextmanager
def no_waiting():
    """Fails instead of hanging."""

    def stop(number, frame):
        raise AssertionError(f"waited for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def load_tokenizer(directory):
    with pytest.raises(errors.JaxlensError) as caught:
        tokenizer.load_tokenizer(directory)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


def other_kinds(path):
    """A pipe, a folder, an endless device and a link to nothing in place of a file."""
    path.unlink(missing_ok=True)
    for make in (
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("nowhere"),
    ):
        make()
        yield
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("fmt", checkpoints.FILE)
@pytest.mark.parametrize("which", ["weights", "config", "index", "shard"])
def test_what_is_no_regular_file_is_refused_by_name_without_waiting(tmp_path, fmt, which):
    _, _, shards = checkpoints.write_shards(tmp_path, fmt)
    single = checkpoints.FILE[fmt]
    name = {
        "weights": single,
        "config": "config.json",
        "index": f"{single}.index.json",
        "shard": shards[1],
    }[which]
    kinds = []
    for _ in other_kinds(tmp_path / name):
        with no_waiting(), pytest.raises(errors.JaxlensError) as caught:
            checkpoint.load(tmp_path)
        ways = ("not a regular file", "a link to ", "no ")
        assert any(f"/{name}: {way}" in caught.value.message for way in ways)
        kinds.append(type(caught.value))
    assert kinds == [errors.DataError] * 3 + [errors.MissingError]


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_tokenizer_that_is_no_regular_file_is_refused_without_waiting(tmp_path, name):
    for part in ("vocab.json", "merges.txt") if name != "tokenizer.json" else ():
        (tmp_path / part).write_text("{}")
    for _ in other_kinds(tmp_path / name):
        with no_waiting():
            assert name in load_tokenizer(tmp_path).message


@pytest.mark.filterwarnings("ignore")  # transformers warns at import
@pytest.mark.parametrize(
    "name",
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"],
)
def test_pipe_beside_an_old_tokenizer_is_refused_without_waiting(tmp_path, name):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    os.mkfifo(tmp_path / name)
    with no_waiting():
        assert name in load_tokenizer(tmp_path).message


@pytest.mark.filterwarnings("ignore")
def test_old_tokenizer_reads_no_file_but_its_own(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    alone = tokenizer.load_tokenizer(tmp_path).to_str()
    (tmp_path / "other.json").write_text(json.dumps(victim.TOKENIZER))
    settings = {"tokenizer_file": str(tmp_path / "other.json"), "auto_map": {"x": "evil.py"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("config.json", "chat_template.jinja", "tokenizer.model"):
        os.mkfifo(tmp_path / name)
    with no_waiting():
        assert tokenizer.load_tokenizer(tmp_path).to_str() == alone
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert '"add_prefix_space":true' in tokenizer.load_tokenizer(tmp_path).to_str()


def test_orbax_with_a_pipe_or_in_place_of_a_folder_is_refused(tmp_path):
    checkpoint.save(tmp_path, *checkpoints.make(), "orbax")
    (tmp_path / "orbax/_METADATA").rename(tmp_path / "kept")
    os.mkfifo(tmp_path / "orbax/_METADATA")
    with no_waiting():
        assert "_METADATA: not a regular file" in checkpoints.refused(tmp_path)
    (tmp_path / "orbax").rename(tmp_path / "elsewhere")
    (tmp_path / "orbax").write_text("")
    assert "orbax: no directory" in checkpoints.refused(tmp_path)


HOSTILE_CONFIGS = {
    "layers": ({"n_layer": 10**9}, "n_layer"),
    "negative": ({"n_head": -2}, "n_head"),
    "NaN": ({"n_embd": float("nan")}, "n_embd"),
    "vocabulary": ({"vocab_size": 10**12}, "vocab_size"),
    "fraction": ({"n_layer": 2.0}, "n_layer"),
    "object": ({"activation_function": {"__reduce__": "os.system"}}, "activation_function"),
    "activation": ({"activation_function": "__import__('os')"}, "activation_function"),
    "infinite": ({"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon"),
    "classes": ({"model_type": None, "architectures": [["x"], {}, 3]}, "model_type"),
    "line end": ({"model_type": "x\nerror: y"}, "not supported"),
    "terabytes": ({"vocab_size": 10**7, "n_embd": 10**5}, "GiB of float32 weights"),
}


@pytest.mark.parametrize("case", HOSTILE_CONFIGS)
def test_hostile_config_is_refused_by_name(tmp_path, case):
    change, named = HOSTILE_CONFIGS[case]
    victim.model(tmp_path)
    checkpoints.write_config(tmp_path, {**checkpoints.CONFIG, **change})
    assert named in checkpoints.refused(tmp_path)


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_class_names_nested_to_the_limit_of_the_stack_are_refused(tmp_path, depth):
    victim.model(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": [' + "[" * depth + "]" * depth + "]}")
    checkpoints.refused(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_doubled_key_behind_many_is_found_at_once(tmp_path, name):
    checkpoints.write_shards(tmp_path, "safetensors")
    keys = ",".join(f'"{number:x}":0' for number in range(150_000))
    (tmp_path / name).write_text("{" + keys + ',"z":0,"z":0}')
    with no_waiting():
        assert "'z' is there twice" in checkpoints.refused(tmp_path)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_index_that_names_itself_or_no_name_of_a_file_is_refused(tmp_path, fmt):
    _, index, shards = checkpoints.write_shards(tmp_path, fmt)
    suffix = checkpoints.FILE[fmt].split(".")[1]
    for shard in (
        f"{checkpoints.FILE[fmt]}.index.json",
        "a" * 10_000 + f".{suffix}",
        f"a\u202e.{suffix}",
        f"\ud800.{suffix}",
        {"file": shards[0]},
    ):
        changed = {name: shard if file == shards[0] else file for name, file in index.items()}
        checkpoints.write_index(tmp_path, fmt, changed)
        assert "index.json" in checkpoints.refused(tmp_path)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_shards_that_are_links_in_a_circle_are_missing(tmp_path, fmt):
    _, _, shards = checkpoints.write_shards(tmp_path, fmt)
    for shard, other in (shards, shards[::-1]):
        (tmp_path / shard).unlink()
        (tmp_path / shard).symlink_to(other)
    checkpoints.refused(tmp_path, errors.StorageError)


@pytest.mark.parametrize("fmt", checkpoints.FILE)
def test_shard_under_two_names_is_refused(tmp_path, fmt):
    _, index, shards = checkpoints.write_shards(tmp_path, fmt)
    suffix = checkpoints.FILE[fmt].split(".")[1]
    (tmp_path / f"again.{suffix}").symlink_to(shards[0])
    name = next(name for name, file in index.items() if file == shards[0])
    checkpoints.write_index(tmp_path, fmt, {**index, name: f"again.{suffix}"})
    assert "belongs to" in checkpoints.refused(tmp_path)


@pytest.mark.parametrize("name", ["a\nerror: b", "\x1b[2Jx", "\u202e", "x" * 10**4])
def test_names_out_of_files_cannot_forge_a_message(tmp_path, name):
    checkpoints.write_safetensors(tmp_path / "s", {name: np.zeros(1, np.float32)})
    checkpoints.write_msgpack(tmp_path / "m", {name: np.zeros(1, np.float32)})
    for directory in (tmp_path / "s", tmp_path / "m"):
        message = checkpoints.refused(directory)
        assert ("unexpected tensor" in message) == (len(name) < 1000 or directory.name == "s")
        assert message.isprintable()
        assert len(message) < 1000
    _, index, shards = checkpoints.write_shards(tmp_path / "i", "msgpack")
    checkpoints.write_index(tmp_path / "i", "msgpack", {**index, name: shards[0]})
    message = checkpoints.refused(tmp_path / "i")
    assert "is missing" in message and message.isprintable()


def replacing(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


HOSTILE_TOKENIZERS = {
    "custom part": victim.changed(pre_tokenizer={"type": "Custom", "code": "import os"}),
    "custom model": victim.changed(model={"type": "Custom"}),
    "panic while it is read": victim.changed(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
    "panic while it is used": victim.changed(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "absent", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    ),
    "id of four billion, a memory bomb": victim.bpe(vocab={"a": 0, "b": 2**32 - 2}, merges=[]),
    "id that overflows": victim.bpe(vocab={"a": 0, "b": 2**32 - 1}, merges=[]),
    "id beyond its type": victim.bpe(vocab={"a": 2**32}, merges=[]),
    "two tokens of one id": victim.bpe(vocab={"a": 0, "b": 0}, merges=[]),
    "merge of nothing": victim.bpe(merges=["a c"]),
    "normalizer that inflates": victim.changed(normalizer=replacing({"String": "l"}, "x" * 10**7)),
    "normalizer that doubles": victim.changed(
        normalizer={
            "type": "Sequence",
            "normalizers": [replacing({"Regex": "l*"}, "l")] * 40,
        }
    ),
    "bad pattern": victim.changed(
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": "("},
            "behavior": "Removed",
            "invert": False,
        }
    ),
}


@pytest.mark.parametrize("case", HOSTILE_TOKENIZERS)
def test_hostile_tokenizer_is_one_clean_error(tmp_path, capfd, case):
    (tmp_path / "tokenizer.json").write_text(json.dumps(HOSTILE_TOKENIZERS[case]))
    with no_waiting():
        error = load_tokenizer(tmp_path)
    assert error.exit_code == 65
    assert "tokenizer.json" in error.message
    assert capfd.readouterr() == ("", "")  # a panic writes pages to stderr


def test_tokens_beyond_the_model_are_refused_where_they_come(tmp_path, capfd):
    """Checkpoints in use have spare tokens that no text holds, so their being there is no error."""
    victim.model(tmp_path / "m")
    (tmp_path / "m/tokenizer.json").write_text(
        json.dumps(victim.bpe(vocab={"a": 0, "b": 1, "c": 11}, merges=[]))
    )
    (tmp_path / "text.txt").write_text("abc")
    arguments = ["--model", tmp_path / "m", "--corpus", tmp_path / "text.txt"]
    code, lines = command("run", *arguments, "--out", tmp_path / "out", capfd=capfd)
    assert code == 65
    assert "text.txt: token 11 ('c') is not among the 11 of the model" in lines[0]


def command(*arguments, capfd):
    with pytest.raises(SystemExit) as caught:
        main.main([str(argument) for argument in (*arguments, "--quiet")])
    found = capfd.readouterr()
    assert found.out == ""
    return caught.value.code, found.err.splitlines()


def bad_value(directory):
    _, params = checkpoints.make()
    params["h"]["mlp"]["c_fc"]["bias"][1, 2] = np.nan
    checkpoints.write_safetensors(directory, checkpoints.torch_state(params))


def bad_shape(directory):
    tree = checkpoints.flax_tree(checkpoints.make()[1])
    tree["transformer"]["ln_f"]["scale"] = np.ones(7, np.float32)
    checkpoints.write_msgpack(directory, tree)


def bad_type(directory):
    state = checkpoints.torch_state(checkpoints.make()[1])
    state["transformer.wpe.weight"] = state["transformer.wpe.weight"].astype(np.int64)
    checkpoints.write_safetensors(directory, state)


def missing(directory):
    tree = checkpoints.flax_tree(checkpoints.make()[1])
    del tree["transformer"]["h"]["1"]["mlp"]["c_fc"]["bias"]
    checkpoints.write_msgpack(directory, tree)


def unexpected(directory):
    _, params = checkpoints.make()
    params["extra"] = np.zeros(3, np.float32)
    checkpoints.write_config(directory)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory.absolute() / "orbax", params)


def truncated(directory):
    path = victim.model(directory) / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)


def no_shard(directory):
    _, _, shards = checkpoints.write_shards(directory, "msgpack")
    (directory / shards[1]).unlink()


def a_pickle(directory):
    checkpoints.write_config(directory)
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def bad_tokenizer(directory):
    case = HOSTILE_TOKENIZERS["panic while it is read"]
    (victim.model(directory) / "tokenizer.json").write_text(json.dumps(case))


def two_checkpoints(directory):
    for step in (10, 20):
        victim.model(directory / f"checkpoint-{step}")


def one_too_high(directory):
    victim.model(directory / "inner")


def an_adapter(directory):
    victim.model(directory)
    (directory / "adapter_config.json").write_text("{}")


def a_pointer(directory):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    (victim.model(directory) / "tokenizer.json").write_text(text)


BAD_MODELS = {
    "2 checkpoints, checkpoint-10, checkpoint-20": (two_checkpoints, 2),
    "no weights here, but in inner": (one_too_high, 66),
    "adapter_config.json, part of an adapter, lies beside": (an_adapter, 65),
    "tokenizer.json: a Git LFS pointer": (a_pointer, 65),
    "h.1.mlp.c_fc.bias holds values that are not finite": (bad_value, 65),
    "ln_f/scale has shape [7], expected [6]": (bad_shape, 65),
    "wpe.weight has dtype int64": (bad_type, 65),
    "h/1/mlp/c_fc/bias is missing": (missing, 65),
    "unexpected tensor extra": (unexpected, 65),
    "model.safetensors: damaged": (truncated, 65),
    "flax_model-00002-of-00002.msgpack: no such file": (no_shard, 66),
    "pytorch_model.bin is a pickle": (a_pickle, 65),
    "tokenizer.json is not a tokenizer": (bad_tokenizer, 65),
}


@pytest.mark.parametrize("named", BAD_MODELS)
def test_bad_model_is_an_error_a_hint_and_an_exit_code(tmp_path, capfd, named):
    make, code = BAD_MODELS[named]
    make(tmp_path / "m")
    (tmp_path / "text.txt").write_text("abc")
    arguments = ["--model", tmp_path / "m", "--corpus", tmp_path / "text.txt"]
    found, lines = command("run", *arguments, "--out", tmp_path / "out", capfd=capfd)
    assert found == code
    assert [line.partition(": ")[0] for line in lines] == ["error", "hint"]
    assert named in lines[0]


COMPILED = """
import json, pathlib, sys
import jax, jaxlens
from jaxlens import errors
events = []
jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
compiled = lambda: sum(name.startswith("/jax/core/compile/") for name in events)
*bad, good = map(pathlib.Path, sys.argv[1:])
for directory in bad:
    try:
        jaxlens.load_model(directory)
    except (errors.DataError, errors.MissingError, errors.ConfigError):
        continue
    sys.exit(f"{directory} was loaded")
before = compiled()
jaxlens.load_model(good)
print(before, compiled())
"""


@pytest.mark.long
def test_bad_models_are_refused_before_anything_is_compiled(tmp_path):
    folders = []
    for number, (make, _) in enumerate(BAD_MODELS.values()):
        folders.append(tmp_path / str(number))
        make(folders[-1])
    folders.append(victim.model(tmp_path / "good"))
    status, printed, said = warm.run(COMPILED, *folders)
    assert status == 0, said
    bad, good = map(int, printed.split())
    assert bad == 0
    assert good > 0  # else nothing was counted
