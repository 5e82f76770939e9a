"""Tokenizers without ``tokenizer.json``: the same ids as their own libraries give."""

import json

import pytest
import warm
from tokenizers import implementations

from jaxlens import errors
from jaxlens.corpus import tokenize
from jaxlens.files import file_types
from jaxlens.models import tokenizer_files
from jaxlens.models.tokenizer import as_tokenizer

TEXT = "The quick <|endoftext|> fox, it's naïve 日本 1,024\n\n  x"
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns at import


def write_parts(tokenizer, folder, names=("vocab.json", "merges.txt"), encoding="utf-8", end="\n"):
    spec = json.loads(tokenizer.to_str())["model"]
    (folder / names[0]).write_text(json.dumps(spec["vocab"], ensure_ascii=False), encoding=encoding)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in spec["merges"]), ""]
    (folder / names[1]).write_bytes(end.join(lines).encode(encoding))


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_gpt2s_files_under_either_name_and_mark_give_the_same_ids(
    tokenizer, tmp_path, names, encoding
):
    write_parts(tokenizer, tmp_path, names, encoding)
    loaded = tokenize.load_tokenizer(tmp_path)
    assert loaded.encode(TEXT).ids == tokenizer.encode(TEXT).ids


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_line_ends_of_windows_and_empty_lines_at_the_end_give_the_same_ids(
    tokenizer, tmp_path, end
):
    write_parts(tokenizer, tmp_path, end=end)
    with (tmp_path / "merges.txt").open("ab") as file:
        file.write(end.encode() * 2)
    assert tokenize.load_tokenizer(tmp_path).encode(TEXT).ids == tokenizer.encode(TEXT).ids


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tokenizer_file_with_a_byte_order_mark_loads(tokenizer, tmp_path, encoding):
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str(), encoding=encoding)
    loaded = tokenize.load_tokenizer(tmp_path)
    assert tokenize.tokenizer_digest(loaded) == tokenize.tokenizer_digest(tokenizer)


def test_mark_of_another_encoding_before_noise_is_one_clean_error(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.DataError, match="is not a tokenizer"):
        tokenize.load_tokenizer(tmp_path)


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "The",
    "quick",
    "##s",
    "日",
    "本",
    ",",
]
WORDS += ["naive", "naïve", "fox", "it", "'"]


@pytest.mark.parametrize("lowercase", [True, False])
def test_words_of_bert_give_the_ids_of_the_tokenizers_library(tmp_path, lowercase):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    expected = implementations.BertWordPieceTokenizer(
        {word: number for number, word in enumerate(WORDS)}, lowercase=lowercase
    )
    found = tokenize.load_tokenizer(tmp_path).encode(TEXT, add_special_tokens=False).ids
    assert found == expected.encode(TEXT, add_special_tokens=False).ids
    assert len(set(found)) > 5


