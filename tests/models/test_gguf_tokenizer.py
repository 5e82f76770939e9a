"""Tokenizers of GGUF files: the ids of another implementation on texts of many scripts."""

import itertools
import json
import random
import unicodedata

import pytest
import regex

from jaxlens import errors
from jaxlens.corpus import tokenize
from jaxlens.models import gguf_tokenizer, loading, tokenizer

pytest.importorskip("gguf")
from gguf_files import gguf

SCRIPTS = ((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF))
SCRIPTS += ((0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x3040, 0x30FF), (0x4E00, 0x9FFF))
SCRIPTS += ((0xAC00, 0xD7A3), (0x1F300, 0x1F64F), (0x2000, 0x206F), (0x300, 0x36F))
WRITTEN = [
    "Hello, world! It's 1,024\n\tna\u00efve caf\u00e9 \u65e5\u672c\u8a9e \U0001f600  x",
    "The year 2024 has 366 days; 3.14159 and 1e-10, 007.",
    "def f(x):\n    return x ** 2  # square\n\n\n\nclass A:\n\tpass\r\n\r\n",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 12345",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "e\u0301 a\u030a \u1e9etra\u00dfe \ufb01n \u216b \u00bd \u00b2",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
    "   leading, a  b   c    d trailing   ",
    "\n\n\n\t\t\ttabs\t\n \n",
    "I'll we've DON'T you'RE he'S 'tis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaa -------======*****",
    "<|endoftext|>text<|endoftext|>",
    "\u00a0nbsp\u2003em\u200bzero\x00\x01\x7f",
    "",
]


def texts(count=200):
    """What people write, and random characters of pairs of scripts."""
    random_state = random.Random(7)
    found = list(WRITTEN)
    while len(found) < count:
        scripts = [random_state.choice(SCRIPTS) for _ in range(2)]
        gaps = (" ", "  ", "\n", "\t", "1", "42", "'s", "")
        found.append(
            "".join(
                random_state.choice(gaps)
                + "".join(
                    chr(random_state.randint(*random_state.choice(scripts)))
                    for _ in range(random_state.randint(1, 9))
                )
                for _ in range(20)
            )
        )
    return found


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {  # as published with each model
    "gpt-2": lambda text: regex.findall(GPT2, text),
    "smollm": lambda text: [
        word
        for part in regex.split(r"(\p{N})", text)
        for word in ([part] if regex.fullmatch(r"\p{N}", part) else regex.findall(GPT2, part))
    ],
    "llama-bpe": lambda text: regex.findall(LLAMA3, text),
    "qwen2": lambda text: regex.findall(LLAMA3.replace("{1,3}", ""), text),
}


def byte_letters():
    """GPT-2's letter for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


LETTERS = byte_letters()


def joined(letters, ranks):
    """Pairs of the lowest rank, the leftmost first, until none is left."""
    pieces = list(letters)
    while len(pieces) > 1:
        pairs = [ranks.get(pair, 10**9) for pair in itertools.pairwise(pieces)]
        at = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[at] == 10**9:
            break
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def ids_by_hand(text, pre, vocabulary, ranks, special):
    """Token ids, by the definition of byte-level BPE."""
    found = []
    for part in regex.split(f"({regex.escape(special)})", text):
        if part == special:
            found.append(vocabulary[special])
            continue
        if pre == "qwen2":
            part = unicodedata.normalize("NFC", part)
        for word in SPLITS[pre](part):
            letters = "".join(LETTERS[byte] for byte in word.encode())
            whole = pre == "llama-bpe" and letters in vocabulary
            pieces = [letters] if whole else joined(letters, ranks)
            found += [vocabulary[piece] for piece in pieces]
    return found


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
SPACE = "\u2581"


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


def joined_by_score(text, entries):
    """SentencePiece's BPE by its definition: whole tokens first, then the pair of the best score.

    Ids of what no piece spells are those of its bytes.
    """
    words = {word: number for number, word in enumerate(entries["tokens"])}
    kinds = entries["token_type"]
    normal = {word for word, number in words.items() if kinds[number] == 1}
    whole = sorted((w for w, n in words.items() if kinds[n] in (3, 4)), key=len, reverse=True)
    found = []
    for part in regex.split("(" + "|".join(map(regex.escape, whole)) + ")", text):
        if part in whole:
            found.append(words[part])
            continue
        pieces = list(part.replace(" ", SPACE))
        while len(pieces) > 1:
            made = [first + second for first, second in itertools.pairwise(pieces)]
            scores = [entries["scores"][words[m]] if m in normal else -1e9 for m in made]
            at = max(range(len(made)), key=scores.__getitem__)  # the first of equal ones
            if made[at] not in normal:
                break
            pieces[at : at + 2] = [made[at]]
        for piece in pieces:
            spelled = [piece] if piece in normal else [f"<0x{b:02X}>" for b in piece.encode()]
            found += [words[one] for one in spelled]
    return found


def test_ids_of_sentence_piece_are_those_of_the_definition(tmp_path, sentence_pieces):
    entries = sentence_pieces
    path = write(tmp_path / "t.gguf", entries | {"add_space_prefix": False, "unknown_token_id": 0})
    loaded = tokenize.load_tokenizer(path)
    for text in texts():
        expected = joined_by_score(text, entries)
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
