"""Configuration files: anchors work, doubled keys do not, and nothing grows out of hand."""

import string

import pytest

from jaxlens import config, errors
from jaxlens.files import yaml


def test_anchors_and_merge_keys_are_values():
    assert yaml.parse("a: &x {k: 1}\nb: {<<: *x, l: 2}\n") == {"a": {"k": 1}, "b": {"k": 1, "l": 2}}


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "b: [{a: 1, a: 1}]\n", "a: &x {k: 1, k: 2}\nb: *x\n"]
)
def test_a_key_that_stands_twice_is_named(text):
    with pytest.raises(yaml.DuplicateKey, match="line"):
        yaml.parse(text)


def doubled_anchors(levels):
    """Nine references to the anchor before, so often over that the whole has 9**levels items."""
    text, before = "seed: [&a [x]", "a"
    for name in string.ascii_lowercase[1 : levels + 1]:
        text += f", &{name} [{', '.join(['*' + before] * 9)}]"
        before = name
    return text + "]\n"


@pytest.mark.parametrize(
    "text",
    [
        doubled_anchors(20),
        "seed: &a [*a]\n",
        "lens: &a\n  tile: *a\n",
        "seed: " + "[" * 50_000 + "]" * 50_000,
    ],
    ids=["9**20 items", "a list in itself", "a mapping in itself", "deep"],
)
def test_a_file_that_never_ends_is_refused_in_one_line(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(errors.ConfigError, match=r"^.{1,1000}$"):
        config.load([path], {}, {})
