"""Names of places and objects; no server is needed."""

from pathlib import Path

import pytest

from jaxlens import errors
from jaxlens.store import layout, records, storage
from jaxlens.store.objects import client, names, urls

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text", ["s3://bucket/a/run", "gs://bucket.of-mine/run", "s3://b1/x/y=2/z"]
)
def test_urls_survive_being_paths(text):
    assert str(urls.parse(text)) == text
    assert str(urls.parse(Path(text))) == text == urls.shown(Path(text))
    assert urls.parse(text + "/").last == text.rpartition("/")[2]


@pytest.mark.parametrize(
    "text", ["runs/gpt2", "/s3/run", "s3", "C:/x", "./az://bucket/run", "12:30/run", "", None]
)
def test_other_places_are_paths(text):
    assert not urls.is_url(text)
    with storage.mirrored(text) as mirror:
        assert mirror is None


@pytest.mark.parametrize(
    "text", ["az://bucket/run", "https://h/x", "S3://b/x", "s3a://b/x", "file:///tmp/x", "s3:"]
)
def test_other_schemes_are_refused_and_make_no_folder(text):
    for place in (text, Path(text)):
        with (
            pytest.raises(errors.ConfigError, match="names no object store"),
            storage.mirrored(place, writable=True),
        ):
            pass


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("AWS_ENDPOINT_URL", text) for text in ("", "127.0.0.1:5599", "http://", "http:// h")),
        *(("AWS_ENDPOINT_URL_S3", text) for text in ("http://127.0.0.1:99999", "ftp://h:1")),
        ("AWS_ACCESS_KEY_ID", "a\nkey"),
        ("AWS_SKIP_SIGNATURE", "zz"),
        ("AWS_CONDITIONAL_PUT", "nope"),
    ],
)
def test_settings_of_the_environment_that_make_no_sense_are_refused(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(errors.ConfigError) as raised, storage.mirrored("s3://bucket/run"):
        pass
    assert "\n" not in raised.value.message and "AWS_" in raised.value.message + raised.value.hint


def panic(*_, **__):
    """Raises as libraries written in Rust do, whose exception cannot be imported."""
    raise type("PanicException", (BaseException,), {})("called `Result::unwrap()`\non a value")


def test_a_panic_of_the_library_is_an_error_of_the_environment(monkeypatch):
    obstore = pytest.importorskip("obstore")
    stores = pytest.importorskip("obstore.store")
    with monkeypatch.context() as patched:
        patched.setattr(stores, "from_url", panic)
        with pytest.raises(errors.ConfigError, match="panic") as raised:
            client.Client(urls.parse("s3://bucket/run"))
    assert "\n" not in raised.value.message and "AWS_" in raised.value.hint
    monkeypatch.setattr(obstore, "head", panic)
    with pytest.raises(errors.StorageError, match="panic"):
        client.Client(urls.parse("s3://bucket/run")).head("RUN.json")


@pytest.mark.parametrize(
    "text",
    [
        *("s3://", "s3://bucket", "s3://bucket/", "s3:///run", "s3://bucket/a//b"),
        *("s3://bucket/../run", "s3://bucket/./run", "s3://key:secret@bucket/run"),
        *("s3://bucket/run?versionId=1", "s3://bucket/a b", "s3://bucket/\u202erun"),
    ],
)
def test_what_names_no_folder_is_refused(text):
    with pytest.raises(errors.ConfigError, match="does not name a folder in a bucket"):
        urls.parse(text)


def test_images_are_found_by_shard_and_hash():
    for shard in (0, 17, 1024, 99_999_999):
        entry = records.Record(
            spec_hash=HASH, shard=shard, token_start=0, token_stop=1, tokens_sha256=HASH,
            rows=1, size=1, sha256=HASH[::-1],
        )  # fmt: skip
        name = names.image(entry)
        assert names.parse_image(name) == (shard, HASH[::-1])
        assert names.record_number(layout.sidecar_file(shard)) == shard
        assert names.is_file(layout.sidecar_file(shard)) and not names.is_file(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../RUN.json",
            "shards/../RUN.json",
            "/RUN.json",
            "tokens/../../x",
            "environment/../x.json",
        ),
        *(
            "shards/00000/MANIFEST",
            "shards/1/MANIFEST",
            "environment/.json",
            "environment/a/b.json",
        ),
        *("shards/part-01024.json", "shards/00001/part-00001.json", "shards/part-00001.h5"),
        *(f"shards/part-1-{HASH}.h5", f"shards/part-01024-{HASH}.h5", "probe/probe.h5", "study"),
        *("environment/create-only", "tokens", "shards/part-00001.json/x", ".RUN.json.tmp", ""),
    ],
)
def test_no_other_name_reaches_the_mirror(name):
    assert not names.is_file(name)
    assert names.parse_image(name) is None
    assert names.record_number(name) is None
