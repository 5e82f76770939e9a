import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store import example

from jaxlens import config, errors
from jaxlens.files import temporary
from jaxlens.store import layout, record_table, records, run_directory, shards, strict_json

ENTRY = records.Record(
    spec_hash="a" * 64,
    shard=3,
    token_start=0,
    token_stop=8,
    tokens_sha256="b" * 64,
    rows=8,
    size=100,
    sha256="c" * 64,
)


def test_names_are_those_of_the_layout(tmp_path):
    assert layout.shard_path(tmp_path, 17) == tmp_path / "shards" / "part-00017.h5"
    assert layout.sidecar_path(tmp_path, 123_456).name == "part-123456.json"
    assert [layout.part_number(n) for n in ("part-00017.h5", "part-123456.json")] == [17, 123_456]
    for name in ("part-017.h5", "part-000017.h5", "part-00017.h5.tmp", "../part-00017.h5", ""):
        assert layout.part_number(name) is None


def test_worker_names_are_plain_file_names(tmp_path):
    assert layout.environment_path(tmp_path, "host-1.0").parent.name == "environment"
    for worker in ("../x", "a/b", "", ".hidden", "x" * 200):
        with pytest.raises(errors.ConfigError):
            layout.environment_path(tmp_path, worker)


def test_beginning_a_run_writes_the_spec_and_doing_it_again_changes_nothing(tmp_path):
    out = tmp_path / "runs" / "one"
    found = run_directory.create_run(out, example.spec())
    before = example.tree(out)
    assert run_directory.create_run(out, example.spec()) == found == layout.read_spec(out)
    assert example.tree(out) == before == {"RUN.json": example.spec()}
    assert found.hash == config.spec_hash(example.spec()) and found.n_shards == 3


def test_spec_that_a_rival_writes_at_the_same_moment_is_kept(tmp_path):
    rival = example.spec(seed=1)

    class Late(example.FastDisk):
        def link(self, source, target):
            if not os.path.exists(target):
                run_directory.create_run(tmp_path, rival, example.FAST)
            super().link(source, target)

    with pytest.raises(errors.ConfigError, match="seed is 1 there, absent here"):
        run_directory.create_run(tmp_path, example.spec(), Late())
    assert (tmp_path / "RUN.json").read_bytes() == rival
    assert not any(temporary.is_temporary(name) for name in os.listdir(tmp_path))


def test_other_spec_is_refused_naming_the_field_and_both_values(tmp_path):
    run_directory.create_run(tmp_path, example.spec(profile="core"))
    with pytest.raises(errors.ConfigError) as caught:
        run_directory.create_run(tmp_path, example.spec(profile="full", extra=1))
    assert "store.rows is 'core' there, 'full' here" in caught.value.message
    assert "extra is absent there, 1 here" in caught.value.message
    assert "--out" in caught.value.hint and caught.value.exit_code == 2


def test_many_differences_are_counted_not_listed(tmp_path):
    run_directory.create_run(tmp_path, example.spec(a=1, b=2, c=3, d=4, e="x" * 500))
    with pytest.raises(errors.ConfigError, match=r"\(and 2 more\)") as caught:
        run_directory.create_run(tmp_path, example.spec(a=2, b=3, c=4, d=5, e="y" * 500))
    assert len(caught.value.message) < 500


def test_file_in_place_of_the_directory_is_a_storage_error(tmp_path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(errors.StorageError, match="Not a directory"):
        run_directory.create_run(tmp_path / "out", example.spec())


def test_directory_with_foreign_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_bytes(b"")
    with pytest.raises(errors.ConfigError, match=r"thesis\.tex"):
        run_directory.create_run(tmp_path, example.spec())
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["tokens/notes", "shards/mine.h5", "summary.h5", "MANIFEST"])
def test_names_of_ours_in_a_directory_without_a_spec_are_left_alone(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(errors.ConfigError, match=path.name.replace(".", r"\.")):
        run_directory.create_run(tmp_path, example.spec())
    assert path.read_bytes() == b"mine"


def test_directory_that_an_interrupted_start_left_is_taken(tmp_path):
    (tmp_path / "tokens").mkdir()
    leftover = f".RUN.json.{temporary._machine()}-{os.getpid()}-{'0' * 16}.tmp"
    (tmp_path / leftover).write_bytes(b"{")
    run_directory.create_run(tmp_path, example.spec())
    assert set(os.listdir(tmp_path)) == {"RUN.json", "tokens", "shards", "environment"}


def test_lost_spec_is_restored_only_where_the_shards_are_its_own(tmp_path):
    example.write_run(tmp_path)
    (tmp_path / "RUN.json").unlink()
    with pytest.raises(errors.ConfigError, match=r"part-00000\.json"):
        run_directory.create_run(tmp_path, example.spec(other=1))
    assert example.write_run(tmp_path) == []


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"{}", b'{"plan":{"n_shards":-1}}'])
def test_damaged_spec_is_a_data_error_that_names_the_file(tmp_path, raw):
    run_directory.create_run(tmp_path, example.spec())
    (tmp_path / "RUN.json").write_bytes(raw)
    for act in (layout.read_spec, lambda out: run_directory.create_run(out, example.spec())):
        with pytest.raises(errors.DataError, match=r"RUN\.json"):
            act(tmp_path)


