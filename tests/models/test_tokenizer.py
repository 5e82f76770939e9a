import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from jaxlens import errors
from jaxlens.corpus import tokenize
from jaxlens.models import tokenizer_files
from jaxlens.models.tokenizer import splits_at_spaces


def save(tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_folder_without_a_tokenizer_gives_none(tmp_path):
    assert tokenize.load_tokenizer(tmp_path) is None
    assert tokenize.load_tokenizer(tmp_path / "absent") is None


def test_what_changes_the_number_of_tokens_is_switched_off(tokenizer, tmp_path):
    copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    copy.enable_truncation(3)
    copy.enable_padding(length=50)
    copy.model.dropout = 0.9
    loaded = tokenize.load_tokenizer(save(copy, tmp_path))
    text = "The quick brown fox jumps over the lazy dog"
    expected = tokenizer.encode(text).ids
    assert all(loaded.encode(text).ids == expected for _ in range(20))
    assert tokenize.tokenizer_digest(loaded) == tokenize.tokenizer_digest(tokenizer)


def test_digest_changes_with_a_merge_and_not_with_the_order_of_keys(tokenizer):
    spec = json.loads(tokenizer.to_str())
    turned = dict(reversed(spec.items()))
    same = tokenizers.Tokenizer.from_str(json.dumps(turned))
    assert tokenize.tokenizer_digest(same) == tokenize.tokenizer_digest(tokenizer)
    spec["model"]["merges"].pop()
    other = tokenizers.Tokenizer.from_str(json.dumps(spec))
    assert tokenize.tokenizer_digest(other) != tokenize.tokenizer_digest(tokenizer)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
    ],
)
def test_malformed_tokenizer_is_an_error_that_names_the_file(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(errors.DataError, match=r"tokenizer\.json") as caught:
        tokenize.load_tokenizer(tmp_path)
    assert caught.value.exit_code == 65
    assert "\n" not in caught.value.message


def test_oversized_tokenizer_is_refused_unread(tmp_path, monkeypatch):
    with (tmp_path / "tokenizer.json").open("wb") as stream:
        stream.truncate(tokenizer_files.TOKENIZER_BYTES + 1)
    with pytest.raises(errors.DataError, match="bytes"):
        tokenize.load_tokenizer(tmp_path)


def test_tokenizer_that_cannot_be_read_is_a_storage_error(tmp_path):
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(errors.StorageError):
        tokenize.load_tokenizer(tmp_path)


# transformers warns at import about what it would like to have installed.
@pytest.mark.filterwarnings("ignore")
def test_vocabulary_and_merges_give_the_same_ids(tokenizer, tmp_path):
    spec = json.loads(tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(spec["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in spec["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges + "\n")
    loaded = tokenize.load_tokenizer(tmp_path)
    text = "The quick <|endoftext|> fox, it's naïve 日本\n\n  x"
    assert loaded.encode(text, add_special_tokens=False).ids == tokenizer.encode(text).ids


def test_strings_of_byte_level_tokens_join_to_the_text(tokenizer):
    spelled = tokenize.strings(tokenizer, 401)
    assert len(spelled) == 401
    assert spelled[400] == b""  # no such token
    assert spelled[0] == b"<|endoftext|>"
    text = "The naïve fox's 42 日本語 \U0001f600\r\n\t<|endoftext|> end\0"
    assert b"".join(spelled[i] for i in tokenizer.encode(text).ids) == text.encode()
    assert set(bytes([b]) for b in range(256)) <= set(spelled)


def test_strings_of_marked_words_keep_their_leading_space():
    vocab = {"\u2581the": 0, "re": 1, "<0x0A>": 2, "<unk>": 3}
    made = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    assert tokenize.strings(made, 5) == [b" the", b"re", b"\n", b"<unk>", b""]


def test_strings_of_other_tokenizers_are_what_they_decode_to():
    made = tokenizers.Tokenizer(models.WordLevel({"the": 0, "é": 1}, unk_token="the"))
    assert tokenize.strings(made, 3) == [b"the", "é".encode(), b""]


def test_word_tables_tell_letters_and_digits_at_either_end():
    spelled = [b"the", b" the", b"the ", b"4,", "é".encode(), "。".encode(), b"", b"_", b"-a"]
    starts, ends = tokenize.word_tables(spelled)
    assert starts.tolist() == [True, False, True, True, True, False, False, False, False]
    assert ends.tolist() == [True, True, False, False, True, False, False, False, True]
    assert starts.dtype == ends.dtype == np.bool_


def test_part_of_a_character_counts_as_a_letter():
    whole = "日".encode()
    starts, ends = tokenize.word_tables([whole[:1], whole[1:], b" " + whole[:2], b"a" + whole])
    assert starts.tolist() == [True, True, False, True]
    assert ends.tolist() == [True, True, True, True]


def test_only_gpt2s_pattern_alone_may_be_cut_at_spaces(tokenizer):
    assert splits_at_spaces(tokenizer)

    def changed(**parts):
        copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
        for name, part in parts.items():
            setattr(copy, name, part)
        return copy

    for other in (
        changed(normalizer=normalizers.NFKC()),
        changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
        changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        changed(pre_tokenizer=pre_tokenizers.Metaspace()),
    ):
        assert not splits_at_spaces(other)
    spaced = changed()
    spaced.add_tokens([tokenizers.AddedToken("brown fox")])
    assert not splits_at_spaces(spaced)
