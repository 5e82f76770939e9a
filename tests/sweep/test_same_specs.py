"""Specs and fingerprints of runs that began with version 0.1 are those of this version.

The values were made by the code before there were other kinds of corpora than text, lines of JSON
and Parquet. A run whose spec differs could not be resumed.
"""

import json

import pytest
from sweeps import configure

from jaxlens.sweep import prepare

FINGERPRINTS = {
    "file": "1c9760bcd3f577ab440321cd81e92c8d4d7a046dcd6f45212b8ce489399a32d4",
    "folder": "4e2fcd1876359df388ede2b62ac1a0de4fbc60fa147752080b321c3d9074e314",
}
CORPORA = {
    "file": {
        "bos": "none",
        "kind": "text",
        "n_documents": 58,
        "n_tokens": 4167,
        "sha256": "c18106d96c59c19f980b9466a9fccb66eced8b68c34b49cedabd16e49ccfc285",
        "skipped": {"bad JSON": 1, "empty": 1},
    },
    "folder": {
        "bos": "start",
        "kind": "text",
        "n_documents": 59,
        "n_tokens": 4237,
        "sha256": "0bb2f39902a9515a4de315b409c0c7b259bf2abb56fe9f81689ba54b76bbb3f5",
        "skipped": {"bad JSON": 1, "empty": 1},
    },
}
REST = {
    "format_version": 3,
    "lens": {
        "block": 50,
        "decoder": "final_norm",
        "implementation": "tiled",
        "precision": "float32",
        "residuals": "float32",
        "temperatures": [2.0, 1.5, 1.0],
        "tile": 512,
        "top_k": 1,
    },
    "null": {"kind": "none"},
    "plan": {
        "length": 32,
        "n_shards": 9,
        "n_steps": 36,
        "overlap": 0,
        "step_sequences": 4,
        "steps_per_shard": 4,
    },
    "seed": 0,
    "store": {
        "compression": "none",
        "quantities": [],
        "rows": "full",
        "shard_tokens": 512,
        "tallies": "basic",
    },
}


@pytest.fixture
def corpora(tmp_path, texts):
    """A file; and a folder in which lies what was passed over, and what would now be read alone."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("A story.\n<|endoftext|>\nAnother story.\n")
    (folder / "b.jsonl").write_bytes(texts.read_bytes())
    (folder / "c.json").write_text('{"text": "metadata"}')
    (folder / "d.csv").write_text("text\nrow\n")
    (folder / "sub" / "e.tsv").write_text("text\nrow\n")
    (folder / "f.tar").write_bytes(b"")
    return {"file": (texts, {}), "folder": (folder, {"corpus.bos": "start"})}


@pytest.mark.parametrize("name", CORPORA)
def test_a_run_that_began_before_can_be_resumed(name, corpora, tiny, tmp_path):
    corpus, more = corpora[name]
    made = prepare.prepare(configure(tiny, corpus, None, **more), tmp_path, read_only=True)
    assert made.ingested.fingerprint == FINGERPRINTS[name]
    spec = json.loads(made.spec_bytes)
    del spec["corpus"]["index_sha256"]  # differs with the version of HDF5
    assert spec["corpus"] == CORPORA[name]
    assert set(spec) == {*REST, "corpus", "model", "quantities", "tokenizer"}
    spec["format_version"] = 3  # a new run has the newest, and one that began keeps its own
    assert {key: spec[key] for key in REST} == REST
