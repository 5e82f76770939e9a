"""Corpora that are made: sentences, prompts, ids in place of text, and what names them."""

import hashlib
import io
import itertools
import pathlib

import numpy as np
import pytest

import jaxlens
from jaxlens import designs, errors
from jaxlens.corpus import tokenize as tokens
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.corpus.synthetic import generate, nouns, prompts, templates
from jaxlens.models.tokenizer import load_tokenizer, strings

PACKAGED = pathlib.Path(jaxlens.__file__).parent / "models" / "packaged"


@pytest.fixture(scope="module")
def packaged():
    return load_tokenizer(PACKAGED)


@pytest.fixture(scope="module")
def spelled(packaged):
    return strings(packaged, 4096)


def read(made):
    log = skip_log.SkipLog()
    return list(made.read(log)), log


def test_a_document_that_brings_ids_is_not_tokenised(tokenizer):
    place = skip_log.Location(0, 1, "f")
    ids = tuple(tokenizer.token_to_id(letter) for letter in "quick")  # it would merge them
    corpus = [
        documents.Document("a", "The quick", place),
        documents.Document("b", "", place, ids),
        documents.Document("c", "fox", place),
    ]
    assert tuple(tokenizer.encode("quick").ids) != ids
    out = io.BytesIO()
    index = tokens.build(corpus, tokenizer, out.write, vocab_size=401, bos_id=0)
    found = np.frombuffer(out.getvalue(), index.dtype)
    start, stop = index.document_start[1:3]
    assert found[start:stop].tolist() == [0, *ids]
    assert found[stop:].tolist() == [0, *tokenizer.encode("fox").ids]
    digest = hashlib.blake2b(np.array(ids, "<u4").tobytes(), digest_size=8).digest()
    assert int(index.document_hash[1]) == int.from_bytes(digest, "little")
    assert index.token_counts[digest[0] & 1, ids[0]] == 1


def test_ids_that_the_model_has_not_are_refused(tokenizer):
    corpus = [documents.Document("b", "", skip_log.Location(0, 1, "f"), (401,))]
    with pytest.raises(errors.DataError, match="401"):
        tokens.build(corpus, tokenizer, lambda data: None, vocab_size=401)


def test_every_noun_of_a_sentence_is_one_token_of_the_bin_that_its_id_names(packaged, spelled):
    made = generate.corpus(designs.PLASMA, packaged, spelled, room=64, seed=0)
    found, log = read(made)
    assert found[0].id == designs.POST
    assert found[0].text == templates.POST
    assert log.documents == len(found) == len({document.id for document in found}) > 60
    assert log.counts == {skip_log.NOT_ONE_TOKEN: len(nouns.NOUNS) + 1 - len(found)}
    by_bin = [[] for _ in range(designs.N_BINS)]
    for document in found[1:]:
        design = designs.parse(document.id)
        (token,) = packaged.encode(f" {design.name}").ids
        assert packaged.encode(document.text).ids.count(token) == 2
        by_bin[design.bin].append(token)
    held = [tokens for tokens in by_bin if tokens]
    assert len(held) > 4
    for rare, frequent in itertools.pairwise(held):
        assert min(rare) > max(frequent)  # earlier merges have lower ids
    assert len({designs.parse(d.id).bin for d in found[1:6]}) == 5  # one of each bin first


def test_sentences_that_do_not_fit_and_nouns_without_a_count_are_skipped(packaged, spelled):
    (house,) = packaged.encode(" house").ids
    counts = np.zeros(4096, np.int64)
    counts[[house, 300]] = 5, 90
    made = generate.corpus(designs.PLASMA, packaged, spelled, room=64, seed=0, counts=counts)
    found, log = read(made)
    assert [d.id for d in found] == [designs.POST, "plasma/bin-0/house"]
    assert log.counts[skip_log.NO_FREQUENCY] > 60
    assert log.skipped == len(nouns.NOUNS) - 1
    made = generate.corpus(designs.PLASMA, packaged, spelled, room=20, seed=0)
    found, log = read(made)
    assert [d.id for d in found] == [designs.POST]
    assert log.counts[skip_log.LONGER_THAN_SEQUENCE] > 60


def test_curated_prompts_have_stable_ids_and_begin_with_the_post(packaged, spelled):
    found, log = read(generate.corpus(designs.CURATED, packaged, spelled, room=8, seed=0))
    assert [d.id for d in found][:2] == ["curated/plasma", "curated/gneiss"]
    assert {designs.parse(d.id).name: d.text for d in found} == prompts.PROMPTS
    assert log.documents == len(found)
    for document in found:
        assert document.text == document.text.strip()


def test_nouns_are_words_and_each_is_there_once():
    assert len(nouns.NOUNS) == len(set(nouns.NOUNS)) >= 200
    assert all(noun.isascii() and noun.isalpha() and noun.islower() for noun in nouns.NOUNS)


def test_a_fingerprint_names_all_that_decides_a_made_corpus(packaged, spelled):
    counts = np.arange(4096)

    def fingerprint(name, shuffle=None, options=None, **more):
        arguments = {"room": 32, "seed": 0} | more
        made = generate.corpus(name, packaged, spelled, **arguments)
        return generate.Controls(made, shuffle).fingerprint((name,), options or {"bos": None})

    kinds = [
        fingerprint(designs.REPEATS),
        fingerprint(designs.REPEATS, seed=1),
        fingerprint(designs.REPEATS, room=64),
        fingerprint(designs.REPEATS, counts=counts),
        fingerprint(designs.REPEATS, shuffle=0),
        fingerprint(designs.REPEATS, shuffle=1),
        fingerprint(designs.REPEATS, options={"bos": 0}),
        fingerprint(designs.PLASMA),
        fingerprint(designs.PLASMA, counts=counts),
        fingerprint(designs.CURATED),
    ]
    assert len(set(kinds)) == len(kinds)
    assert fingerprint(designs.REPEATS) == kinds[0]
    assert fingerprint(designs.PLASMA, seed=1) == fingerprint(designs.PLASMA)


def test_a_shuffle_is_named_by_the_fingerprint_of_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("words")
    plain = generate.NONE.fingerprint((str(path),), {"bos": None})
    assert plain == documents.fingerprint((str(path),), {"bos": None})
    mixed = {generate.Controls(None, n).fingerprint((str(path),), {"bos": None}) for n in (0, 1)}
    assert len({plain, *mixed}) == 3
