import hashlib
import io
import itertools
import time

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import models

from jaxlens import errors, schema
from jaxlens.corpus import token_file, tokenize
from jaxlens.corpus.readers import documents, skip_log

VOCAB_SIZE = 401


def corpus(*texts):
    return [
        documents.Document(f"id{n}", text, skip_log.Location(0, n, "f"))
        for n, text in enumerate(texts, 1)
    ]


def build(tokenizer, texts, vocab_size=VOCAB_SIZE, **options):
    out = io.BytesIO()
    index = tokenize.build(corpus(*texts), tokenizer, out.write, vocab_size=vocab_size, **options)
    return np.frombuffer(out.getvalue(), index.dtype), index


TEXTS = ("The quick brown fox", "it's 42", "naïve 日本", "it's 42", "x" * 50, "a b " * 30)


def test_token_file_is_the_documents_one_after_the_other(tokenizer):
    ids, index = build(tokenizer, TEXTS)
    expected = [tokenizer.encode(text).ids for text in TEXTS]
    assert ids.tolist() == list(itertools.chain(*expected))
    assert index.document_start.tolist() == [0, *np.cumsum([len(e) for e in expected])]
    assert (index.n_tokens, index.n_documents) == (len(ids), len(TEXTS))
    assert [index.id_of(n) for n in range(6)] == [f"id{n}" for n in range(1, 7)]


def test_type_of_the_file_is_the_smallest_that_holds_the_vocabulary(tokenizer):
    for vocab_size, dtype in ((401, "<u2"), (65_535, "<u2"), (65_536, "<u4"), (100_003, "<u4")):
        ids, index = build(tokenizer, TEXTS, vocab_size)
        assert index.dtype == np.dtype(dtype)
        assert ids.tolist() == build(tokenizer, TEXTS)[0].tolist()


def test_hash_is_of_the_text_so_equal_texts_share_a_fold(tokenizer):
    _, index = build(tokenizer, TEXTS)
    expected = [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        for text in TEXTS
    ]
    assert index.document_hash.tolist() == expected
    assert index.document_hash[1] == index.document_hash[3]
    assert index.document_hash.dtype == np.uint64


def test_counts_are_by_fold(tokenizer):
    ids, index = build(tokenizer, TEXTS)
    fold = (index.document_hash & np.uint64(1)).astype(int)
    assert set(fold) == {0, 1}  # the texts were chosen for it
    expected = np.zeros((2, VOCAB_SIZE), np.int64)
    for n in range(len(TEXTS)):
        np.add.at(expected[fold[n]], ids[slice(*index.document_start[n : n + 2])], 1)
    np.testing.assert_array_equal(index.token_counts, expected)
    assert index.token_counts.dtype == np.int64


def test_bos_comes_before_every_document_and_is_counted(tokenizer):
    ids, index = build(tokenizer, TEXTS, bos_id=0)
    plain, plain_index = build(tokenizer, TEXTS)
    assert np.all(ids[index.document_start[:-1]] == 0)
    assert np.delete(ids, index.document_start[:-1]).tolist() == plain.tolist()
    assert index.n_tokens == plain_index.n_tokens + len(TEXTS)
    assert index.token_counts[:, 0].sum() == len(TEXTS)


@pytest.mark.parametrize("bos_id", [None, 0])
def test_limit_cuts_the_last_document_and_stops_reading(tokenizer, bos_id):
    whole, full = build(tokenizer, TEXTS, bos_id=bos_id)
    for limit in range(1, full.n_tokens + 3):
        ids, index = build(tokenizer, TEXTS, limit=limit, bos_id=bos_id)
        assert ids.tolist() == whole[:limit].tolist()
        starts = full.document_start[full.document_start < limit]
        assert index.document_start.tolist() == [*starts[: index.n_documents], len(ids)]
        assert index.token_counts.sum() == len(ids)


def test_limit_reads_little_ahead(tokenizer):
    taken = []

    def endless():
        for n in itertools.count():
            taken.append(n)
            place = skip_log.Location(0, n, "f")
            yield documents.Document(str(n), "The quick brown fox " * 50, place)

    tokenize.build(endless(), tokenizer, lambda data: None, vocab_size=VOCAB_SIZE, limit=10)
    assert sum(1000 for _ in taken) <= 70_000


