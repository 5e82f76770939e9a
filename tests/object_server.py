"""A real server of the protocol of S3 on loopback, and a proxy before it that misbehaves.

``python object_server.py TARGET_PORT PORT FAULT`` is the proxy. Servers and proxies are processes,
so that they can be killed.
"""

import contextlib
import http.client
import http.server
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import ClassVar

import pytest

HOST = "127.0.0.1"
PYTHON = os.environ.get("MOTO_PYTHON", sys.executable)
SECRET = "a-secret-that-no-file-may-hold"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_UNKNOWN = b"<Error><Code>NotImplemented</Code><Message>a header is unknown</Message></Error>"


def require():
    """Skips where the server or the client is not installed."""
    if importlib.util.find_spec("obstore") is None:
        pytest.skip("obstore is not installed")
    found = subprocess.run([PYTHON, "-c", "import moto.server"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("moto is not installed: run make test-objects")


def free_port():
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def process(words, port, python=sys.executable):
    """A process that listens, from then on until the block ends."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
    with subprocess.Popen([python, *map(str, words)], **quiet) as started:
        try:
            for _ in range(1200):
                assert started.poll() is None
                with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                    break
                time.sleep(0.05)
            yield started
        finally:
            started.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def moto():
    port = free_port()
    with process(["-m", "moto.server", "-H", HOST, "-p", port], port, PYTHON):
        yield port


def proxy(target, fault, port=None):
    """The port of a proxy, see `Handler.fault`."""
    port = port or free_port()
    return port, process([__file__, target, port, fault], port)


def environment(port):
    """Variables of a client of the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


def make_bucket(port, bucket):
    request = urllib.request.Request(f"http://{HOST}:{port}/{bucket}", method="PUT")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request) as answer:
        assert answer.status == 200


@pytest.fixture(scope="session")
def s3():
    """The port of a"""
    require()
    with moto() as port:
        yield port


@pytest.fixture
def bucket(s3, monkeypatch):
    """A new bucket, which the environment leads to."""
    name = f"b{secrets.token_hex(8)}"
    make_bucket(s3, name)
    for key, value in environment(s3).items():
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
            port, running = proxy(s3, fault)
            stack.enter_context(running)
            monkeypatch.setenv("AWS_ENDPOINT_URL", environment(port)["AWS_ENDPOINT_URL"])
            return port

        yield start


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands requests on, but for its fault.

    - ``none``: it has none.
    - ``ignores-conditions``: it forgets ``If-None-Match``.
    - ``unknown-conditions``: it answers those with 501.
    - ``denies``: it answers everything with 403; ``denies-writes`` whatever writes.
    - ``forgets-answers``: what creates an object is carried out, and answered with 503 the first
      time.
    """

    protocol_version = "HTTP/1.1"
    fault, target = "none", 0
    answered: ClassVar[set] = set()

    def forward(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        is_conditional = "If-None-Match" in self.headers
        if self.fault == "denies" or (self.fault == "denies-writes" and self.command == "PUT"):
            return self.answer(403, {}, _DENIED)
        if is_conditional and self.fault == "unknown-conditions":
            return self.answer(501, {}, _UNKNOWN)
        if self.fault == "ignores-conditions":
            headers = {k: v for k, v in headers.items() if k.lower() != "if-none-match"}
        connection = http.client.HTTPConnection(HOST, self.target)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if is_conditional and self.fault == "forgets-answers" and self.path not in self.answered:
            self.answered.add(self.path)
            return self.answer(503, {}, b"")
        return self.answer(answer.status, dict(answer.getheaders()), data)

    def answer(self, status, headers, data):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        length = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward

    def log_message(self, *words):
        pass


if __name__ == "__main__":
    Handler.target, Handler.fault = int(sys.argv[1]), sys.argv[3]
    http.server.ThreadingHTTPServer((HOST, int(sys.argv[2])), Handler).serve_forever()
