"""Null models and made corpora, through the real command line."""

import itertools
import os
import pathlib
import shutil

import numpy as np
import pytest
import sweeps
from sweeps import TINY, digest, refused, run_cli

import jaxlens
from jaxlens import designs
from jaxlens.corpus import token_folder
from jaxlens.models import gpt2, loading
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import layout, verify

NULLS = ("random-init", "shuffled")


def flags(model, corpus, out):
    """The step of the fixture `swept`, and fewer shards."""
    shards = ("--set", "store.shard_tokens=1024")
    return (*sweeps.flags(model, corpus, out), *shards)


def ran(*arguments):
    assert run_cli(*arguments) == 0


def tree(folder):
    """Every file but what workers note of themselves."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files}
    return {n: p.read_bytes() for n, p in named.items() if not n.startswith("environment/")}


@pytest.fixture(scope="module")
def nulls(tiny, texts, tmp_path_factory):
    """A finished run of each null."""
    folder = tmp_path_factory.mktemp("nulls")
    for null in NULLS:
        ran(*flags(tiny, texts, folder / null), "--null", null, "--seed", 3)
    return folder


@pytest.fixture(scope="module")
def plain(tiny, texts, tmp_path_factory):
    """The run without a null."""
    out = tmp_path_factory.mktemp("plain") / "run"
    ran(*flags(tiny, texts, out))
    return out


def test_fresh_weights_are_those_of_gpt2_before_training(nulls, plain, tiny):
    found = checkpoint.load(tiny)
    fresh = gpt2.init(found.architecture, 3)
    spec, trained = (layout.read_spec(out).document for out in (nulls / "random-init", plain))
    assert spec["model"]["sha256"] == checkpoint.digest(fresh)
    assert trained["model"]["sha256"] == checkpoint.digest(found.params)
    assert spec["model"]["architecture"] == trained["model"]["architecture"]
    assert spec["corpus"] == trained["corpus"]
    assert (spec["null"], spec["seed"]) == ({"kind": "random-init", "seed": 3}, 3)
    assert (trained["null"], trained["corpus"]["kind"]) == ({"kind": "none"}, "text")


@pytest.mark.parametrize("part", ["wte", "wpe", "c_attn", "c_fc", "c_proj", "bias", "scale"])
def test_initial_weights_have_the_spread_of_gpt2(part):
    sizes = loading.load_checkpoint("packaged").architecture
    params = gpt2.init(sizes, 5)
    expected = 0.02 / np.sqrt(2 * sizes.n_layer) if part == "c_proj" else 0.02
    leaves = {
        **{"wte": [params["wte"]], "wpe": [params["wpe"]]},
        "c_attn": [params["h"]["attn"]["c_attn"]["kernel"]],
        "c_fc": [params["h"]["mlp"]["c_fc"]["kernel"]],
        "c_proj": [params["h"][name]["c_proj"]["kernel"] for name in ("attn", "mlp")],
        "bias": [params["ln_f"]["bias"], params["h"]["attn"]["c_proj"]["bias"]],
        "scale": [params["ln_f"]["scale"], params["h"]["ln_2"]["scale"]],
    }[part]
    for leaf in leaves:
        if part in ("bias", "scale"):
            assert (leaf == (part == "scale")).all()
        else:
            # The error of a standard deviation of n draws is 1 / sqrt(2 n) of it; five of them.
            bound = 5 / np.sqrt(2 * leaf.size)
            assert abs(leaf.std() / expected - 1) < bound
            assert abs(leaf.mean()) < 5 * expected / np.sqrt(leaf.size)


def test_rows_of_fresh_weights_are_what_the_lens_reads_with_them(nulls, tiny):
    found = checkpoint.load(tiny)
    fresh = checkpoint.Checkpoint(found.architecture, gpt2.init(found.architecture, 3), None)
    with jaxlens.open_run(nulls / "random-init") as run:
        tokens, document = run["token"][:], run["document"][:]
        line = tokens[document == document[0]][None, : TINY["n_positions"]].astype(np.int32)
        readout = jaxlens.read_lens(loading.from_checkpoint(fresh), line).present()
        value = np.asarray(readout["entropy"])[:, 0].T
        # Float32 sums in another order, of entropies of order 8.
        np.testing.assert_allclose(run["entropy"][: line.size], value, rtol=1e-5)


def test_a_shuffled_run_has_the_same_documents_with_their_tokens_in_another_order(nulls, plain):
    with jaxlens.open_run(nulls / "shuffled") as one, jaxlens.open_run(plain) as two:
        assert np.array_equal(one["document"][:], two["document"][:])
        assert np.array_equal(one["fold"][:], two["fold"][:])
        document, mixed, text = one["document"][:], one["token"][:], two["token"][:]
        for number in np.unique(document):
            rows = document == number
            assert sorted(mixed[rows]) == sorted(text[rows])
        assert (mixed != text).mean() > 0.5
        assert one.spec["null"] == {"kind": "shuffled", "seed": 3}
        assert one.spec["model"] == two.spec["model"]
    index = [token_folder.find(out / "tokens", None).index for out in (nulls / "shuffled", plain)]
    np.testing.assert_array_equal(index[0].document_hash, index[1].document_hash)
    np.testing.assert_array_equal(index[0].token_counts, index[1].token_counts)


@pytest.mark.parametrize("null", NULLS)
def test_an_interrupted_null_ends_as_if_it_had_not_been(nulls, tiny, texts, tmp_path, null):
    out = tmp_path / "out"
    command = (*flags(tiny, texts, out), "--null", null, "--seed", 3)
    ran(*command, "--shard", "0/2")
    assert not (out / "MANIFEST").exists()
    ran(*command)
    assert digest(out) == digest(nulls / null)
    assert verify.verify(out).ok


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--null", "{null}", "--seed", 4), "null.seed is 3 there, 4 here"),
        (("--null", "{other}", "--seed", 3), "null.kind is '{null}' there, '{other}' here"),
        (("--seed", 3), "null.kind is '{null}' there, 'none' here"),
    ],
    ids=["seed", "kind", "none"],
)
def test_a_null_is_not_resumed_as_something_else(
    nulls, tiny, texts, tmp_path, capsys, null, change, named
):
    out = shutil.copytree(nulls / null, tmp_path / "run")
    names = {"null": null, "other": NULLS[1 - NULLS.index(null)]}
    command = [str(word).format(**names) for word in change]
    said = refused(capsys, 2, *flags(tiny, texts, out), *command)
    assert named.format(**names) in said
    assert tree(out) == tree(nulls / null)


@pytest.mark.parametrize("null", [pytest.param("random-init", marks=pytest.mark.long), "shuffled"])
def test_a_null_is_repaired_bit_for_bit_without_being_named(
    nulls, tiny, texts, tmp_path, capsys, null
):
    out = shutil.copytree(nulls / null, tmp_path / "run")
    layout.shard_path(out, 1).unlink()
    tokens = out / "tokens" / "tokens.bin"
    ran("repair", out, "--model", tiny)
    assert tree(out) == tree(nulls / null)
    tokens.write_bytes(tokens.read_bytes()[::-1])
    layout.shard_path(out, 2).unlink()
    ran("repair", out, "--model", tiny, "--corpus", texts)
    assert tree(out) == tree(nulls / null)


def test_a_run_that_names_no_known_null_is_not_repaired(nulls, tiny, tmp_path, capsys):
    out = shutil.copytree(nulls / "shuffled", tmp_path / "run")
    spec = (out / "RUN.json").read_text()
    (out / "RUN.json").write_text(spec.replace('"kind":"shuffled"', '"kind":"scrambled"'))
    for name in ("MANIFEST", "summary.h5", "index.h5"):  # which know the spec by its hash
        (out / name).unlink()
    for name in ("shards", "environment"):
        shutil.rmtree(out / name)
    (out / "shards").mkdir()
    layout.shard_path(out, 0).write_bytes(b"")
    said = refused(capsys, 65, "repair", out, "--model", tiny)
    assert "scrambled" in said


def test_a_negative_seed_is_a_seed(tiny, texts, tmp_path):
    for null in NULLS:
        out = tmp_path / null
        ran(*flags(tiny, texts, out), "--limit", 300, "--null", null, "--seed", -1)
        assert layout.read_spec(out).document["null"]["seed"] == -1


def test_a_null_can_be_estimated_and_tokenised_ahead(nulls, tiny, texts, tmp_path, capsys):
    out = tmp_path / "out"
    for null in NULLS:
        ran(*flags(tiny, texts, out), "--null", null, "--dry-run")
    assert not out.exists()
    ran("tokenize", "--model", tiny, "--corpus", texts, "--out", out, "--null", "shuffled",
        "--seed", 3)  # fmt: skip
    made = (out / "tokens" / "tokens.bin").read_bytes()
    assert made == (nulls / "shuffled" / "tokens" / "tokens.bin").read_bytes()
    capsys.readouterr()
    ran(*flags(tiny, texts, out), "--null", "shuffled", "--seed", 3)
    assert "tokenising" not in capsys.readouterr().err
    assert digest(out) == digest(nulls / "shuffled")


def test_tokens_are_made_without_reading_the_weights(tiny, texts, tmp_path, capsys):
    model = shutil.copytree(tiny, tmp_path / "model")
    (weights,) = model.glob("*.safetensors")
    with weights.open("r+b") as file:  # the header stays
        file.seek(-4, os.SEEK_END)
        file.write(np.float32("nan").tobytes())
    out = tmp_path / "out"
    assert "not finite" in refused(capsys, 65, *flags(model, texts, out))
    ran("tokenize", "--model", model, "--corpus", texts, "--out", out)
    assert (out / "tokens" / "tokens.bin").stat().st_size


def test_an_unknown_null_is_refused(tiny, texts, tmp_path, capsys):
    said = refused(capsys, 2, *flags(tiny, texts, tmp_path / "out"), "--null", "zero")
    assert "random-init" in said


def flags_of(tiny, corpus, out):
    several = ("--set", "store.shard_tokens=512")
    return (*flags(tiny, corpus, out), *several, "--limit", 1000, "--seed", 7)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A finished run of each made corpus."""
    folder = tmp_path_factory.mktemp("made")
    for name in designs.CORPORA:
        ran(*flags_of(tiny, name, folder / name.partition(":")[2]))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name == designs.PLASMA))
        for name in designs.CORPORA
    ],
)
def test_a_made_corpus_is_swept_resumed_and_repaired(made, tiny, tmp_path, name, capsys):
    whole = made / name.partition(":")[2]
    with jaxlens.open_run(whole) as run:
        assert run.spec["corpus"]["kind"] == name
        assert 300 < len(run) <= 1000
    assert verify.verify(whole).ok
    out = tmp_path / "out"
    ran(*flags_of(tiny, name, out), "--shard", "1/2")
    ran(*flags_of(tiny, name, out))
    assert digest(out) == digest(whole)
    layout.shard_path(out, 0).unlink()
    (out / "tokens" / "tokens.bin").unlink()
    ran("repair", out, "--model", tiny, "--limit", 1000)  # the run says which corpus it is
    assert tree(out) == tree(whole)


