"""The study through the real command line: runs, nulls, table, verdicts, refusals."""

import csv
import dataclasses
import json
import math

import numpy as np
import pandas
import pytest
from study import signs
from sweeps import STUDY, configure, flags, refused, run_cli

import jaxlens
from jaxlens.export import text as escaping
from jaxlens.study import (
    curves,
    demeaned,
    inputs,
    sampled,
    sentences,
    study,
    table,
    verdicts,
)
from jaxlens.study.questions import (
    ablation,
    copy_pairs,
    copying,
    dilution,
    discarding,
    induction,
    probing,
)
from jaxlens.study.report import discarding as discarding_figures
from jaxlens.study.report import series
from jaxlens.study.stats import bootstrap, shape
from jaxlens.sweep import run as sweep
from jaxlens.tally import axes, definitions
from jaxlens.tally import bins as binning
from jaxlens.view.figures import svg


@pytest.fixture(scope="module")
def found(studied):
    nulls = [studied / name for name in ("random-1", "random-2", "shuffled")]
    return study.study(studied / "trained", nulls)


def test_the_command_writes_one_table_in_three_formats(studied, tmp_path, capsys):
    nulls = ("--null", studied / "random-1", studied / "random-2", "--null", studied / "shuffled")
    assert run_cli("study", studied / "trained", *nulls, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    for question in ("Q0.", "Q1.", "Q2.", "Q3."):
        assert question in printed
    document = json.loads((tmp_path / "out" / "results.json").read_bytes())
    with (tmp_path / "out" / "results.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    frame = pandas.read_parquet(tmp_path / "out" / "results.parquet")
    names = [field.name for field in dataclasses.fields(table.Result)]
    assert list(frame.columns) == names == list(lines[0]) == list(document["results"][0])
    assert len(frame) == len(lines) == len(document["results"]) > 300
    for ours, line, theirs in zip(
        document["results"], lines, frame.to_dict("records"), strict=True
    ):
        assert ours["estimator"] == line["estimator"] == theirs["estimator"]
        known = ours["estimate"] is not None
        assert known == (line["estimate"] != "") == (not math.isnan(theirs["estimate"]))
        if known:
            assert float(line["estimate"]) == theirs["estimate"] == ours["estimate"]
    assert [null["label"] for null in document["nulls"]] == [
        "random-init (seed 1)",
        "random-init (seed 2)",
        "shuffled (seed 1)",
    ]
    assert set(document["verdicts"]) == {"Q0", "Q1", "Q2", "Q3"}


def test_the_same_study_gives_the_same_bytes(studied, tmp_path):
    for name in ("one", "two"):
        assert run_cli("study", studied / "trained", "--out", tmp_path / name) == 0
    for name in ("results.csv", "results.json", "results.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_there_are_five_primaries_adjusted_by_holm(found):
    primaries = [line for line in found.results if line.primary]
    assert sorted(line.question for line in primaries) == ["Q1", "Q2", "Q2", "Q3", "Q3"]
    assert all(line.run == "trained" for line in primaries)
    for line in primaries:
        assert math.isnan(line.p) or line.p <= line.p_adjusted <= 5 * line.p + 1e-12


def test_primaries_of_a_run_without_probe_and_ablation_say_how_to_make_them(found):
    missing = [line for line in found.results if line.primary and math.isnan(line.estimate)]
    notes = {line.estimator: line.note for line in missing}
    assert "jaxlens probe" in notes[probing.PRIMARY]
    assert all("jaxlens ablate" in notes[name] for name in ablation.PRIMARIES)
    assert all(line.judgement == "not estimable" for line in missing)


def test_every_line_of_every_run_is_named_and_has_a_unit(found):
    assert {line.run for line in found.results} == {
        "trained",
        "random-init (seed 1)",
        "random-init (seed 2)",
        "shuffled (seed 1)",
    }
    for line in found.results:
        assert line.unit and line.meaning and line.stratum
        assert (line.layer is None) == math.isnan(line.depth)
        # Without an interval there is a reason.
        assert line.note or not math.isnan(line.low) or line.estimate in (0.0, 1.0), line
        if not (math.isnan(line.low) or math.isnan(line.estimate)):
            assert line.low <= line.estimate + 1e-12 and line.estimate <= line.high + 1e-12, line


def test_the_jump_is_that_of_the_mean_curve_of_all_tokens(studied, found):
    with jaxlens.open_run(studied / "trained") as run:
        line = run.tally_labels["measure"].index("kl_final")
        total, count = (run.tally[f"group_{kind}"][line].sum(0) for kind in ("sum", "count"))
    mean = total / 2.0**16 / count
    steps = np.abs(np.diff(mean))
    shown = sentences.find(found.results, "jump_share_kl_final")
    assert shown is not None
    assert shown.estimate == pytest.approx(steps[0] / steps.sum(), rel=1e-12)
    assert shown.n == count[0]
    falling = sentences.find(found.results, "monotone_share_kl_final")
    assert falling is not None and falling.estimate == (np.diff(mean) <= 0).mean()
    assert math.isnan(falling.low) and math.isnan(falling.high)  # it moves by whole steps


def test_the_contrast_is_the_difference_from_the_mean_of_the_seeds(found):
    by_run = {
        line.run: line.estimate
        for line in found.results
        if line.estimator == "jump_share_kl_final_matched" and not line.null
    }
    seeds = [by_run[f"random-init (seed {seed})"] for seed in (1, 2)]
    (primary,) = (
        line
        for line in found.results
        if line.estimator == "jump_share_kl_final_matched" and line.null == "random-init x 2"
    )
    assert primary.estimate == pytest.approx(by_run["trained"] - np.mean(seeds), abs=1e-12)


def test_divergences_of_jensen_and_shannon_are_studied_where_they_are_recorded(found):
    lines = [line for line in found.results if line.estimator == "jump_share_js_final"]
    alone = [line for line in lines if not line.null]
    assert [line.run for line in alone] == [found.run.label, *(n.label for n in found.nulls)]
    assert 0 < alone[0].low < alone[0].estimate < alone[0].high < 1
    contrasts = [line.null for line in lines if line.null]
    assert contrasts == ["random-init x 2", "shuffled x 1"]
    # A null that did not record them has no part in what is said of them, nor of its kind.
    (lacking,) = (null for null in found.nulls if null.kind == "shuffled")
    counts = lacking.tallies["group_count"].copy()
    counts[axes.MEASURES.index("js_final")] = 0
    lacking = dataclasses.replace(lacking, tallies=lacking.tallies | {"group_count": counts})
    again = discarding.contrasts(found.run, [*found.nulls[:2], lacking])
    assert [r.null for r in again if r.estimator == "jump_share_js_final"] == ["random-init x 2"]


def test_a_run_without_nulls_has_the_contrast_and_says_what_is_missing(studied):
    alone = study.study(studied / "trained")
    (primary,) = (line for line in alone.results if line.null == inputs.RANDOM_INIT)
    assert primary.judgement == "not estimable" and "--null" in primary.note
    assert "--null" in alone.verdicts["Q1"]


def test_few_documents_are_reported_as_such_and_not_as_zeros(tiny, tmp_path):
    path = tmp_path / "few.jsonl"
    words = " ".join(str(number) for number in range(200))
    path.write_text("".join(json.dumps({"text": f"{i} {words}"}) + "\n" for i in range(4)))
    sweep.run(configure(tiny, path, tmp_path / "run", **STUDY))
    few = study.study(tmp_path / "run")
    line = sentences.find(few.results, "mean_entropy", layer=0)
    assert line is not None and math.isfinite(line.estimate)
    assert math.isnan(line.low) and line.note == "too few clusters"
    assert "too few clusters" in few.verdicts["Q0"]


def test_bins_with_few_tokens_are_lines_without_a_number(found):
    bins = [
        line
        for line in found.results
        if line.estimator == "excess_preservation" and line.run == "trained"
    ]
    assert len(bins) == binning.FREQUENCY_BINS
    few = [line for line in bins if line.n < 50]
    assert few and all(math.isnan(line.estimate) for line in few)
    assert all(line.note == "fewer than 50 tokens" for line in few)


def test_a_null_run_is_not_studied_alone(studied, capsys):
    told = refused(capsys, 2, "study", studied / "shuffled")
    assert "itself a shuffled run" in told and "--null" in told


def test_a_run_without_rows_says_which_option_records_them(tiny, texts, tmp_path, capsys):
    out = tmp_path / "core"
    command = flags(tiny, texts, out)
    assert run_cli(*command, "--rows", "core") == 0
    told = refused(capsys, 2, "study", out)
    assert "--rows full" in told and "--tallies study" in told
    told = refused(capsys, 66, "study", tmp_path / "nothing")
    assert "nothing" in told


def test_a_damaged_shard_is_named(studied, tmp_path, capsys):
    import shutil

    shutil.copytree(studied / "trained", tmp_path / "run")
    (tmp_path / "run" / "summary.h5").unlink()
    shard = tmp_path / "run" / "shards" / "part-00001.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert "part-00001" in refused(capsys, 65, "study", tmp_path / "run")


def test_retrieval_depth_counts_only_what_stays():
    ranks = np.array([[9, 5, 50, 3, 1], [99, 50, 10, 11, 40], [1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(copying.retrieval_depth(ranks, 10), [0.75, 1.25, 0.0])


def test_dilution_gives_the_rank_of_chance_and_of_the_token_itself():
    ranks = dilution.median_rank(np.array([0.0, 1.0]), 768, 50_257)
    np.testing.assert_allclose(ranks, [1 + 50_256 / 2, 1.0])
    # Simulation: embedding and orthogonal noise, ranked among isotropic embeddings.
    random = np.random.default_rng(0)
    embed, vocab, cosine = 64, 4_000, 0.2
    table_ = random.normal(0, 1, (vocab, embed))
    table_ *= np.sqrt(embed) / np.linalg.norm(table_, axis=1, keepdims=True)
    found = []
    for token in range(300):
        own = table_[token] / np.sqrt(embed)
        noise = random.normal(0, 1, embed)
        noise -= (noise @ own) * own
        state = cosine * own + np.sqrt(1 - cosine**2) * noise / np.linalg.norm(noise)
        logits = table_ @ state
        found.append(1 + np.count_nonzero(logits > logits[token]))
    expected = dilution.median_rank(np.array(cosine), embed, vocab)
    # The median of 300 ranks, and a law that takes a sphere for a normal distribution.
    assert np.median(found) == pytest.approx(float(expected), rel=0.15)


def test_matches_of_copies_obey_strata_and_calipers(found, studied):
    of = inputs.load(studied / "trained")
    copies = sampled.Lines.of(of.tallies["copies"], of.n_layers)
    others = sampled.Lines.of(of.tallies["controls"], of.n_layers)
    assert (others["copy_token"] != others["next_token"]).all()
    matches = copy_pairs.match(copies, others)
    assert len(matches.copy) > 20
    for place, controls in zip(matches.copy, matches.control, strict=True):
        for control in controls[controls >= 0]:
            assert copies["piece"][place] == others["piece"][control]
            for name in ("logp_next_last", "entropy_last"):
                apart = abs(copies[name][place] - others[name][control]) / binning.ONE
                assert apart <= 0.25 + 1e-9


def test_copies_repeat_two_tokens_and_controls_stood_before(studied):
    of = inputs.load(studied / "trained")
    every = sampled.Lines.of(of.tallies["copies"], of.n_layers)
    pairs = copy_pairs.matched_pairs(of)
    assert (pairs.copies["match_length"] >= 2).all() and (pairs.others["prev_count"] > 0).all()
    assert len(pairs.copies) + pairs.short == len(every) and pairs.short > 0
    assert f"{pairs.short} more, with a suffix of one token" in pairs.note


def test_a_bin_of_rarity_needs_matches_and_types_to_have_a_number(studied, monkeypatch):
    of = inputs.load(studied / "trained")
    monkeypatch.setattr(copying, "MIN_MATCHES", 3)
    pairs = copy_pairs.matched_pairs(of)
    copied = pairs.copies["next_token"][pairs.matches.copy]
    rarity = pairs.copies["rarity_next"][pairs.matches.copy] / binning.ONE
    numbered = set()
    for line in copying.estimate(of):
        if line.estimator != "retrieval_depth_adjusted_10" or line.stratum == "all":
            continue
        low = float(line.stratum.split()[1])
        mine = (rarity >= low) & ((rarity < low + 1) | ("or more" in line.stratum))
        types = len(np.unique(copied[mine]))
        assert math.isfinite(line.estimate) == (mine.sum() >= 3 and types >= 20), line
        assert math.isfinite(line.estimate) or line.note.startswith("fewer than")
        numbered.add(math.isfinite(line.estimate))
    assert False in numbered


def test_means_of_copies_and_controls_add_up_to_the_matched_difference(found):
    for rank in (1, 5, 10):
        name = f"mean_retrieval_depth_{rank}"
        means = [
            sentences.find(found.results, name, stratum=side) for side in ("copies", "controls")
        ]
        difference = sentences.find(found.results, f"retrieval_depth_{rank}")
        assert difference.estimate == pytest.approx(means[0].estimate - means[1].estimate)


def test_a_covariate_that_matching_left_apart_is_named(found):
    for line in (r for r in found.results if r.estimator.startswith("balance_")):
        assert math.isnan(line.low) and line.stratum in ("sampled", "matched")
        if line.stratum == "matched" and line.run == "trained":
            name = line.estimator.removeprefix("balance_")
            note = sentences.find(found.results, "retrieval_depth_adjusted_10").note
            assert (f"{name} {line.estimate:+.2f}" in note) == (abs(line.estimate) > 0.1)


def test_the_mean_of_a_layer_is_that_of_the_basic_tallies(studied, found):
    """All positions but the first of each context: the basic tallies count those too."""
    with jaxlens.open_run(studied / "trained") as run:
        labels = run.tally_labels["quantity"].index("kl_final")
        basic = run.tally["count"][labels]
    line = sentences.find(found.results, "mean_kl_final", layer=1)
    assert line is not None and 0 < line.n < basic[1]


def test_a_difference_with_itself_is_zero_in_every_replica(studied):
    of = inputs.load(studied / "random-1")
    mine = of.measured("kl_final")
    same = curves.difference(*mine, [mine], shape.jump_share)
    assert (same.value, same.se) == (0.0, 0.0)


@pytest.fixture(scope="module")
def repeats(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins")
    how = {"store.rows": "core", "corpus.limit": 6_400, "plan.length": 32}
    for name, null in (("trained", {}), ("random", {"null": "random-init", "seed": 3})):
        sweep.run(configure(tiny, "twins:repeats", folder / name, **how, **null))
    return folder


def test_planted_copies_are_paired_with_the_same_token_one_block_before(repeats):
    with jaxlens.open_run(repeats / "trained") as run:
        pairs = induction.load(run)
        ids = run.corpus.tokens()
        ranks = run["rank_next"][:]
        documents = run.corpus.documents
    assert set(np.unique(pairs.lag)) == {16} and len(np.unique(pairs.bin)) == 8
    # Of each whole sequence, all but the first token of the second block.
    whole = np.diff(documents.start) == 32
    assert len(pairs.copy) == 15 * whole.sum()
    first = int(documents.start[np.flatnonzero(whole)[0]])
    np.testing.assert_array_equal(pairs.copy[0], ranks[first + 16])
    np.testing.assert_array_equal(pairs.control[0], ranks[first])
    assert ids[first + 17] == ids[first + 1]


def test_twins_are_studied_by_cell_with_their_null_beside_them(repeats, capsys):
    assert run_cli("study", repeats / "trained", "--null", repeats / "random") == 0
    printed = capsys.readouterr().out
    assert "planted copies" in printed and "No untrained model" not in printed
    assert run_cli("study", repeats / "trained") == 0
    assert "No untrained model" in capsys.readouterr().out
    assert run_cli("study", repeats / "trained", "--null", repeats / "random") == 0
    document = json.loads((repeats / "trained" / "study" / "results.json").read_bytes())
    cells = {r["stratum"] for r in document["results"] if r["estimator"] == "twins_gain"}
    assert cells == {"all", *(f"frequency bin {b}, lag 16" for b in range(8))}
    assert {r["run"] for r in document["results"]} == {"trained", "random-init (seed 3)"}
    # Weights that were never trained copy nothing.
    (fresh,) = (
        r
        for r in document["results"]
        if (r["estimator"], r["stratum"]) == ("twins_gain", "all") and r["run"] != "trained"
    )
    assert fresh["low"] < 0.2 and fresh["high"] > -0.2


def test_a_text_is_no_null_of_twins(repeats, studied, capsys):
    told = refused(capsys, 2, "study", repeats / "trained", "--null", studied / "random-1")
    assert "twins:repeats" in told or "context length" in told


def test_nouns_are_paired_with_their_first_place(tiny, tmp_path):
    how = {"store.rows": "core", "plan.length": 32}
    sweep.run(configure(tiny, "twins:plasma", tmp_path / "run", **how))
    with jaxlens.open_run(tmp_path / "run") as run:
        pairs = induction.load(run)
        strings, ids = run.corpus.token_strings, run.corpus.tokens()
        documents = run.corpus.documents
        assert len(pairs.copy) == len(documents) - 1 > 40  # the post's plasma is three tokens
        number = int(pairs.sequence[0])
        noun = documents.id[number].decode().rpartition("/")[2]
        start, stop = documents.start[number : number + 2]
        at = np.flatnonzero(strings[ids[start:stop]] == f" {noun}".encode())
        before = run["rank_next"][int(start + at[1] - 1)]
        np.testing.assert_array_equal(pairs.copy[0], before)
    found = study.study(tmp_path / "run")
    assert sentences.find(found.results, "twins_gain") is not None
    assert "Q3" in found.verdicts


def test_a_missing_number_is_spelled_with_its_reason():
    of = inputs.RunInfo(None, "trained", "trained", {}, ("input", "h.0"))  # type: ignore[arg-type]
    line = table.result(of, "aupc", bootstrap.missing("no reason"))
    assert verdicts.format_number(line) == "not estimable (no reason)"
    assert verdicts.format_number(None) == "not estimable"
    assert discarding.NO_NULL.startswith("no random-init null")


SHORT = {
    "one token": ["a"],
    "documents of one token": ["a", "b", "a"],
    "two tokens": ["the dog"],
    "one document, and one fold": [" ".join(["the", "dog", "runs"] * 30)],
    "one token again and again": ["the the the the the the the the"],
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.long] * (kind != "one token")) for kind in SHORT],
)
def test_the_least_text_is_studied_and_reported_with_its_reasons(
    tiny, kind, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "short.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in SHORT[kind]))
    out = tmp_path / "run"
    sweep.run(configure(tiny, path, out, **STUDY))
    assert run_cli("study", out) == 0
    printed = capsys.readouterr().out
    assert "nan" not in printed.partition("Q0.")[2].lower(), printed
    document = json.loads((out / "study" / "results.json").read_bytes())
    primaries = [line for line in document["results"] if line["primary"]]
    assert len(primaries) == 5
    assert all(line["judgement"] for line in primaries)
    assert all(line["note"] for line in document["results"] if line["estimate"] is None)
    monkeypatch.setattr(svg, "svg", lambda plot: "<svg/>")
    assert run_cli("report", out) == 0
    if kind == "one token":
        page = (out / "report.html").read_text()
        assert "Nothing to draw: no data." in page and "needs norm" not in page


@pytest.mark.parametrize("corpus", ["twins:repeats", "twins:plasma"])
def test_a_design_cut_to_one_token_is_studied(tiny, corpus, tmp_path, capsys):
    how = {"store.rows": "core", "plan.length": 32, "corpus.limit": 1}
    sweep.run(configure(tiny, corpus, tmp_path / "run", **how))
    assert run_cli("study", tmp_path / "run") == 0
    assert "No planted copy was found: no data." in capsys.readouterr().out


def test_a_model_of_one_block_has_no_interior_and_is_studied():
    of = signs.made(0, 0.35, inputs.TRAINED, "trained")
    # Its tallies are those of two layers: the input and the last.
    kept = {t.name: t for t in definitions.STUDY}
    spec = {
        **signs.SPEC,
        "model": {"architecture": {"vocab_size": 400, "n_embd": 16, "n_layer": 1}},
    }
    empty = {n: definitions.empty(n, definitions.shape(t, 2, 400)) for n, t in kept.items()}
    one = dataclasses.replace(
        of, spec=spec, layer_names=("input", "h.0"), tallies=empty, within=demeaned.empty(2)
    )
    lines = study._of_one(one)
    (area,) = (line for line in lines if line.estimator == "aupc")
    assert math.isnan(area.estimate) and "no layer lies between" in area.note


def test_text_in_the_table_is_no_formula_and_numbers_stay_numbers(found, tmp_path):
    evil = [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1+2",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\u202e=1",
        "plain, text",
    ]
    lines = [
        dataclasses.replace(found.results[0], stratum=text, note=text, estimate=-0.5)
        for text in evil
    ]
    table.write(lines, tmp_path, {})
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for text, row in zip(evil, rows, strict=True):
        assert row["stratum"][:1] not in "=+-@\t\r"
        assert escaping.unescape(row["stratum"]).decode() == text
        assert escaping.unescape(row["note"]).decode() == text
        assert float(row["estimate"]) == -0.5 and row["estimate"] == "-0.5"
    assert rows[-1]["stratum"] == "plain, text"
    kept = pandas.read_parquet(tmp_path / "results.parquet")
    assert kept["stratum"].tolist() == evil


def test_a_quantile_beyond_the_last_bin_is_not_given_as_its_edge(studied):
    of = inputs.load(studied / "trained")
    histogram = of.tallies["divergence_histogram"].copy()
    line = axes.DIVERGENCES.index("kl_final")
    counted = histogram[line].sum(-1)
    histogram[line], histogram[line, ..., -1] = 0, counted
    beyond = dataclasses.replace(of, tallies=of.tallies | {"divergence_histogram": histogram})
    for one in curves.quartiles(beyond, "kl_final"):
        assert math.isnan(one.estimate)
        assert one.note == "beyond 72.9 nats, the last bin"
    assert all(np.isfinite(one.estimate) for one in curves.quartiles(of, "kl_final"))


def test_a_head_that_is_not_the_embedding_has_no_law_of_dilution(studied):
    run = inputs.load(studied / "trained")
    model = run.spec["model"]
    untied = {**model, "architecture": {**model["architecture"], "tie_word_embeddings": False}}
    lines = dilution.estimate(dataclasses.replace(run, spec={**run.spec, "model": untied}))
    tied = dilution.estimate(run)
    assert [line.estimator for line in lines] == [line.estimator for line in tied]
    for line, other in zip(lines, tied, strict=True):
        has_law = line.estimator in ("dilution_rank", "retained_rank")
        assert math.isnan(line.estimate) == has_law and not math.isnan(other.estimate)
        assert (line.note == dilution.UNTIED) == has_law
    (told,) = verdicts._dilution(lines, run)
    assert "the head of this model is not its embedding, so no rank follows from the norm." in told


def test_a_figure_has_no_curve_of_a_law_that_does_not_hold(found):
    figures = {}
    for tied in (True, False):
        model = found.run.spec["model"]
        model = {**model, "architecture": {**model["architecture"], "tie_word_embeddings": tied}}
        run = dataclasses.replace(found.run, spec={**found.run.spec, "model": model})
        source = series.Source(dataclasses.replace(found, run=run))
        figures[tied] = discarding_figures._fate(source)
    assert [len(figures[tied].panels[0].curves) for tied in (True, False)] == [3, 1]
    assert dilution.UNTIED in figures[False].caption and "alone" in figures[True].caption
