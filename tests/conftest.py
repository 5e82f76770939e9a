"""Strictness for the whole suite, and where optional data lies."""

import gc
import logging
import os
import pathlib
import signal
import tempfile

import hypothesis
import pytest

# Tracing makes a lot of objects and little garbage; to look for it as often as Python does by
# itself takes a tenth of the time.
gc.set_threshold(50_000, 20, 10)
# Before JAX starts: four devices on one CPU, and no silent change of precision or shape.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
# Sweeps take one of them unless a test asks for more: each device has its own compilation.
os.environ.setdefault("JAXLENS_DEVICES", "1")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell starts what runs in its background with SIGINT ignored, which processes of tests inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Many tests, and the processes they start, compile the same step: once is enough.
_CACHE = tempfile.TemporaryDirectory(prefix="jaxlens-test-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the folder of the process above them
    os.environ["XDG_CACHE_HOME"] = _CACHE.name  # nothing of the user's is read or written

import typechecking  # noqa: E402

typechecking.install()

from corpora import memory_growth, shared_data, tokenizer, write_lines  # noqa: E402
from object_server import behind, bucket, s3, url  # noqa: E402
from sweeps import checkpointed, decoded, studied, swept, texts, tiny  # noqa: E402 (JAX starts there)
from view.browser import chromium  # noqa: E402

__all__ = [  # fixtures of every test
    "behind",
    "bucket",
    "checkpointed",
    "chromium",
    "decoded",
    "memory_growth",
    "s3",
    "shared_data",
    "studied",
    "swept",
    "texts",
    "tiny",
    "tokenizer",
    "url",
    "write_lines",
]


def pytest_collection_finish():
    """Takes what exists by now out of garbage collection, which else takes half a minute of CPU."""
    gc.collect()
    gc.freeze()


hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared():
    """Folder of larger test data beside the checkout; tests that need it skip without it."""
    folder = pathlib.Path(os.environ.get("TESTS_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the shared test data: set TESTS_SHARED to its folder")
    return folder


@pytest.fixture
def hears_hangups():
    """SIGHUP, which ``nohup`` has processes ignore, ends a process while the test runs."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def unlogged():
    """What the command line does to the logger ends with the test: its stderr is closed then."""
    yield
    logger = logging.getLogger("jaxlens")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
