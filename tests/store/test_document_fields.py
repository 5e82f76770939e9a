"""Fields of documents that a run keeps: from the reader to the file, and from there to everyone."""

import hashlib
import json
import math
import pydoc_data.topics
import random
import shutil

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sweeps import configure, digest, refused, run_cli

import jaxlens
from jaxlens import config, errors, schema
from jaxlens.corpus import token_folder
from jaxlens.corpus.readers import documents, skip_log
from jaxlens.store import document_fields, layout, reader, verify
from jaxlens.study import fold, strata, study
from jaxlens.sweep import repair
from jaxlens.sweep import run as sweep
from jaxlens.tally import definitions

# Of the run that `swept` makes, by the code before documents had fields: the hash of its spec, but
# for that of the index, which depends on the version of HDF5, and the fingerprint of its corpus.
BEFORE = {
    "spec": "bbe00a94f5a9cef8ec1bd15781a3ab14cba54f430c26d677151533e7434337ee",
    "fingerprint": "1c9760bcd3f577ab440321cd81e92c8d4d7a046dcd6f45212b8ce489399a32d4",
}

KEEP = ("label", "year", "score", "ok", "gone")


def build(rows, names=KEEP):
    builder = document_fields.Builder(names)
    for row in rows:
        builder.add(row)
    return builder


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40).filter(lambda text: "\0" not in text and text.isprintable()),
)


@hypothesis.given(st.lists(st.tuples(values, values), max_size=20))
def test_what_is_stored_comes_back_with_its_kind(rows):
    made = build(rows, ("a", "b")).finish()
    found = document_fields.Metadata.from_arrays(made.to_arrays(), len(rows))
    for place, name in enumerate(("a", "b")):
        column = found.column(name).tolist()
        assert [(type(v), v) for v in column] == [(type(r[place]), r[place]) for r in rows]


def test_equal_values_of_other_kinds_stay_apart():
    found = build([(True,), (1,), (1.0,), ("1",), ("True",), (None,)], ("a",)).finish()
    assert [repr(v) for v in found.column("a")] == ["True", "1", "1.0", "'1'", "'True'", "None"]


def test_long_strings_are_cut_and_counted_and_stay_different():
    long = "x" * 300
    builder = build([(long,), (long + "y",), ("é" * 100,), ("a\0b",), ([1],), (math.nan,)], ("a",))
    one, two, whole, nul, *rest = builder.finish().column("a")
    assert one != two and one.startswith("xxx") and len(one.encode()) == schema.STRING_BYTES
    assert (whole, nul, rest) == ("é" * 100, "a\ufffdb", [None, None])
    assert builder.counts == {"a": {"cut": 2, "other": 2, "missing": 0}}
    (huge,) = build([(10**400,)], ("a",)).finish().column("a")
    assert isinstance(huge, str) and len(huge) == schema.STRING_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"kept_code": np.zeros((3, 5), np.int32)},
        {"kept_code": np.full((2, 5), 9, np.int32)},
        {"kept_code": np.full((2, 5), -2, np.int32)},
        {"kept_code": np.zeros((2, 5))},
        {"kept_start": np.array([0, 9, 9, 9, 9, 99])},
        {"kept_start": np.array([0, 1])},
        {"kept_value": np.array([b"?x"] * 4)},
        {"kept_value": np.array([b"bMaybe"] * 4)},
        {"kept_value": np.array([b"fnan"] * 4)},
    ],
)
def test_forged_arrays_are_refused(change):
    arrays = build([("a", 1, 1.5, True), ("b", None, 2.5, False)]).finish().to_arrays()
    with pytest.raises((ValueError, KeyError)):
        document_fields.Metadata.from_arrays(arrays | change, 2)