def test_repeats_are_read_as_copies_from_one_lag_before(made):
    with jaxlens.open_run(made / "repeats") as run:
        index = token_folder.find(made / "repeats" / "tokens", None).index
        assert run.spec["corpus"]["skipped"] == {"longer than a sequence": 3200}
        document, offset = run["document"][:], run["offset"][:]
        columns = {
            name: run[name][:]
            for name in ("token", "prev_distance", "prev_count", "match_length", "rank_copy")
        }
        for number in np.unique(document[:-32]):  # the limit cuts the last one
            design = designs.parse(index.id_of(int(number)))
            rows = document == number
            tokens = columns["token"][rows]
            assert (design.design, design.lag, len(tokens)) == ("repeats", 16, 32)
            assert tokens[:16].tolist() == tokens[16:].tolist()
            second = rows & (offset >= 16)
            assert (columns["prev_distance"][second] == 16).all()
            assert (columns["prev_count"][second] == 1).all()
            assert columns["match_length"][second].tolist() == list(range(1, 17))
            assert (columns["rank_copy"][second][:, 0] > 0).all()


def test_random_twins_depend_on_the_seed_and_sentences_do_not(made, tiny, tmp_path, capsys):
    for name in designs.CORPORA:
        out = shutil.copytree(made / name.partition(":")[2], tmp_path / name)
        said = refused(capsys, 2, *flags_of(tiny, name, out)[:-1], 8)
        assert ("corpus.sha256" in said) == (name == designs.REPEATS)
        assert "seed is 7 there, 8 here" in said


