"""Repositories of a hub: in its cache, laid out as its library does, and behind a server.

Both are read by the real library, in processes whose environment names them.
"""

import contextlib
import hashlib
import http.server
import json
import os
import threading
import urllib.parse

import warm

COMMIT = "0123456789abcdef" * 2 + "01234567"


def cache(home, name, folder, commit=COMMIT, refs=("main",), kind="models"):
    """Puts the files of a folder into the cache, as a download does.

    Args:
        home: ``HF_HOME``.
        name: Hub id.
        folder: The files.
        commit: Of the snapshot.
        refs: Branches and tags that name it.
        kind: ``models`` or ``datasets``.

    Returns:
        Environment in which the cache is all that there is.
    """
    repository = home / "hub" / f"{kind}--{name.replace('/', '--')}"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    for path in (blobs, snapshot):
        path.mkdir(parents=True, exist_ok=True)
    for file in _files(folder):
        data = file.read_bytes()
        blob = blobs / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    for ref in (repository / "refs" / ref for ref in refs):
        ref.parent.mkdir(parents=True, exist_ok=True)  # a branch may be named a/b
        ref.write_text(commit)
    return offline(home)


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def offline(home):
    """Environment of a process that has this cache and no hub."""
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def located(environment, *sources):
    """What ``hub.locate`` and ``hub.label`` say in a process with this environment.

    Args:
        environment: See `cache` and `serve`.
        sources: Names of models, with a revision after ``@``.

    Returns:
        For each, path and label; or class, message and hint of the error.
    """
    status, printed, said = warm.run(_LOCATE, json.dumps(environment), *sources)
    assert status == 0, said
    return [json.loads(line) for line in printed.splitlines()]


# The library reads its environment once, when it is imported.
_LOCATE = """
import json, os, sys
assert "huggingface_hub" not in sys.modules
os.environ.update(json.loads(sys.argv[1]))
from jaxlens import errors
from jaxlens.models.checkpoints import hub
for source in sys.argv[2:]:
    name, _, revision = source.partition("@")
    try:
        path = hub.locate(name, revision or None)
        found = [str(path), hub.label(name, path)]
    except errors.JaxlensError as error:
        found = [type(error).__name__, error.message, error.hint]
    print(json.dumps(found))
"""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Listing and files of one repository, at the addresses of the hub."""

    folder = name = None
    asked = ()

    def do_GET(self):
        path = urllib.parse.unquote(self.path.partition("?")[0])
        resolved = f"/{self.name}/resolve/{COMMIT}/"
        about = f"/api/models/{self.name}"
        if path == about or path.startswith((f"{about}/revision/", f"{about}/tree/")):
            named = path.removeprefix(about).rpartition("/")[2]
            if named not in ("", "main", "v1", COMMIT):
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif "/tree/" not in path:
                siblings = [{"rfilename": file["path"]} for file in self._tree()]
                info = {"id": self.name, "sha": COMMIT, "siblings": siblings}
                self._send(200, json.dumps(info).encode())
            else:
                self._send(200, json.dumps(self._tree()).encode())
        elif path.startswith(resolved) and (self.folder / path.removeprefix(resolved)).is_file():
            data = (self.folder / path.removeprefix(resolved)).read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            if self.command == "GET":
                self.asked.append(path.removeprefix(resolved))
            self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _tree(self):
        return [
            {
                "type": "file",
                "path": path.relative_to(self.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in _files(self.folder)
        ]

    def _send(self, status, data, headers=()):
        self.send_response(status)
        for key, value in dict(headers, **{"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        """Says nothing."""


@contextlib.contextmanager
def serve(home, name, folder):
    """A hub of one repository, with the branch ``main`` and the tag ``v1``.

    Yields:
        Environment of a process that asks it, with an empty cache, and the files that were fetched.
    """
    asked = []
    handler = type("Handler", (_Handler,), {"folder": folder, "name": name, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            online = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint}
            yield online | {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}, asked
        finally:
            server.shutdown()
            thread.join()