def test_directory_without_a_run_is_a_missing_error(tmp_path):
    with pytest.raises(errors.MissingError, match="holds no run"):
        layout.read_spec(tmp_path)


def test_record_survives_its_bytes():
    assert records.parse_record(records.encode(ENTRY), "x") == ENTRY
    assert set(json.loads(records.encode(ENTRY))) == {
        *("size", "sha256", "spec_hash", "rows", "shard"),
        *("token_start", "token_stop", "tokens_sha256"),
    }


@given(st.data())
def test_no_single_bit_flip_of_a_record_gives_the_same_record(data):
    raw = bytearray(records.encode(ENTRY))
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    try:
        assert records.parse_record(bytes(raw), "x") != ENTRY
    except errors.DataError as error:
        assert error.message.startswith("x ")


@given(st.data())
def test_every_single_bit_flip_of_a_manifest_is_found(data):
    raw = bytearray(example.manifest("a" * 64, [ENTRY, ENTRY]))
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    try:
        assert record_table.parse_manifest(bytes(raw), "x").spec_hash != "a" * 64
    except errors.DataError as error:
        assert error.message.startswith("x")


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_garbage_never_parses_and_never_crashes(raw):
    for parse in (records.parse_record, records.parse_tokens, record_table.parse_manifest):
        with pytest.raises(errors.DataError):
            parse(raw, "x")


def test_deep_json_is_a_data_error():
    with pytest.raises(errors.DataError):
        strict_json.parse(b'{"a":' * 100_000, "x")


@pytest.mark.parametrize("level", ["fast", "full"])
def test_absent_truncated_and_foreign_shards_are_missing(tmp_path, level):
    example.write_run(tmp_path, n_shards=6)
    layout.shard_path(tmp_path, 0).unlink()
    layout.sidecar_path(tmp_path, 1).unlink()
    os.truncate(layout.shard_path(tmp_path, 2), 1000)
    example.replace_record(tmp_path, 3, spec_hash="d" * 64)
    example.replace_record(tmp_path, 4, shard=3)
    spec_hash = layout.read_spec(tmp_path).hash
    assert shards.missing_shards(tmp_path, 6, spec_hash, level) == [0, 1, 2, 3, 4]
    assert shards.missing_shards(tmp_path, 8, spec_hash, level) == [0, 1, 2, 3, 4, 6, 7]
    assert shards.missing_shards(tmp_path, 1, "e" * 64, level) == [0]


def test_resuming_recomputes_exactly_what_is_damaged(tmp_path):
    example.write_run(tmp_path, n_shards=4)
    whole = example.tree(tmp_path)
    path = layout.shard_path(tmp_path, 1)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    example.replace_record(tmp_path, 2, token_start=1)
    layout.shard_path(tmp_path, 3).unlink()
    assert shards.missing_shards(tmp_path, 4, layout.read_spec(tmp_path).hash, "fast") == [3]
    assert example.write_run(tmp_path, n_shards=4) == [1, 2, 3]
    assert example.tree(tmp_path) == whole


def test_sidecar_is_published_before_its_shard(tmp_path):
    renamed = []

    class Watching(example.FastDisk):
        def rename(self, source, target):
            renamed.append(os.path.basename(target))
            super().rename(source, target)

        def link(self, source, target):
            renamed.append(os.path.basename(target))
            super().link(source, target)

    example.write_run(tmp_path, n_shards=1, disk=Watching())
    assert renamed[-5:-3] == ["part-00000.json", "part-00000.h5"]
    assert renamed[-1] == "MANIFEST"


