"""A thousand mangled copies of each file of a model (long: 10,000): refused, or loaded whole."""

import functools
import json

import checkpoints
import fuzzing
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from jaxlens.models.checkpoints import checkpoint

NAMES = [b"transformer", b"wte", b"h.0.", b"h.1.", b"ln_1", b"lm_head", b"weight", b"kernel"]
JSON = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b'"',
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 25,
]


def weights_file(fmt, folder):
    """The file of a tied model, of an untied one's values, and of another number of layers."""
    made = []
    for seed in (1, 2):
        checkpoint.save(folder / fmt / str(seed), *checkpoints.make(seed=seed), fmt)
        made.append((folder / fmt / str(seed) / checkpoints.FILE[fmt]).read_bytes())
    return made


def msgpack_seeds(folder):
    words = [
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\x00\x01\x00\x00",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x81\xa1a",
    ]
    words += [b"__msgpack_chunked_array__", b"float16", b"object", b"bfloat16", b"\xc7\x05\x01"]
    return weights_file("msgpack", folder), words + NAMES


def safetensors_seeds(folder):
    words = [b'"dtype":"F64"', b'"dtype":"I8"', b'"BF16"', b'"shape":[0]', b'"data_offsets":[0,0]']
    return weights_file("safetensors", folder), words + NAMES + JSON


def config_seeds(folder):
    keys = [*checkpoints.CONFIG, "architectures", "n_ctx", "bos_token_id", "quantization_config"]
    more = {"activation_function": "relu", "layer_norm_epsilon": 1e-3, "bos_token_id": 0}
    older = {
        "architectures": ["GPT2LMHeadModel"],
        "n_ctx": 7,
        "n_inner": 10,
        "id2label": {"0": "a"},
    }
    base = {key: value for key, value in checkpoints.CONFIG.items() if key != "n_inner"}
    seeds = [checkpoints.CONFIG, checkpoints.CONFIG | more, base | older]
    return [json.dumps(seed).encode() for seed in seeds], [
        f'"{key}":'.encode() for key in keys
    ] + JSON


def index_seeds(folder):
    checkpoints.write_shards(folder / "made", "msgpack")
    raw = (folder / "made/flax_model.msgpack.index.json").read_bytes()
    words = [b"../", b"/etc/passwd", b".msgpack", b"weight_map", b"\\u0000", b"\\ud800", b"\\n"]
    return [raw, json.dumps(json.loads(raw), indent=1).encode()], words + NAMES + JSON


def gguf_seeds(folder):
    gguf_files = pytest.importorskip("gguf_files")
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 4, "head_dim": 16}
    config = gguf_files.CONFIGS["llama"] | sizes
    state = gguf_files.random_state(config, folder / "state")

    def tokens(writer, model):
        words = ["<s>", "a", "b", "ab"]
        writer.add_string("tokenizer.ggml.model", model)
        writer.add_string("tokenizer.ggml.pre", "smollm")
        writer.add_array("tokenizer.ggml.tokens", words)
        writer.add_array("tokenizer.ggml.token_type", [3, 1, 1, 1])
        writer.add_array("tokenizer.ggml.scores", [0.0, -1.0, -2.0, -3.0])
        writer.add_array("tokenizer.ggml.merges", ["a b"])

    seeds = []
    for model, kind in (("gpt2", "Q4_0"), ("llama", "F32")):
        extra = functools.partial(tokens, model=model)
        gguf_files.write(folder / "seed.gguf", config, state, kind, extra)
        seeds.append((folder / "seed.gguf").read_bytes())
    words = [b"llama.", b"tokenizer.ggml.", b"blk.0.attn_q.weight", b"output.weight", b"\x09\0\0\0"]
    return seeds, [*words, b"qwen2", b"rope_freqs.weight", b"\x08\0\0\0", b"split.count"]


def tokenizer_seeds(folder):
    plain = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, " ": 3}, [("a", "b")]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.add_special_tokens(["<|endoftext|>"])
    plain.enable_padding(length=4)
    rich = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}))
    rich.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex("a+"), "a")]
    )
    rich.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"\s+|(a|b)*"), "isolated")
    rich.post_processor = processors.TemplateProcessing("[UNK] $A", None, [("[UNK]", 0)])
    one = tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0), ("ab", 0.0)], 0, True))
    one.pre_tokenizer = pre_tokenizers.Metaspace()
    words = [b'"type":"Custom"', b'"Regex":"(a*)*b"', b'"id":4294967295', b'"type":"Precompiled"']
    seeds = [made.to_str().encode() for made in (plain, rich, one)]
    return seeds, [*words, b'"dropout":0.5', b'"unk_id":7', b'"Sequence"', b"\\ud800", *JSON]


SEEDS = {
    "msgpack": msgpack_seeds,
    "safetensors": safetensors_seeds,
    "config": config_seeds,
    "index": index_seeds,
    "gguf": gguf_seeds,
    "tokenizer": tokenizer_seeds,
}


@pytest.mark.parametrize("count", fuzzing.COUNTS)
@pytest.mark.parametrize("target", SEEDS)
def test_mangled_model_files_load_whole_or_are_refused(tmp_path, target, count):
    seeds, words = SEEDS[target](tmp_path)
    fuzzing.fuzz(f"fuzz.read_models:{target}", seeds, count, tmp_path / "seeds", words=words)