def _lines():
    kinds = ["news"] * 30 + ["fiction"] * 20 + ["rare"] * 4 + [None] * 4
    words = " ".join(pydoc_data.topics.topics["assert"].split()).split(" ")
    drawn = random.Random(0)
    lines = [{"text": " ".join(drawn.choices(words, k=20 + 15 * (n % 4)))} for n in range(58)]
    for number, (line, label) in enumerate(zip(lines, kinds, strict=True)):
        line |= {"year": 1900 + number % 7, "score": number / 4, "ok": number % 2 == 0}
        line |= {} if label is None else {"label": label}
        line |= {"label": ["a list"]} if number == 57 else {}
    return lines


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def corpus(request, tmp_path_factory):
    """The same documents as JSON lines and as Parquet, and their fields."""
    folder, lines = tmp_path_factory.mktemp("kept"), _lines()
    if request.param == "jsonl":
        path = folder / "t.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        path = folder / "t.parquet"
        columns = {key: [line.get(key) for line in lines] for key in lines[0]}
        columns["label"] = expected("label")
        pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def expected(name):
    found = [line.get(name) for line in _lines()]
    return [None if isinstance(value, list) else value for value in found]


def test_readers_give_the_fields_of_each_document(corpus):
    found = list(documents.read([corpus], keep=("score", "label", "text")))
    assert [one.kept[0] for one in found] == expected("score")
    assert [one.kept[2] for one in found] == [one.text for one in found]
    assert all(one.kept == () for one in documents.read([corpus]))


def test_a_field_that_stands_twice_in_an_object_is_ambiguous(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a b", "label": 1, "label": 2}\n{"text": "c", "x": 1, "x": 2}\n')
    log = skip_log.SkipLog()
    assert len(list(documents.read([path], keep=("label",), skips=log))) == 1
    assert log.counts == {"duplicate key": 1}


@pytest.fixture(scope="module")
def kept(tiny, tmp_path_factory):
    """A finished run that keeps fields; who changes it copies it first."""
    folder = tmp_path_factory.mktemp("kept-run")
    path = folder / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, _lines())))
    sweep.run(configure(tiny, path, folder / "run", **{"corpus.keep": list(KEEP)}))
    return folder / "run"


def test_data_frames_of_rows_have_the_fields(kept):
    with jaxlens.open_run(kept) as run:
        frame = run.to_pandas(["entropy", "document.label"], start=3, stop=40, layers=["h.0", -1])
        document = run.corpus.documents.of(frame["row"].to_numpy())
        labels = run.documents()["document.label"][document]
        assert frame["document.label"].tolist() == labels.tolist() and len(frame) == 74
        assert "document.label" in run.to_pandas(stop=2).columns
        assert "document.label" in run.to_pandas(start=5, stop=5).columns


def test_batches_and_documents_have_the_fields(kept):
    with jaxlens.open_run(kept) as run:
        assert run.document_fields == tuple(f"document.{name}" for name in KEEP)
        table = run.documents()
        assert table["document.label"].tolist() == expected("label")
        assert table["document.gone"].tolist() == [None] * 58
        assert table["document_id"][3] == "t.jsonl:4" and table["n_tokens"].sum() == run.n_tokens
        seen = list(run.batches(["document", "document.label", "entropy"], rows=100))
        labels = np.concatenate([batch["document.label"] for batch in seen])
        mine = np.concatenate([batch["document"] for batch in seen])
        assert labels.tolist() == [expected("label")[number] for number in mine]
        assert "document.label" not in next(run.batches())
        with pytest.raises(errors.ConfigError, match="does not keep the field 'lable'"):
            run.batches(["document.lable"])


def test_what_is_not_kept_whole_is_counted_and_said(kept, tmp_path, tiny, caplog):
    told = json.loads((kept / "tokens" / "TOKENS.json").read_text())["kept"]
    assert told["label"] == {"cut": 0, "other": 1, "missing": 3}
    assert told["gone"] == {"cut": 0, "other": 0, "missing": 58}
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, _lines())))
    asked = ("tokenize", "--model", tiny, "--corpus", path, "--out", tmp_path / "out")
    assert run_cli(*asked, "--set", "corpus.keep=[label,gone]") == 0
    assert "tokens.bin" in {p.name for p in (tmp_path / "out" / "tokens").iterdir()}