def test_document_without_tokens_is_counted_and_leaves_no_trace():
    vocab = {"a": 0, "b": 1}
    # Characters outside the vocabulary vanish, as this model has no unknown token.
    made = tokenizers.Tokenizer(models.BPE(vocab, []))
    skips = skip_log.SkipLog()
    ids, index = build(made, ["??", "ab", "?", "b", "??"], 2, bos_id=0, skips=skips)
    assert ids.tolist() == [0, 0, 1, 0, 1]
    assert [index.id_of(n) for n in range(2)] == ["id2", "id4"]
    assert skips.counts == {skip_log.NO_TOKENS: 3}
    assert skips.entries == [(f"f:{n}", skip_log.NO_TOKENS) for n in (1, 3, 5)]


def test_no_tokens_at_all_is_an_error_that_says_what_was_skipped(tokenizer):
    skips = skip_log.SkipLog(documents=0, counts={"bad JSON": 3})
    with pytest.raises(errors.DataError, match="no tokens in corpus") as caught:
        build(tokenizer, [], skips=skips)
    assert caught.value.exit_code == 65
    assert "3 bad JSON" in caught.value.hint
    with pytest.raises(errors.DataError, match="no tokens in corpus"):
        build(tokenizer, [])


def test_tokenizer_that_does_not_fit_the_model_is_refused_by_token(tokenizer):
    with pytest.raises(errors.DataError, match=r"token \d+ \('.+'\) .* 100 "):
        build(tokenizer, TEXTS, 100)
    with pytest.raises(errors.ConfigError, match="BOS token 401"):
        build(tokenizer, TEXTS, bos_id=401)


def test_special_tokens_are_never_added(tokenizer):
    from tokenizers import processors

    wrapped = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    wrapped.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    assert build(wrapped, TEXTS)[0].tolist() == build(tokenizer, TEXTS)[0].tolist()


@pytest.mark.parametrize(
    "name", ["a" * 200, "a" * 201, "é" * 101, "日" * 100, "end\0", "lone \ud800", "日" * 10_000]
)
def test_id_is_kept_or_cut_at_a_character_with_a_hash(tokenizer, name):
    place = skip_log.Location(0, 0, "f")
    both = [documents.Document(name, "text", place), documents.Document(name + "2", "text", place)]
    index = tokenize.build(both, tokenizer, lambda data: None, vocab_size=VOCAB_SIZE)
    index = token_file.Index.from_arrays(index.to_arrays())
    first, second = index.id_of(0), index.id_of(1)
    assert first != second
    assert len(first.encode()) <= schema.ID_BYTES
    if len(name.encode("utf-8", "replace")) <= schema.ID_BYTES:
        assert first == name.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    else:
        kept, _, mark = first.rpartition("~")
        assert name.startswith(kept)
        assert len(mark) == 8


SPACED = st.text(st.sampled_from(" \n\r\t\u00a0\u2028\x1caé日1.,'!\U0001f600"), max_size=60)


@example("it's  \n x\u2028 \x1c y", 1)
@given(text=SPACED, size=st.integers(1, 7))
def test_cutting_long_documents_changes_no_id(tokenizer, text, size):
    pieces = list(tokenize._cut(text, size))
    assert "".join(pieces) == text
    joined = [i for piece in pieces for i in tokenizer.encode(piece).ids]
    assert joined == tokenizer.encode(text).ids


def test_long_documents_come_out_as_if_uncut(tokenizer):
    text = "The quick brown fox jumps;\n\n  it's 42 naïve 日本語.\r\n" * 3_000
    assert len(text) > 5 * tokenize._EXACT_PIECE
    ids, index = build(tokenizer, ["a", text, "b"])
    start, stop = index.document_start[1:3]
    assert ids[start:stop].tolist() == tokenizer.encode(text).ids
    assert index.n_documents == 3


