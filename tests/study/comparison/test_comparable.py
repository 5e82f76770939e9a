"""Runs that do not belong together, or are no nulls of each other, are refused by name."""

import json

import pytest
from random_model import random_params
from sweeps import PACKAGED, TEMPERATURES, TINY, configure, refused

import jaxlens
from jaxlens import config, models
from jaxlens.models.checkpoints import checkpoint
from jaxlens.store import commit, records, run_directory
from jaxlens.store.hdf5 import images
from jaxlens.sweep import run as sweep

REFUSALS = {
    "no-null": ("trained", "trained-2", "is not a null run"),
    "same": ("trained", "trained", "same run"),
    "not-first": ("random-1", "random-2", "itself a random-init run"),
    "decoder": ("trained", "plain", "another decoder"),
    "text": ("trained", "shorter", "n_tokens differs"),
    "length": ("trained", "length", "another context length"),
    "model": ("trained", "headed", "another n_head"),
}


FRESH = {"null": "random-init", "seed": 1}


@pytest.fixture(scope="module")
def others(tiny, texts, swept, studied, decoded, tmp_path_factory):
    """Null runs that are no nulls of the trained one; none of them needs a step of its own."""
    folder = tmp_path_factory.mktemp("others")
    for name in ("trained", "random-1", "random-2"):
        (folder / name).symlink_to(studied / name)
    (folder / "trained-2").symlink_to(swept)
    (folder / "plain").symlink_to(decoded / "random-1")
    # They are refused before their tallies are looked for.
    sweep.run(configure(tiny, texts, folder / "shorter", **FRESH, **{"corpus.limit": 500}))
    renamed(studied / "random-1", folder / "length", "plan", length=16)
    headed = json.loads((studied / "random-1" / "RUN.json").read_bytes())["model"]["architecture"]
    headed |= {"n_head": 2 * headed["n_head"]}
    renamed(studied / "random-1", folder / "headed", "model", architecture=headed)
    return folder


def renamed(of, out, section, **change):
    """A finished run with the tallies of another one, whose spec says something else."""
    document = json.loads((of / "RUN.json").read_bytes())
    document[section] |= change
    document["plan"]["n_shards"] = 1
    spec = run_directory.create_run(out, config.canonical(document))
    with jaxlens.open_run(of) as run:
        tokens = document["corpus"]["sha256"]
        where = records.ShardRange(
            spec_hash=spec.hash,
            shard=0,
            token_start=0,
            token_stop=run.n_tokens,
            tokens_sha256=tokens,
        )
        data = images.shard_image(where, {}, dict(run.tally), run.layer_names)
    commit.publish_shard(out, where, data, 0)


@pytest.mark.parametrize("case", REFUSALS)
def test_runs_that_do_not_belong_together_are_refused_by_name(others, case, capsys):
    first, null, why = REFUSALS[case]
    told = refused(capsys, 2, "study", others / first, "--null", others / null)
    assert why in told


@pytest.mark.long
@pytest.mark.parametrize("case", ["length", "model"])
def test_swept_runs_of_another_shape_are_refused_as_renamed_ones_are(
    tiny, texts, studied, tmp_path, case, capsys
):
    larger = made_model(tmp_path / "large", TINY | {"n_layer": 3}, 0)
    model, how = {"length": (tiny, {"plan.length": 16}), "model": (larger, {})}[case]
    how = FRESH | how | {"store.rows": "none"}
    sweep.run(configure(model, texts, tmp_path / "null", **how))
    told = refused(capsys, 2, "study", studied / "trained", "--null", tmp_path / "null")
    assert {"length": REFUSALS["length"][2], "model": "another n_layer"}[case] in told


def made_model(folder, sizes, seed):
    """A random model with the packaged tokenizer."""
    parsed, params = models.parse(sizes), random_params(sizes, seed)
    checkpoint.save(folder, parsed, params, "safetensors", tokenizer_from=PACKAGED)
    return folder


def test_a_run_of_other_weights_is_no_shuffled_null(texts, studied, tmp_path, capsys):
    model = made_model(tmp_path / "other", TINY, 1)
    how = {"null": "shuffled", "seed": 1, "lens.temperatures": TEMPERATURES}
    sweep.run(configure(model, texts, tmp_path / "null", **how))
    told = refused(capsys, 2, "study", studied / "trained", "--null", tmp_path / "null")
    assert "another model" in told
