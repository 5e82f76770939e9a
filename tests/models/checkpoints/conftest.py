"""Whatever is loaded whole is also read leaf by leaf, with the same bits or the same refusal."""

import logging

import checkpoints
import pytest

from jaxlens import errors
from jaxlens.models.checkpoints import checkpoint, layout

load = checkpoint.load


def stream(*given):
    """All leaves, read one after another."""
    found = load(*given, read=False)
    leaves = list(found.take())
    paths = [path for path, _ in leaves]
    assert paths == sorted(set(paths))
    return layout.nested(dict(leaves)), found.sha256


@pytest.fixture
def also_streamed(monkeypatch):
    """Makes every ``checkpoint.load`` of a test a comparison of both ways."""
    logger = logging.getLogger("jaxlens")

    def both(*given):
        try:
            loaded = load(*given)
        except errors.JaxlensError as refusal:
            with pytest.raises(type(refusal)):
                stream(*given)
            raise
        monkeypatch.setattr(logger, "disabled", True)  # the notes have been heard
        params, sha256 = stream(*given)
        monkeypatch.setattr(logger, "disabled", False)
        checkpoints.assert_same_bits(params, loaded.params)
        assert sha256 == loaded.sha256
        return loaded

    monkeypatch.setattr(checkpoint, "load", both)
