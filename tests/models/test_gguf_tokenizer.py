"""Tokenizers of GGUF files: the ids of another implementation on texts of many scripts."""

import json
import random

import pytest
import regex
from bpe import SPACE, encoder_by_score, ids_by_hand, texts

from jaxlens import errors
from jaxlens.corpus import tokenize
from jaxlens.models import gguf_tokenizer, loading, tokenizer

pytest.importorskip("gguf")
from gguf_files import gguf


def write(path, entries):
    """A file of a tokenizer alone."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in entries.items():
        key = f"tokenizer.ggml.{key}"
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    for step in ("write_header_to_file", "write_kv_data_to_file", "close"):
        getattr(writer, step)()
    return path


@pytest.fixture(scope="module")
def byte_level(tokenizer):
    """Vocabulary, merges and special token of the packaged tokenizer."""
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    merges = [tuple(pair) for pair in spec["model"]["merges"]]
    (special,) = (token["content"] for token in spec["added_tokens"])
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    entries = {
        "model": "gpt2",
        "tokens": [word for word, _ in words],
        "token_type": [3 if word == special else 1 for word, _ in words],
        "merges": [" ".join(pair) for pair in merges],
    }
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return entries, vocabulary | dict(words), ranks, special


@pytest.mark.parametrize("pre", gguf_tokenizer.BYTE_LEVEL)
def test_ids_of_byte_level_tokenizers_are_those_of_the_definition(tmp_path, byte_level, pre):
    entries, vocabulary, ranks, special = byte_level
    path = write(tmp_path / "t.gguf", entries | {"pre": pre})
    loaded = tokenize.load_tokenizer(path)
    for text in texts():
        expected = ids_by_hand(text, pre, vocabulary, ranks, special)
        assert loaded.encode(text, add_special_tokens=False).ids == expected, text
        if pre != "qwen2":
            assert loaded.decode(expected, skip_special_tokens=False) == text


def test_pre_tokenizers_differ_on_these_texts(tmp_path, byte_level):
    entries, *_ = byte_level
    found = set()
    for pre in gguf_tokenizer.BYTE_LEVEL:
        loaded = tokenize.load_tokenizer(write(tmp_path / "t.gguf", entries | {"pre": pre}))
        found.add(str([loaded.encode(text, add_special_tokens=False).ids for text in texts()]))
    assert len(found) == len(gguf_tokenizer.BYTE_LEVEL)


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


@pytest.fixture(scope="module")
def sentence_pieces():
    """Parts of words of the texts as pieces, longer ones of a better score, equal ones apart."""
    written = [text.replace(" ", SPACE) for text in texts(30)]
    letters = sorted({letter for text in written for letter in text if letter.isalnum()} | {SPACE})
    words = {word for text in written for word in regex.findall(rf"{SPACE}?\p{{L}}+|a+", text)}
    parts = {word[start:end] for word in words for start in range(9) for end in range(start + 2, 9)}
    parts = sorted(part for part in parts if 1 < len(part) < 5)
    random.Random(5).shuffle(parts)
    pieces = [*sorted(parts, key=len), *letters]
    special = ["<turn>", "  ", "\n\n"]
    scores = [0.0] * len(PIECES) + [-float(rank) for rank in range(len(pieces) + len(special))]
    return {
        "model": "llama",
        "tokens": PIECES + pieces + special,
        "scores": scores,
        "token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces), 4, 4, 4],
    }


def test_ids_of_sentence_piece_are_those_of_the_definition(tmp_path, sentence_pieces):
    entries = sentence_pieces
    path = write(tmp_path / "t.gguf", entries | {"add_space_prefix": False, "unknown_token_id": 0})
    loaded, encode = tokenize.load_tokenizer(path), encoder_by_score(entries)
    for text in texts():
        expected = encode(text)
        assert loaded.encode(text, add_special_tokens=False).ids == expected, text
        assert loaded.decode(expected, skip_special_tokens=False) == text


def test_space_before_the_text_is_added_where_the_file_says_nothing(tmp_path, sentence_pieces):
    entries = sentence_pieces
    loaded = tokenize.load_tokenizer(write(tmp_path / "t.gguf", entries))
    plain = tokenize.load_tokenizer(
        write(tmp_path / "p.gguf", entries | {"add_space_prefix": False})
    )
    ids = loaded.encode("year", add_special_tokens=False).ids
    assert ids == plain.encode(" year", add_special_tokens=False).ids
    assert loaded.decode(ids) == "year"


def test_bytes_of_tokens_are_those_of_the_text(tmp_path, sentence_pieces):
    entries = sentence_pieces
    loaded = tokenize.load_tokenizer(write(tmp_path / "t.gguf", entries))
    found = tokenizer.strings(loaded, len(entries["tokens"]))
    assert found[PIECES.index("<0x41>")] == b"A"
    text = "the year 2024, x\n\u65e5"
    ids = loaded.encode(text, add_special_tokens=False).ids
    assert b"".join(found[number] for number in ids) == b" " + text.encode()


@pytest.mark.parametrize("stated", [None, True, False])
@pytest.mark.parametrize("pre", ["smollm", "llama-bpe"])
def test_beginning_of_text_is_added_as_llama_cpp_adds_it(tmp_path, byte_level, pre, stated):
    entries, *_ = byte_level
    more = {"pre": pre, "bos_token_id": 0} | ({} if stated is None else {"add_bos_token": stated})
    path = write(tmp_path / "t.gguf", entries | more)
    expected = pre == "llama-bpe" if stated is None else stated
    assert loading._puts_bos(tokenize.load_tokenizer(path), path, 0) is expected


REFUSED = {
    "falcon": ({"pre": "falcon"}, "'falcon' is not read"),
    "no pre": ({}, "None is not read"),
    "wordpiece": ({"model": "bert"}, "'bert' is not read"),
    "merges": ({"pre": "gpt-2", "merges": ["a b c"]}, "not of two tokens"),
    "types": ({"pre": "gpt-2", "token_type": [1]}, "token_type"),
    "merges of nothing": ({"pre": "gpt-2", "merges": ["qqq zzz"]}, "not a tokenizer"),
    "scores": ({"model": "llama", "scores": [0.5]}, "scores"),
    "numbers": ({"tokens": [1, 2]}, "no strings"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_tokenizers_that_are_not_read_are_refused_by_name(tmp_path, byte_level, what):
    changes, named = REFUSED[what]
    path = write(tmp_path / "t.gguf", byte_level[0] | changes)
    with pytest.raises(errors.DataError, match=named) as caught:
        tokenize.load_tokenizer(path)
    assert "\n" not in caught.value.message + caught.value.hint


def test_file_without_a_tokenizer_has_none(tmp_path):
    assert tokenize.load_tokenizer(write(tmp_path / "t.gguf", {})) is None