def test_text_without_any_space_is_cut_at_a_fixed_place(tokenizer):
    text = "a" * (tokenize._EXACT_PIECE + tokenize._OVERRUN + 5)
    ids, index = build(tokenizer, [text])
    spelled = tokenize.strings(tokenizer, VOCAB_SIZE)
    assert b"".join(spelled[i] for i in ids).decode() == text
    assert index.n_documents == 1


HUGE = """
import sys
from jaxlens.corpus import tokenize as tokens
from jaxlens.corpus.readers import documents, skip_log
place = skip_log.Location(0, 0, "a")
text = "The quick brown fox jumps over the lazy dog.\\n" * (int(sys.argv[2]) // 45)
tokenizer = tokens.load_tokenizer(sys.argv[1])
write = lambda data: None
tokens.build([documents.Document("a", text[:1_500_000], place)], tokenizer, write, vocab_size=401)
mark()
tokens.build([documents.Document("a", text, place)], tokenizer, write, vocab_size=401)
"""


@pytest.mark.parametrize("size", [6_000_000, pytest.param(100_000_000, marks=pytest.mark.long)])
def test_one_huge_document_takes_no_more_memory_than_its_text(
    tokenizer, tmp_path, memory_growth, size
):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    # Encoded whole, its tokens alone would take 350 MB for 12 MB of text.
    assert memory_growth(HUGE, tmp_path, size) < 60 + size / 2**20


MANY = """
import sys
from jaxlens.corpus import tokenize as tokens
from jaxlens.corpus.readers import documents, skip_log
tokenizer = tokens.load_tokenizer(sys.argv[1])
def take(n):
    corpus = (documents.Document(str(i), "fox", skip_log.Location(0, i, "f")) for i in range(n))
    return tokens.build(corpus, tokenizer, lambda data: None, vocab_size=401)
take(20_000)
mark()
assert take(80_000).n_documents == 80_000
"""


def test_memory_stays_flat_over_many_documents(tokenizer, tmp_path, memory_growth):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert memory_growth(MANY, tmp_path) < 80_000 * 200 / 2**20  # 200 bytes a document


def test_real_text_is_tokenised_exactly(shared_data):
    tokenizer = tokenize.load_tokenizer(shared_data / "mini-gpt2")
    path = shared_data / "corpus" / "val-modern-000.jsonl.bz2"
    skips = skip_log.SkipLog()
    out = io.BytesIO()
    reader = documents.read([path], strict=True, skips=skips)
    index = tokenize.build(reader, tokenizer, out.write, vocab_size=4096)
    texts = [d.text for d in documents.read([path])]
    expected = [i for e in tokenizer.encode_batch(texts) for i in e.ids]
    assert np.frombuffer(out.getvalue(), index.dtype).tolist() == expected
    assert index.n_documents == skips.documents == 26
    # The manifest's size of the text: the byte strings of the tokens add up to it.
    spelled = np.array([len(s) for s in tokenize.strings(tokenizer, 4096)])
    assert spelled[expected].sum() == 292_976


def test_tokenising_keeps_above_50_000_tokens_a_second(shared_data):
    tokenizer = tokenize.load_tokenizer(shared_data / "mini-gpt2")
    path = shared_data / "corpus" / "train-modern-000.jsonl.bz2"
    start = time.perf_counter()
    index = tokenize.build(
        documents.read([path]), tokenizer, lambda data: None, vocab_size=4096, limit=300_000
    )
    rate = index.n_tokens / (time.perf_counter() - start)
    print(f"{rate:,.0f} tokens/s")
    assert rate > 50_000  # 1.2 million on two quiet cores; a loaded machine still passes


def test_text_that_makes_the_tokenizer_panic_is_an_error_that_says_where(capfd):
    """A pattern that gives up on long lines; the library answers with no ``Exception``."""
    tokenizer = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    pattern = tokenizers.Regex(r"(.*)*\d")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, "isolated")
    assert build(tokenizer, ["a"])[0].tolist() == [0]
    with pytest.raises(errors.DataError, match=r"after f:1: .*retry-limit") as caught:
        build(tokenizer, ["a" * 50_000])
    assert "\n" not in caught.value.message
    assert "panicked" in capfd.readouterr().err