@pytest.mark.parametrize("form", ["wide", "long"])
def test_exports_have_a_column_for_each_field(kept, tmp_path, form):
    target = tmp_path / "t.parquet"
    assert run_cli("export", kept, "--to", "parquet", "--layout", form, "--out", target) == 0
    table = pyarrow.parquet.read_table(target)
    kinds = {name: str(table.schema.field(f"document.{name}").type) for name in KEEP}
    wanted = {"label": "string", "year": "int64", "score": "double", "ok": "bool", "gone": "string"}
    assert kinds == wanted
    document = np.array(table.column("document"))
    for name in KEEP:
        column, values = table.column(f"document.{name}").to_pylist(), expected(name)
        assert column == [values[number] for number in document]
    csv = tmp_path / "t.csv"
    assert run_cli("export", kept, "--to", "csv", "--quantities", "entropy", "--out", csv) == 0
    heading = csv.read_text().splitlines()[0]
    assert heading.startswith('"row","document_id","token_string","document.label"')


def test_formulas_in_fields_and_in_their_names_are_no_formulas(tiny, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"text": "the quick fox", "a": "=1+1", "b": "\u202e"}))
    sweep.run(configure(tiny, path, tmp_path / "run", **{"corpus.keep": ["a", "b"]}))
    target = tmp_path / "t.csv"
    assert run_cli("export", tmp_path / "run", "--to", "csv", "--out", target) == 0
    text = target.read_text()
    assert '"\\x3d1+1"' in text and "\u202e" not in text


def test_a_run_without_kept_fields_has_the_spec_and_files_that_it_had(swept):
    """Against what the code before wrote: runs that it began go on, and are found finished."""
    spec = json.loads((swept / "RUN.json").read_text())
    spec["corpus"].pop("index_sha256")
    spec["format_version"] = 3  # of the code before
    assert hashlib.sha256(config.canonical(spec)).hexdigest() == BEFORE["spec"]
    told = json.loads((swept / "tokens" / "TOKENS.json").read_text())
    assert told["fingerprint"] == BEFORE["fingerprint"] and "kept" not in told
    found = token_folder.find(swept / "tokens", None)
    assert found is not None and set(found.index.to_arrays()) == {
        *("document_start", "document_hash", "document_id", "token_counts")
    }
    with reader.open_run(swept) as run:
        assert run.document_fields == () and not run.corpus.documents.kept.names


