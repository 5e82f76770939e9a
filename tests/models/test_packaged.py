"""The model that is shipped."""

import importlib.resources
import pathlib
import re

import pytest

from jaxlens.models.checkpoints import checkpoint as weights

DIRECTORY = pathlib.Path(str(importlib.resources.files("jaxlens"))) / "models" / "packaged"
LARGEST = 6 * 10**6


def test_packaged_model_loads_and_is_the_one_on_its_card():
    checkpoint = weights.load(DIRECTORY)
    sizes = checkpoint.architecture
    assert (sizes.n_layer, sizes.n_embd, sizes.options.n_head, sizes.vocab_size) == (
        8,
        128,
        4,
        4096,
    )
    assert sizes.bos_token_id == 0
    (stated,) = re.findall(r"`([0-9a-f]{64})`", (DIRECTORY / "README.md").read_text())
    assert weights.digest(checkpoint.params) == stated


def test_packaged_model_is_small_enough_to_ship():
    files = {path.name: path.stat().st_size for path in DIRECTORY.iterdir()}
    assert set(files) == {"README.md", "config.json", "flax_model.msgpack", "tokenizer.json"}
    assert sum(files.values()) <= LARGEST


def test_packaged_tokenizer_reads_what_it_wrote():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 4096
    text = "Sometimes, when people say plasma, they mean a state of matter.\n\tNaïve café 日本"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.token_to_id("<|endoftext|>") == 0
