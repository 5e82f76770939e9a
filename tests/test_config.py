"""Configuration: sources merge left to right, and every mistake names its place."""

import json

import pytest

from jaxlens import config, config_values, errors


def test_later_files_the_environment_and_overrides_win(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("plan: {length: 128, overlap: 4}\nseed: 1\n")
    second.write_text("plan: {length: 64}\n")
    merged = config.load([first, second], {"JAXLENS_SEED": "7"}, {"store.rows": "core"})
    assert (merged.plan.length, merged.plan.overlap) == (64, 4)
    assert (merged.seed, merged.store.rows) == (7, "core")


def test_an_unknown_key_names_the_file_and_the_nearest_key(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lens: {tyle: 3}\n")
    with pytest.raises(errors.ConfigError) as caught:
        config.load([path])
    assert str(path) in caught.value.message
    assert "lens.tyle" in caught.value.message
    assert "lens.tile" in caught.value.hint


@pytest.mark.parametrize("source", ["file", "environment", "command line"])
def test_a_retired_key_is_ignored_with_a_warning(source, tmp_path, caplog):
    path = tmp_path / "run.yaml"
    path.write_text(
        "lens: {tune: true, tile: 512}\n" if source == "file" else "lens: {tile: 512}\n"
    )
    variables = {"JAXLENS_LENS_TUNE": "true"} if source == "environment" else {}
    overrides = {"lens.tune": True} if source == "command line" else {}
    with caplog.at_level("WARNING", "jaxlens"):
        loaded = config.load([path], variables, overrides)
    assert loaded == config.load([], {}, {"lens.tile": 512})
    (record,) = caplog.records
    assert "lens.tune" in record.getMessage() and "lens.tile" in record.getMessage()


def test_an_unknown_environment_variable_is_an_error():
    with pytest.raises(errors.ConfigError, match="JAXLENS_TILE"):
        config.load([], {"JAXLENS_TILE": "3", "HOME": "/"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lens.tile", "many"),
        ("lens.tile", 0),
        ("lens.decoder", "tuned"),
        ("store.rows", ["core"]),
        ("corpus.strict", "yes"),
        ("corpus.limit", -5),
        ("corpus.paths", []),
        ("plan.overlap", -1),
        ("plan.step_sequences", True),
        ("shard", "4/4"),
        ("shard", "1"),
    ],
)
def test_a_wrong_value_names_its_key(key, value):
    with pytest.raises(errors.ConfigError, match=key.split(".")[-1]):
        config.load([], {}, {key: value})


@pytest.mark.parametrize(
    ("text", "number"),
    [("20k", 20_000), ("10M", 10_000_000), ("1_000", 1000), ("2.5k", 2500), (7, 7)],
)
def test_counts_may_have_a_unit(text, number):
    assert config.load([], {}, {"corpus.limit": text}).corpus.limit == number


@pytest.mark.parametrize("text", ["", "k", "1.5", "inf", "nan", "1e999", "ten", True, None, 1.5])
def test_what_is_no_count_is_none(text):
    assert config_values.count(text) is None


def test_a_missing_file_and_a_file_that_is_no_yaml_are_refused(tmp_path):
    with pytest.raises(errors.MissingError):
        config.load([tmp_path / "none.yaml"])
    bad = tmp_path / "bad.yaml"
    for text in ("a: [", "- 1\n- 2\n", "\x00", "!!python/object:os.system {}"):
        bad.write_text(text)
        with pytest.raises(errors.ConfigError, match=r"bad\.yaml"):
            config.load([bad])


def test_canonical_json_does_not_depend_on_order():
    one = config.canonical({"b": 1, "a": {"d": "é", "c": None}})
    two = config.canonical({"a": {"c": None, "d": "é"}, "b": 1})
    assert one == two
    assert json.loads(one) == {"a": {"c": None, "d": "é"}, "b": 1}
    assert one.isascii()


def test_the_shipped_configurations_load():
    import pathlib

    files = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.yaml"))
    assert len(files) >= 5
    for path in files:
        config.load([path])


def test_a_revision_is_text_whatever_yaml_makes_of_it():
    merged = config.load([], {"JAXLENS_MODEL_REVISION": "0123456", "JAXLENS_OUT": "null"})
    assert merged.model.revision == "0123456"
    assert merged.out is None


@pytest.mark.parametrize(
    "text", ["[" * 2**19, "[" * 999 + "]" * 999, "seed: &a [*a]", "&a {x: *a}"]
)
def test_yaml_that_is_nested_without_end_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(errors.ConfigError) as caught:
        config.load([path])
    assert caught.value.message.isprintable() and len(caught.value.message) < 1000


def test_a_value_of_yaml_may_be_named_and_used_again(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: &n 3\nlens: {top_k: *n}\n")
    assert config.load([path]).seed == config.load([path]).lens.top_k == 3


def test_the_null_of_a_yaml_file_is_a_key(tmp_path):
    """YAML reads the bare word as its value for nothing."""
    path = tmp_path / "run.yaml"
    path.write_text("null: shuffled\nseed: 3\n")
    assert config.load([path]).null == "shuffled"
    assert config.load([path], {"JAXLENS_NULL": "random-init"}).null == "random-init"
    path.write_text("lens: {null: 3}\n")
    with pytest.raises(errors.ConfigError, match=r"lens\.null"):
        config.load([path])


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["twins:repeat"], "did you mean twins:repeats?"),
        (["twins:foo"], "did you mean twins:"),
        (["prompts:"], "did you mean prompts:curated?"),
        (["twins:" + "x" * 10**6], "did you mean"),
        (["twins:plasma", "a.txt"], "a run of its own"),
        (["packaged", "twins:repeats"], "a run of its own"),
        (["twins:repeats", "twins:plasma"], "a run of its own"),
    ],
)
def test_made_corpora_stand_alone_and_have_known_names(paths, said):
    with pytest.raises(errors.ConfigError) as caught:
        config.load([], {}, {"corpus.paths": paths})
    assert said in caught.value.hint
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nout: x\nseed: 2\n", "'seed' is in line 1 and in line 3"),
        ("plan: {length: 4}\nlens: {top_k: 1}\nplan: {overlap: 1}\n", "'plan' is in line 1"),
        ("plan:\n  length: 4\n  'length': 5\n", "'length' is in line 2 and in line 3"),
        ("plan.length: 4\nplan: {length: 5}\n", "has 'plan.length' twice"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path, text, said):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(errors.ConfigError) as caught:
        config.load([path])
    assert said in caught.value.message and str(path) in caught.value.message


HUGE = (
    "0x" + "f" * 6000,
    "9" * 400,
    "1" + "0" * 30,
    str(2**64),
    "1e400",
    ".inf",
    "[" + "9" * 400 + "]",
)


@pytest.mark.parametrize("key", ["seed", "corpus.limit", "grace", "lens.temperatures", "out"])
def test_numbers_of_any_size_are_values_or_refused(tmp_path, key):
    path = tmp_path / "run.yaml"
    for text in HUGE:
        path.write_text(f"{key}: {text}\n")
        try:
            merged = config.load([path])
        except errors.ConfigError as error:
            assert key in error.message and len(error.message) < 300
        else:
            assert key == "out" and isinstance(merged.out, str)


def test_seeds_that_would_mean_the_same_run_are_refused():
    for seed in (2**63 - 1, -(2**63)):
        assert config.load([], {}, {"seed": seed}).seed == seed
    for seed in (2**63, -(2**63) - 1, 2**64, 2**64 + 7):
        with pytest.raises(errors.ConfigError, match="seed"):
            config.load([], {}, {"seed": seed})
