"""A tokenizer whose regular expression does not end leaves the process able to answer."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time

import pytest
import tokenizers
from sweeps import PACKAGED, flags, refused, start

from jaxlens import api, errors
from jaxlens.cli import read_texts
from jaxlens.corpus import tokenize
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.models import encoding
from jaxlens.models import tokenizer as vocabulary
from jaxlens.sweep import preemption

# Of cubic time: seconds here, since what is given up goes on beside the next test, and a quarter
# of an hour for the process that is to be stopped.
LONG = "a" * 2_000 + " 1"
ENDLESS = "a" * 12_000 + " 1"


def spec(pattern):
    """A tokenizer that splits at a regular expression."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": split | {"invert": False},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("endless")
    (made / "tokenizer.json").write_text(json.dumps(spec("[a-z]*[a-z]*[0-9]")))
    return made


@pytest.fixture(scope="module")
def tokenizer(folder):
    return vocabulary.load_tokenizer(folder)


@pytest.fixture(scope="module")
def packaged():
    return vocabulary.load_tokenizer(PACKAGED)


def corpus(*texts):
    for number, text in enumerate(texts, 1):
        yield documents.Document(f"d{number}", text, skip_log.Location(0, number, "texts.jsonl"))


def test_what_is_encoded_is_what_the_library_encodes(packaged):
    texts = ["Other times, when", "", " plasma\n\n", "<|endoftext|> naïve 日本"]
    theirs = [packaged.encode(text, add_special_tokens=False).ids for text in texts]
    assert [found.ids for found in encoding.encode(packaged, texts)] == theirs


def test_a_document_that_takes_too_long_is_named(tokenizer):
    texts = ["a 1", "b 2", LONG, "c 3"]
    began = time.monotonic()
    with pytest.raises(errors.DataError) as caught:
        tokenize.build(corpus(*texts), tokenizer, len, vocab_size=2, encode_seconds=1)
    assert caught.value.message == ("the tokenizer takes over 1 s for document 3, texts.jsonl:3")
    assert "corpus.encode_seconds" in caught.value.hint
    assert time.monotonic() - began < 60


def test_it_is_named_after_batches_that_went_well(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenize, "_FIRST_BATCH_CHARACTERS", 1)
    texts = ["a 1", "b 2", "c 3", LONG]
    with pytest.raises(errors.DataError, match=r"document 4, texts\.jsonl:4"):
        tokenize.build(corpus(*texts), tokenizer, len, vocab_size=2, encode_seconds=1)


class SlowTogether:
    """A tokenizer whose batches take as long as it takes to look at each of their texts alone."""

    def __init__(self, tokenizer, looked_at):
        self.tokenizer, self.looked_at = tokenizer, looked_at
        self.to_str = tokenizer.to_str

    def encode_batch_fast(self, texts, **options):
        assert self.looked_at.wait(120)
        return self.tokenizer.encode_batch_fast(texts, **options)


def test_a_batch_that_is_slow_as_a_whole_is_waited_for(packaged, monkeypatch):
    """Each text is fast alone, all of them together take longer than one may."""
    texts = [f"Other times, when people say plasma {i}." for i in range(10)]
    looked_at, asked = threading.Event(), []
    encodes = encoding._Child.encodes

    def noted(child, text):
        in_time = encodes(child, text)
        asked.append(text)
        if len(asked) == len(texts):
            looked_at.set()
        return in_time

    monkeypatch.setattr(encoding._Child, "encodes", noted)
    found = encoding.encode(SlowTogether(packaged, looked_at), texts, seconds=2)
    assert [one.ids for one in found] == [packaged.encode(text).ids for text in texts]
    assert asked == texts


def test_signals_are_answered_while_a_text_is_encoded(tokenizer):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    with (
        pytest.raises(errors.InterruptedRun, match="SIGTERM"),
        preemption.on_signals(preemption.StopRequest(60)),
    ):
        tokenize.build(corpus(LONG), tokenizer, len, vocab_size=2)
    assert time.monotonic() - began < 20


def test_a_signal_ends_the_search_for_the_document_and_its_process(tokenizer, monkeypatch):
    children = []
    popen = encoding.subprocess.Popen
    monkeypatch.setattr(
        encoding.subprocess, "Popen", lambda *a, **k: children.append(popen(*a, **k)) or children[0]
    )
    encodes = encoding._Child.encodes

    def asked(child, text):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return encodes(child, text)

    monkeypatch.setattr(encoding._Child, "encodes", asked)
    with pytest.raises(errors.InterruptedRun), preemption.on_signals(preemption.StopRequest(60)):
        tokenize.build(corpus(LONG, "b"), tokenizer, len, vocab_size=2, encode_seconds=1)
    assert children[0].returncode == -signal.SIGKILL


def test_a_process_that_dies_names_no_document(tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_CHILD", "raise SystemExit")
    with pytest.raises(errors.StorageError, match="has ended"):
        encoding.encode(tokenizer, [LONG, "a"], seconds=0.2)


def test_a_failure_of_the_library_is_still_a_failure(packaged):
    with pytest.raises(ValueError):
        encoding.encode(packaged, [3])


def test_a_tokenizer_that_never_ends_with_a_sample_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "_SAMPLE", LONG)
    monkeypatch.setattr(vocabulary, "_SAMPLE_SECONDS", 0.2)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec("[a-z]*[a-z]*[0-9]")))
    with pytest.raises(errors.DataError, match="takes over"):
        vocabulary.load_tokenizer(tmp_path)


def test_a_prompt_that_takes_too_long_is_refused(tiny, tokenizer, monkeypatch):
    model = api.load_model(tiny)
    monkeypatch.setattr(encoding, "SECONDS", 0.2)
    monkeypatch.setattr(encoding.encode, "__defaults__", (0.2,))
    with pytest.raises(errors.DataError, match=r"takes over 0\.2 s"):
        read_texts.encode(dataclasses.replace(model, tokenizer=tokenizer), LONG)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 130)],
)
def test_the_command_line_ends_at_a_signal(tiny, folder, tmp_path, number, code):
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny.iterdir():
        if path.name != "tokenizer.json":
            (model / path.name).symlink_to(path)
    (model / "tokenizer.json").symlink_to(folder / "tokenizer.json")
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": ENDLESS}) + "\n")
    with (tmp_path / "said").open("w+") as said:
        process = start(*flags(model, path, tmp_path / "out"), stderr=said)
        while process.poll() is None and "tokenising" not in (tmp_path / "said").read_text():
            time.sleep(0.05)
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait() == code
        assert time.monotonic() - began < 20
    assert "run the same command to resume" in (tmp_path / "said").read_text()


def test_what_a_tokenizer_raises_is_an_error_of_the_data(tiny, tmp_path, capsys):
    """WordPiece without a token for unknown words raises a plain ``Exception``."""
    model = shutil.copytree(tiny, tmp_path / "model")
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}, unk_token="[UNK]"))
    (model / "tokenizer.json").write_text(made.to_str())
    assert "the tokenizer fails" in refused(capsys, 65, "show", "xyz", "--model", model)
