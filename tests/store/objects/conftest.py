"""A server for all tests of this folder, and a bucket of their own for each."""

import contextlib
import secrets

import pytest
from store.objects import server


@pytest.fixture(scope="session")
def s3():
    """The port of a server."""
    server.require()
    with server.moto() as port:
        yield port


@pytest.fixture
def bucket(s3, monkeypatch):
    """A new bucket, which the environment leads to."""
    name = f"b{secrets.token_hex(8)}"
    server.make_bucket(s3, name)
    for key, value in server.environment(s3).items():
        monkeypatch.setenv(key, value)
    return name


@pytest.fixture
def url(bucket):
    """A folder in a new bucket."""
    return f"s3://{bucket}/some/run"


@pytest.fixture
def behind(s3, monkeypatch):
    """Puts a proxy with a fault before the server; its port."""

    with contextlib.ExitStack() as stack:

        def start(fault):
            port, running = server.proxy(s3, fault)
            stack.enter_context(running)
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment(port)["AWS_ENDPOINT_URL"])
            return port

        yield start