@pytest.mark.parametrize("name", [None, "GPT2TokenizerFast", "PreTrainedTokenizerFast"])
def test_class_of_gpt2_or_none_gives_gpt2s_ids(tokenizer, tmp_path, name):
    write_parts(tokenizer, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    assert tokenize.load_tokenizer(tmp_path).encode(TEXT).ids == tokenizer.encode(TEXT).ids


def test_other_class_splits_text_its_own_way(tokenizer, tmp_path):
    """Qwen's pattern takes digits one by one, which GPT-2's does not."""
    write_parts(tokenizer, tmp_path)
    settings = {"tokenizer_class": "Qwen2Tokenizer", "unk_token": None, "eos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = tokenize.load_tokenizer(tmp_path)
    pieces = [piece for piece, _ in loaded.pre_tokenizer.pre_tokenize_str("in 1024")]
    assert pieces == ["in", "Ġ", "1", "0", "2", "4"]


@pytest.mark.parametrize("name", ["BertJapaneseTokenizer", "evil.Class", "\x1b[2J", "os"])
def test_class_that_is_not_known_is_refused_by_name(tokenizer, tmp_path, name):
    write_parts(tokenizer, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(errors.DataError, match="tokenizer_class") as caught:
        tokenize.load_tokenizer(tmp_path)
    assert caught.value.message.isprintable()
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\0"])
def test_malformed_settings_are_named(tokenizer, tmp_path, text):
    write_parts(tokenizer, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(errors.DataError, match=r"tokenizer_config\.json"):
        tokenize.load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "vocab.bpe"])
def test_half_of_a_tokenizer_is_none_and_says_so(tmp_path, monkeypatch, name):
    notes = []
    note = tokenizer_files.logger
    monkeypatch.setattr(note, "info", lambda text, *parts: notes.append(text % parts))
    (tmp_path / name).write_text("{}")
    assert tokenize.load_tokenizer(tmp_path) is None
    assert f"{name} without " in notes[0]


def test_sentencepiece_is_not_read_and_says_so(tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(
        tokenizer_files.logger, "info", lambda text, *parts: notes.append(text % parts)
    )
    (tmp_path / "spiece.model").write_bytes(b"x")
    assert tokenize.load_tokenizer(tmp_path) is None
    assert "spiece.model: SentencePiece is not read" in notes[0]


ALONE = """
import os, pathlib, socket, sys
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"): os.environ.pop(name, None)
def refuse(*arguments, **named): raise SystemExit("asked the network")
socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
import jaxlens.cli.main
from jaxlens.models.tokenizer import as_tokenizer, load_tokenizer
assert "transformers" not in sys.modules
whole, parts = map(pathlib.Path, sys.argv[1:])
load_tokenizer(whole)
assert "transformers" not in sys.modules
print(load_tokenizer(parts).encode("in 1024").ids)
assert "transformers" in sys.modules
"""


def test_transformers_is_imported_on_use_only_and_asks_no_network(tokenizer, tmp_path, monkeypatch):
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    (whole / "tokenizer.json").write_text(tokenizer.to_str())
    write_parts(tokenizer, parts)
    status, printed, said = warm.run(ALONE, whole, parts)
    assert status == 0, said
    assert json.loads(printed) == tokenizer.encode("in 1024").ids


def test_every_form_is_copied_by_convert():
    named = {name for form in tokenizer_files.FORMS for name in form.files}
    assert named | {tokenizer_files.WHOLE} <= set(file_types.TOKENIZER_FILES)


@pytest.mark.parametrize("space", [True, False])
def test_a_space_before_the_text_is_that_of_the_settings_as_in_transformers(
    tokenizer, tmp_path, space
):
    """Beside ``tokenizer.json`` too, whose own setting is the other one."""
    document = json.loads(tokenizer.to_str())
    document["pre_tokenizer"]["add_prefix_space"] = not space
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": space}))
    loaded = tokenize.load_tokenizer(tmp_path)
    assert loaded.encode("The fox").ids == tokenizer.encode(" " * space + "The fox").ids


@pytest.mark.parametrize("settings", ["{", "[]", '{"add_prefix_space": null}', "{}"])
def test_settings_that_say_nothing_leave_the_tokenizer_as_it_is(tokenizer, tmp_path, settings):
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    (tmp_path / "tokenizer_config.json").write_text(settings)
    assert tokenize.load_tokenizer(tmp_path).to_str() == tokenizer.to_str()


def test_a_tokenizer_is_taken_as_it_is_given(tokenizer, tmp_path):
    class Fast:  # as of transformers
        backend_tokenizer = tokenizer

    tokenizer.enable_truncation(2)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    for given in (tokenizer, Fast(), tmp_path, str(tmp_path)):
        assert len(as_tokenizer(given).encode(TEXT).ids) > 2
    assert tokenizer.truncation is not None  # the caller's own
    tokenizer.no_truncation()
    with pytest.raises(errors.ConfigError, match="the tokenizer is a int"):
        as_tokenizer(3)
    with pytest.raises(errors.MissingError, match="holds no tokenizer"):
        as_tokenizer(tmp_path / "none")
