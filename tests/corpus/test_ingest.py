"""The published token file: found only where it is whole, and makes sense."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from jaxlens import config
from jaxlens.corpus import ingest, token_folder
from jaxlens.store import layout, records
from jaxlens.store.hdf5 import images, reading

WANTED = "f" * 64


@pytest.fixture
def folder(tokenizer, tmp_path):
    """A folder with the token file of a small corpus."""
    lines = [json.dumps({"text": f"The quick brown fox {n}"}) for n in range(20)]
    corpus = tmp_path / "a.jsonl"
    corpus.write_text("\n".join([*lines, "{", "", ""]))
    settings = config.CorpusConfig(paths=(str(corpus),))
    ingest.ingest(settings, tokenizer, 401, None, tmp_path / "tokens", WANTED)
    return tmp_path / "tokens"


def reseal(folder, **changes):
    """Makes the record fit the files, but for what is to be changed."""
    path = folder / layout.TOKEN_RECORD
    document = json.loads(path.read_text())
    for name, key in ((layout.TOKEN_FILE, "sha256"), (layout.TOKEN_INDEX, "index_sha256")):
        document[key] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    document |= changes
    document.pop("checksum")
    own = {key: document.pop(key) for key in ("sha256", "n_tokens", "dtype", "index_sha256")}
    path.write_bytes(records.encode_tokens(records.Tokens(**own), document))


def test_what_was_made_is_found_as_it_was(folder):
    found = token_folder.find(folder, WANTED)
    assert found is not None and not found.fresh
    assert found.skipped == {"bad JSON": 1, "empty": 1}
    assert found.skipped_at == ("a.jsonl:21: bad JSON", "a.jsonl:22: empty")
    with found.open() as tokens:
        assert len(tokens.read(0, found.index.n_tokens)) == found.record.n_tokens
    reseal(folder)
    assert token_folder.find(folder, WANTED) is not None


@pytest.mark.parametrize(
    "changes",
    [
        *({"documents": value} for value in (None, 0, -1, 19, 2**40, "20", True, [20])),
        *({"n_tokens": value} for value in (0, 1, 2**40)),
        {"dtype": "uint32"},
        *({"skipped": value} for value in (None, [], {"bad JSON": -1}, {"bad JSON": "1"}, {"": 1})),
        *({"skipped": {"bad\x1b[2JJSON": 1}}, {"skipped": {}}),
        *({"skipped_at": value} for value in (None, 3, [3], {}, [], "a.jsonl:21")),
        {"fingerprint": "0" * 64},
        {"padding": "x" * token_folder.RECORD_BYTES},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_sealed_record_that_makes_no_sense_is_not_taken(folder, changes):
    reseal(folder, **changes)
    assert token_folder.find(folder, WANTED) is None


def test_a_sealed_index_of_another_token_file_is_not_taken(folder):
    arrays, _ = reading.read_arrays(folder / layout.TOKEN_INDEX)
    arrays["document_start"][-1] += 1
    arrays["token_counts"][0, 0] += 1
    data = images.arrays_image(arrays, {"n_tokens": 1})
    (folder / layout.TOKEN_INDEX).write_bytes(data)
    reseal(folder)
    assert token_folder.find(folder, WANTED) is None


FIND = """
import pathlib, sys
from jaxlens.corpus import token_folder
assert token_folder.find(pathlib.Path(sys.argv[1]), "0" * 64) is None  # loads what it needs
mark()
assert token_folder.find(pathlib.Path(sys.argv[1]), sys.argv[2]) is None
"""


def test_a_sealed_index_that_unpacks_to_more_than_makes_sense_is_not_read(folder, memory_growth):
    arrays, _ = reading.read_arrays(folder / layout.TOKEN_INDEX)
    arrays["document_id"] = np.zeros((20, 2**20), "S8")
    axes = {name: tuple(f"{name}{i}" for i in range(a.ndim)) for name, a in arrays.items()}
    data = images.arrays_image(arrays, {"n_tokens": 1}, axes)
    assert len(data) < 3 * 2**20  # 160 MiB unpacked
    (folder / layout.TOKEN_INDEX).write_bytes(data)
    reseal(folder)
    assert memory_growth(FIND, folder, WANTED) < 50


def test_a_strict_run_over_skipped_lines_that_were_tokenised_before_is_refused(
    folder, tokenizer, tmp_path
):
    settings = config.CorpusConfig(paths=(str(tmp_path / "a.jsonl"),), strict=True)
    with pytest.raises(Exception, match=r"a\.jsonl:21: bad JSON") as caught:
        ingest.ingest(settings, tokenizer, 401, None, folder, WANTED)
    assert caught.value.exit_code == 65


def test_special_tokens_that_the_text_spells_are_said_to_be_read_as_such(
    tokenizer, tmp_path, caplog
):
    corpus = tmp_path / "a.txt"
    corpus.write_text("One.<|endoftext|>Two.\n<|endoftext|>\nThree.")
    caplog.set_level("INFO")
    for bos, separator, documents, left in (
        (None, None, 1, 2),
        (0, None, 1, 2),
        (0, "<|endoftext|>", 3, 0),
    ):
        caplog.clear()
        settings = config.CorpusConfig(paths=(str(corpus),), separator=separator)
        wanted = ingest.fingerprint(settings, "", 401, bos)
        folder = tmp_path / f"{bos}{separator is None}"
        made = ingest.ingest(settings, tokenizer, 401, bos, folder, wanted)
        assert made.index.n_documents == documents
        assert (f"<|endoftext|> stands in the text ({left} times)" in caplog.text) == bool(left)
        counts = made.index.token_counts.sum(axis=0)
        assert counts[tokenizer.token_to_id("<|endoftext|>")] == left + documents * (bos == 0)


def test_a_separator_makes_another_fingerprint_and_none_the_one_of_before_it_existed(tmp_path):
    corpus = tmp_path / "a.txt"
    corpus.write_text("One.\n---\nTwo.")
    plain = config.CorpusConfig(paths=(str(corpus),))
    made = {
        ingest.fingerprint(dataclasses.replace(plain, separator=mark), "0" * 64, 401, None)
        for mark in (None, "---", "\n")
    }
    assert len(made) == 3
    # What version 0.1 made of the same file and settings.
    assert "a5ed730a56c45404e26a8d3d0e6b5ab38909a5552feb7bbe7d8a587d5ea61ffb" in made
