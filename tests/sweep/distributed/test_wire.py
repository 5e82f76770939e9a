"""What driver and workers tell each other arrives as it was."""

import json

import pytest

from jaxlens import config, errors
from jaxlens.store import run_directory
from jaxlens.sweep.distributed import wire


def test_a_configuration_arrives_whole():
    given = {
        "corpus.paths": ["a.txt", "b"],
        "corpus.limit": 10**12,
        "lens.temperatures": [1.5, 1.0],
        "store.rows": "none",
        "grace": 0,
    }
    sent = config.load([], {}, given)
    assert wire.configuration(json.loads(wire.dumps(wire.settings(sent)))) == sent


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.StorageError("full", "make space"), errors.StorageError, "full"),
        (run_directory.AnotherRun("other", "x"), errors.ConfigError, "other"),
        (OSError(28, "No space left on device"), errors.StorageError, "No space left"),
        (MemoryError(), errors.ConfigError, "out of memory"),
        (ZeroDivisionError("a\nb"), errors.JaxlensError, "internal: ZeroDivisionError: a"),
    ],
)
def test_an_error_arrives_with_its_code(error, kind, message):
    arrived = wire.raised(json.loads(json.dumps(wire.error(error))), "worker 1")
    assert type(arrived) is kind and message in arrived.message and "\n" not in arrived.message
    assert arrived.hint and "worker 1" in arrived.__notes__[0]


def test_other_versions_and_other_sources_are_refused_by_name():
    here = wire.versions()
    wire.require_versions(here, "host")
    for name in ("jaxlens", "jax", "sources of jaxlens"):
        with pytest.raises(errors.ConfigError, match=f"{name}: 0 on the worker at host, "):
            wire.require_versions(here | {name: "0"}, "host")