def test_same_run_is_that_of_an_empty_directory_or_of_equal_bytes(tmp_path):
    run_directory.require_same_run(tmp_path, example.spec())
    run_directory.create_run(tmp_path, example.spec())
    run_directory.require_same_run(tmp_path, example.spec())
    with pytest.raises(errors.ConfigError, match="seed is absent there, 1 here"):
        run_directory.require_same_run(tmp_path, example.spec(seed=1))


def test_fields_that_are_kept_are_named_and_not_the_hash_that_follows_from_them(tmp_path):
    spec = json.loads(example.spec())
    corpus = spec.get("corpus", {})
    there = corpus | {"index_sha256": "a" * 64}
    here = corpus | {"index_sha256": "b" * 64, "keep": ["label"]}
    run_directory.create_run(tmp_path, config.canonical(spec | {"corpus": there}))
    with pytest.raises(errors.ConfigError) as caught:
        run_directory.create_run(tmp_path, config.canonical(spec | {"corpus": here}))
    assert "corpus.keep is absent there, ['label'] here" in caught.value.message
    assert "sha256" not in caught.value.message


def test_what_users_keep_beside_a_run_that_has_begun_is_theirs(tmp_path):
    run_directory.refuse_other_files(tmp_path / "none")
    run_directory.create_run(tmp_path, example.spec())
    (tmp_path / "notes.txt").write_bytes(b"")
    run_directory.refuse_other_files(tmp_path)
    (tmp_path / "RUN.json").unlink()
    with pytest.raises(errors.ConfigError, match="notes"):
        run_directory.refuse_other_files(tmp_path)


def test_keys_and_values_of_another_run_are_shown_in_one_short_line(tmp_path):
    run_directory.create_run(tmp_path, example.spec(**{"a\nb\u2028" * 50: "x\ny" * 50}))
    with pytest.raises(errors.ConfigError) as caught:
        run_directory.create_run(tmp_path, example.spec())
    assert len(caught.value.message.splitlines()) == 1 and len(caught.value.message) < 500


TOKENS = records.Tokens(sha256="a" * 64, n_tokens=3, dtype="uint16", index_sha256="b" * 64)


def altered(**changes):
    document = json.loads(records.encode_tokens(TOKENS)) | changes
    del document["checksum"]
    return config.canonical(document | {"checksum": records._checksum(document)})


def test_token_record_keeps_what_the_tokenizer_says_under_its_checksum():
    raw = records.encode_tokens(TOKENS, {"skipped_at": ["naïve.txt:3: empty"]})
    assert records.parse_tokens(raw, "x") == TOKENS
    # The same text in other bytes; one flipped bit does this.
    assert raw.count(b"\\u00ef") == 1
    for odd in (raw.replace(b"\\u00ef", b"\\u00EF"), raw.replace(b'"x"', b'"y"') + b"\n"):
        with pytest.raises(errors.DataError, match="checksum"):
            records.parse_tokens(odd, "x")


@pytest.mark.parametrize("changes", [{"dtype": "float16"}, {"dtype": 3}, {"n_tokens": True}])
def test_token_record_of_impossible_values_is_refused(changes):
    with pytest.raises(errors.DataError):
        records.parse_tokens(altered(**changes), "x")


@pytest.mark.parametrize("more", [b'"a":1e999', b'"a":NaN', b'"a":' + b"[" * 200 + b"]" * 200])
def test_token_record_of_values_that_are_not_canonical_is_refused(more):
    raw = records.encode_tokens(TOKENS)
    with pytest.raises(errors.DataError, match="x is damaged"):
        records.parse_tokens(b"{" + more + b"," + raw[1:], "x")


def test_json_of_more_values_than_make_sense_is_refused_before_it_is_parsed():
    few, many = (b'{"a":[' + b"1," * n + b"1]}" for n in (1000, strict_json.MAX_VALUES))
    assert len(strict_json.parse(few, "x")["a"]) == 1001
    with pytest.raises(errors.DataError, match="more values than make sense"):
        strict_json.parse(many, "x")


def test_unknown_keys_are_shown_on_one_line():
    raw = config.canonical({"a\nb": 1})
    with pytest.raises(errors.DataError) as caught:
        records.parse_record(raw, "x")
    assert len(caught.value.message.splitlines()) == 1
