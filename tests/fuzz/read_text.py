"""What the fuzzer of texts calls: each function reads one input, or refuses it."""

import atexit
import dataclasses
import functools
import hashlib
import json
import pathlib
import tempfile

import numpy as np

from jaxlens import config, errors
from jaxlens.corpus import ingest, token_folder
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.models import tokenizer
from jaxlens.store import records, strict_json
from jaxlens.store.hdf5 import images, reading

_SCRATCH = tempfile.TemporaryDirectory(prefix="jaxlens-fuzz-")
atexit.register(_SCRATCH.cleanup)
FOLDER = pathlib.Path(_SCRATCH.name)
WANTED = "f" * 64
"""Fingerprint of the token file."""


def read_documents(name, raw):
    """Reads a file of this name strictly to its end, then counting, and checks the account."""
    path = FOLDER / name
    path.write_bytes(raw)
    log = skip_log.SkipLog()
    for document in documents.read([path], skips=log):
        assert document.text.encode("utf-8") and not document.text.isspace()
        log.documents -= 1
    assert log.documents == 0
    assert bool(log.entries) == bool(log.skipped)
    # What was skipped is what strict reading refuses.
    for _ in documents.read([path], strict=True):
        pass
    assert not log.skipped


def json_lines(raw):
    read_documents("a.jsonl", raw)


def plain(raw):
    read_documents("a.txt", raw)


def packed(raw):
    """The first byte says how it is packed."""
    suffix = (".gz", ".bz2", ".zst")[raw[0] % 3] if raw else ".gz"
    read_documents("a.jsonl" + suffix, raw[1:])


def kinds(raw):
    """The first byte says which of the other kinds it is."""
    names = ("a.json", "a.csv", "a.tsv", "a.tar", "a.arrow")
    read_documents(names[raw[0] % len(names)] if raw else names[0], raw[1:])


def parquet(raw):
    read_documents("a.parquet", raw)


def settings(raw):
    path = FOLDER / "a.yaml"
    path.write_bytes(raw)
    config.load([path])


def token_file(raw):
    """The first byte says which of the files it is, and whether the record is made to fit it.

    The last kind is the index by its numbers, since HDF5's own checksums shield them from changes.
    """
    kind = raw[0] % 7 if raw else 0
    sound = _sound()
    if kind < 6:
        files = sound | {token_folder.FILES[kind % 3]: raw[1:]}
    else:
        files = sound | {token_folder.FILES[1]: _index_of(raw[1:])}
    if kind >= 3:
        files[token_folder.FILES[2]] = _sealed(files, sound)
    for file, data in files.items():
        (FOLDER / file).write_bytes(data)
    found = token_folder.find(FOLDER, WANTED)
    if found is None:
        raise errors.DataError("it is not taken for the token file")
    assert sum(found.skipped.values()) >= len(found.skipped_at) // 2
    with found.open() as tokens:
        n_tokens = found.index.n_tokens
        first = tokens.read(0, min(n_tokens, 50))
        last = tokens.gather(np.array([0, n_tokens - 1]))
        assert tokens.document_of(np.array([0]))[0] == 0
        assert max(first.max(), last.max()) < found.index.vocab_size
    found.index.id_of(found.index.n_documents - 1).encode("utf-8")


def token_seeds():
    """Inputs for ``token_file`` that are sound."""
    files = [bytes([kind]) + _sound()[token_folder.FILES[kind % 3]] for kind in range(6)]
    return [*files, b"\6" + b"".join(array.tobytes() for array in _arrays().values())]


@functools.cache
def _sound():
    """The three files of a small corpus."""
    folder = FOLDER / "sound"
    corpus = FOLDER / "corpus.jsonl"
    lines = [json.dumps({"id": f"é{n}", "text": "the old town " * (n % 7)}) for n in range(50)]
    corpus.write_text("\n".join([*lines, "{", "{", ""]))
    model = pathlib.Path(config.__file__).parent / "models" / "packaged"
    settings = config.CorpusConfig(paths=(str(corpus),))
    ingest.ingest(settings, tokenizer.load_tokenizer(model), 4096, None, folder, WANTED)
    return {name: (folder / name).read_bytes() for name in token_folder.FILES}


def _sealed(files, sound):
    """A record whose hashes and checksum fit the other files; its claims stay."""
    tokens, index, record = (files[name] for name in token_folder.FILES)
    try:
        document = strict_json.parse(record, "TOKENS.json")
    except errors.DataError:
        document = strict_json.parse(sound[token_folder.FILES[2]], "TOKENS.json")
    document.pop("checksum", None)
    itemsize = 4 if document.get("dtype") == "uint32" else 2
    names = {field.name for field in dataclasses.fields(records.Tokens)}
    fitting = {
        "sha256": hashlib.sha256(tokens).hexdigest(),
        "n_tokens": len(tokens) // itemsize,
        "dtype": document.get("dtype"),
        "index_sha256": hashlib.sha256(index).hexdigest(),
    }
    more = {key: value for key, value in document.items() if key not in names}
    return records.encode_tokens(records.Tokens(**fitting), more)


@functools.cache
def _arrays():
    """The numbers of the index."""
    (FOLDER / "index.h5").write_bytes(_sound()[token_folder.FILES[1]])
    arrays, _ = reading.read_arrays(FOLDER / "index.h5")
    return {name: array for name, array in sorted(arrays.items()) if name != "token_strings"}


def _index_of(raw):
    """An index whose arrays hold these bytes, as far as they go."""
    arrays = {}
    for name, array in _arrays().items():
        piece, raw = raw[: array.nbytes], raw[array.nbytes :]
        whole = piece[: len(piece) // array.itemsize * array.itemsize]
        flat = np.frombuffer(whole, array.dtype)
        arrays[name] = flat.reshape(array.shape) if len(flat) == array.size else flat
    return images.arrays_image(arrays, {"n_tokens": 1})