def test_a_made_corpus_is_not_resumed_as_another(made, tiny, tmp_path, capsys):
    out = shutil.copytree(made / "plasma", tmp_path / "run")
    said = refused(capsys, 2, *flags_of(tiny, designs.CURATED, out))
    assert "corpus.kind is 'twins:plasma' there, 'prompts:curated' here" in said


def test_twins_take_their_bins_from_the_counts_of_a_run(plain, tiny, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    for place, counts in ((out, plain), (again, plain / "tokens")):
        ran(*flags_of(tiny, designs.REPEATS, place), "--set", f"corpus.counts={counts}")
    assert digest(out) == digest(again)
    counts = token_folder.find(plain / "tokens", None).index.token_counts.sum(0)
    index = token_folder.find(out / "tokens", None).index
    with jaxlens.open_run(out) as run:
        token, document = run["token"][:], run["document"][:]
        assert (counts[token] > 0).all()
        bins = np.array([designs.parse(index.id_of(int(n))).bin for n in document])
        held = [counts[token[bins == number]] for number in np.unique(bins)]
        assert len(held) > 2
        for rare, frequent in itertools.pairwise(held):
            assert rare.max() < frequent.min()
        assert run.spec["corpus"]["skipped"]["frequency bin is empty"] % 200 == 0
    (out / "tokens" / "tokens.bin").unlink()
    layout.shard_path(out, 0).unlink()
    ran("repair", out, "--model", tiny, "--limit", 1000, "--set", f"corpus.counts={plain}")
    assert tree(out) == tree(again)


def test_counts_that_are_missing_unused_or_of_another_vocabulary_are_refused(
    plain, tiny, texts, tmp_path, capsys
):
    for corpus in (texts, designs.CURATED):
        unused = (*flags_of(tiny, corpus, tmp_path / "out"), "--set", f"corpus.counts={plain}")
        assert "no frequency bins" in refused(capsys, 2, *unused)
    command = (*flags_of(tiny, designs.PLASMA, tmp_path / "out"), "--set")
    assert "nowhere" in refused(capsys, 66, *command, f"corpus.counts={tmp_path / 'nowhere'}")
    other = shutil.copytree(tiny, tmp_path / "other")
    path = pathlib.Path(other / "tokenizer.json")
    path.write_text(path.read_text().replace("<|endoftext|>", "<|end|>"))
    text = tmp_path / "a.txt"
    text.write_text("words")
    ran("tokenize", "--model", other, "--corpus", text, "--out", tmp_path / "counted")
    said = refused(capsys, 2, *command, f"corpus.counts={tmp_path / 'counted'}")
    assert "another vocabulary" in said


@pytest.mark.parametrize(
    ("corpora", "said"),
    [
        (("twins:foo",), "did you mean twins:"),
        (("twins:plasma", "{texts}"), "a run of its own"),
    ],
)
def test_names_that_are_unknown_or_mixed_are_refused(tiny, texts, tmp_path, capsys, corpora, said):
    named = [name.format(texts=texts) for name in corpora]
    command = ("run", "--model", tiny, "--corpus", *named, "--out", tmp_path / "out")
    assert said in refused(capsys, 2, *command)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["plan.length=31", "corpus.bos=start"])
def test_lags_that_no_sequence_holds_leave_an_empty_corpus(tiny, tmp_path, capsys, setting):
    command = flags_of(tiny, designs.REPEATS, tmp_path / "out")
    said = refused(capsys, 65, *command, "--set", setting)
    assert "4800 longer than a sequence" in said


@pytest.mark.long
def test_a_made_corpus_can_be_shuffled_read_untrained_and_estimated(tiny, tmp_path, made):
    out = tmp_path / "out"
    command = flags_of(tiny, designs.REPEATS, out)
    ran(*command, "--null", "shuffled", "--dry-run")
    ran(*command, "--null", "shuffled")
    with jaxlens.open_run(out) as mixed, jaxlens.open_run(made / "repeats") as whole:
        assert sorted(mixed["token"][:32]) == sorted(whole["token"][:32])
        assert mixed["token"][:32].tolist() != whole["token"][:32].tolist()
        assert np.array_equal(mixed["document"][:], whole["document"][:])
    ran(*flags_of(tiny, designs.PLASMA, tmp_path / "fresh"), "--null", "random-init")
    assert verify.verify(tmp_path / "fresh").ok