def test_verify_finds_a_flip_in_a_kept_field_and_repair_mends_it(kept, tiny, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(kept, out)
    before = digest(out)
    index = out / "tokens" / layout.TOKEN_INDEX
    raw = bytearray(index.read_bytes())
    raw[len(raw) // 2] ^= 1
    index.write_bytes(raw)
    assert [name for name, _ in verify.verify(out).damaged] == ["tokens/index.h5"]
    settings = configure(tiny, kept.parent / "t.jsonl", None)  # what is kept stands in the run
    assert not repair.repair(out, settings).left
    assert verify.verify(out).ok and digest(out) == before
    assert index.read_bytes() == (kept / "tokens" / layout.TOKEN_INDEX).read_bytes()


def test_a_run_resumes_with_its_fields_and_is_refused_with_others(kept, tiny, tmp_path):
    out, path = tmp_path / "run", kept.parent / "t.jsonl"
    shutil.copytree(kept, out)
    before = digest(out)
    (out / "shards" / "part-00000.h5").unlink()
    again = {"corpus.keep": list(KEEP)}
    assert sweep.run(configure(tiny, path, out, **again)).computed == 1 and digest(out) == before
    with pytest.raises(errors.ConfigError, match=r"corpus\.keep"):
        sweep.run(configure(tiny, path, out, **{"corpus.keep": ["label"]}))
    assert digest(out) == before and verify.verify(out).ok


def test_tokens_are_those_of_a_run_that_keeps_nothing(kept, tiny, tmp_path):
    sweep.run(configure(tiny, kept.parent / "t.jsonl", tmp_path / "bare"))
    bare, full = (layout.read_tokens(folder) for folder in (tmp_path / "bare", kept))
    assert bare.sha256 == full.sha256 and bare.index_sha256 != full.index_sha256


@pytest.mark.parametrize(
    ("keep", "paths", "why"),
    [
        (["a", "a"], ["x.jsonl"], "names 2 fields"),
        ([str(n) for n in range(17)], ["x.jsonl"], "names 17 fields"),
        ([""], ["x.jsonl"], "the field ''"),
        (["a"], ["twins:repeats"], "documents have no fields"),
    ],
)
def test_what_cannot_be_kept_is_refused(keep, paths, why):
    with pytest.raises(errors.ConfigError, match=why):
        config.load([], {}, {"corpus.keep": keep, "corpus.paths": paths})


# ---- strata of the study ---------------------------------------------------------------------


def test_primaries_by_stratum_are_those_of_its_documents(kept):
    found = study.study(kept, by="label")
    whole = [line for line in found.results if strata._is_reported(line)]
    assert sorted(line.estimator for line in whole) == sorted(strata.REPORTED)
    assert {line.stratum for line in found.strata} == {
        *("label = news", "label = fiction", "label = rare", "label = null")
    }
    assert len(found.strata) == 4 * len(whole) and not any(line.primary for line in found.strata)
    with reader.open_run(kept) as run:
        chosen = np.array(expected("label"), object) == "news"
        rows = int(np.diff(run.corpus.documents.start)[chosen].sum())
        parts = [fold.of_rows(run, mask) for mask in strata.masks(kept, "label").values()]
        total = fold.of_rows(run)
    news = [line for line in found.strata if line.stratum == "label = news"]
    assert 0 < max(line.n for line in news) <= rows
    for line in found.strata:
        if line.stratum in ("label = rare", "label = null"):
            assert math.isnan(line.estimate) and math.isnan(line.low)
            assert line.note == strata.TOO_FEW and line.judgement == "not estimable"
    assert {line.clusters for line in news if math.isfinite(line.low)} <= set(range(10, 31))
    assert any(math.isfinite(line.low) for line in news), "some are estimated"
    # The strata are parts of the whole: their totals add up to its.
    summed = [name for name in total if definitions.BY_NAME[name].merge == "sum"]
    assert len(summed) > 20  # the others are samples
    for name in summed:
        np.testing.assert_array_equal(sum(part[name] for part in parts), total[name], name)
    # The verdicts and primaries are those of the study without strata.
    alone = study.study(kept)
    assert alone.verdicts == found.verdicts
    again = (line for line in alone.results if strata._is_reported(line))
    for one, two in zip(whole, again, strict=True):
        assert (one.estimator, one.note, one.n) == (two.estimator, two.note, two.n)
        assert one.p_adjusted == pytest.approx(two.p_adjusted, nan_ok=True)


@pytest.mark.long
def test_a_stratum_of_all_documents_is_the_whole(kept, tiny, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(line | {"all": 1}) for line in _lines()))
    sweep.run(configure(tiny, path, tmp_path / "run", **{"corpus.keep": ["all"]}))
    found = study.study(tmp_path / "run", by="all")
    whole = [line for line in found.results if strata._is_reported(line)]
    pairs = (sorted(side, key=lambda line: line.estimator) for side in (whole, found.strata))
    for one, two in zip(*pairs, strict=True):
        assert one.estimator == two.estimator and two.stratum == "all = 1"
        for name in ("estimate", "low", "high", "se", "n", "clusters", "p"):
            assert getattr(one, name) == pytest.approx(getattr(two, name), nan_ok=True)


def test_the_study_prints_its_strata(kept, tmp_path, capsys):
    assert run_cli("study", kept, "--by", "label", "--out", tmp_path / "study") == 0
    out = capsys.readouterr().out
    assert "label = news" in out and "p (BH)" in out and "nan" not in out
    rows = pyarrow.parquet.read_table(tmp_path / "study" / "results.parquet").to_pylist()
    assert {row["stratum"] for row in rows} >= {"label = news", "label = null"}


def test_strata_that_cannot_be_made_are_refused(kept, swept, capsys):
    assert "keeps label, year" in refused(capsys, 2, "study", kept, "--by", "lable")
    assert "corpus.keep=[label]" in refused(capsys, 2, "study", swept, "--by", "label")
    assert "score has 58 values" in refused(capsys, 2, "study", kept, "--by", "score")


def test_id_bytes_and_string_bytes_agree():
    assert schema.STRING_BYTES == schema.ID_BYTES
