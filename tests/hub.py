"""A stand-in for a hub of models: as much of HTTP as huggingface_hub speaks to push and pull small ones."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

TOKEN = "hf_standin"


@dataclass
class Stored:
    """A repository: branch to commit, commit to files."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def add(self, branch: str, files: dict[str, bytes], message: str) -> str:
        named = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
        parent = self.branches.get(branch)
        commit = hashlib.sha1(json.dumps([parent, message, named], sort_keys=True).encode()).hexdigest()
        self.branches[branch], self.commits[commit] = commit, files
        self.messages.append(message)
        return commit

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


class Hub:
    """Serves repositories from memory, and keeps what it was asked for.

    Attributes:
        repositories: by name.
        asked: method and path of each request.
        gone: names of files that are listed, and not to be had.
        read_only: tokens that may not write.
        before_commit: called before a commit is made.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Stored] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.gone: set[str] = set()
        self.read_only: set[str] = set()
        self.before_commit: Callable[[Stored], object] = lambda _: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fetched(self) -> set[str]:
        """Names of the files whose bytes were sent."""
        return {path.split("/", 5)[5] for method, path in self.asked if method == "GET" and "/resolve/" in path}


class _Refusal(Exception):  # noqa: N818 no defect of the server
    def __init__(self, status: int, message: str, code: str = "", printed: dict[str, str] | None = None) -> None:
        self.status, self.message, self.code, self.printed = status, message, code, printed or {}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append((self.command, unquote(path)))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            headers, content = self._route([unquote(part) for part in path.strip("/").split("/")], body)
            status = 200
        except _Refusal as refused:
            status, content = refused.status, json.dumps({"error": refused.message, **refused.printed}).encode()
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def _route(self, parts: list[str], body: bytes) -> tuple[dict[str, str], bytes]:
        match (self.command, *parts):
            case ("POST", "api", "repos", "create"):
                return _json(self._create(json.loads(body)))
            case ("POST", "api", "validate-yaml"):
                return _json({"errors": [], "warnings": []})
            case ("GET", "api", "models", user, name, "revision", revision):
                return _json(self._info(f"{user}/{name}", revision))
            case ("GET", "api", "models", user, name, "tree", revision):
                return _json([{"type": "file", **printed} for printed in self._listed(f"{user}/{name}", revision)])
            case ("POST", "api", "models", user, name, "branch", branch):
                return _json(self._branch(f"{user}/{name}", branch))
            case ("POST", "api", "models", _, _, "preupload", *_):
                self._writer()
                return _json({"files": [_mode(printed) for printed in json.loads(body)["files"]]})
            case ("POST", _, _, "info", "lfs", "objects", "batch"):
                self._writer()
                return _json({"transfer": "basic", "objects": [self._place(o) for o in json.loads(body)["objects"]]})
            case ("PUT", "objects", oid):
                assert hashlib.sha256(body).hexdigest() == oid
                self.hub.objects[oid] = body
                return {}, b""
            case ("POST", "api", "models", user, name, "commit", branch):
                return _json(self._commit(f"{user}/{name}", branch, body))
            case ("GET" | "HEAD", user, name, "resolve", revision, *file):
                files = self._found(f"{user}/{name}").files(revision)
                content = files.get("/".join(file))
                if content is None or file[-1] in self.hub.gone:
                    raise _Refusal(404, "Entry not found", "EntryNotFound")
                return {"X-Repo-Commit": revision, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, content
        raise _Refusal(404, f"{self.command} {self.path} is not spoken here")

    def _writer(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.hub.read_only:
            raise _Refusal(403, "you have no right to write")
        if token != TOKEN:
            raise _Refusal(401, "Invalid credentials in Authorization header")

    def _found(self, name: str) -> Stored:
        known = self.hub.repositories.get(name)
        if known is None or (known.private and TOKEN not in self.headers.get("Authorization", "")):
            raise _Refusal(401, "Repository not found", "RepoNotFound")
        return known

    def _create(self, wanted: dict[str, Any]) -> dict[str, str]:
        self._writer()
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.hub.repositories:
            raise _Refusal(409, "You already created this model repo", printed={"url": f"{self.hub.url}/{name}"})
        made = Stored(private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        made.add("main", {".gitattributes": b"*.safetensors filter=lfs"}, "initial commit")
        self.hub.repositories[name] = made
        return {"url": f"{self.hub.url}/{name}"}

    def _listed(self, name: str, revision: str) -> list[dict[str, Any]]:
        files = self._found(name).files(revision)
        return [{"path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files.items()]

    def _info(self, name: str, revision: str) -> dict[str, Any]:
        found = self._found(name)
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            raise _Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        listed = [{"rfilename": printed["path"], "size": printed["size"]} for printed in self._listed(name, revision)]
        return {"id": name, "sha": commit, "private": found.private, "siblings": listed}

    def _branch(self, name: str, branch: str) -> dict[str, Any]:
        self._writer()
        found = self._found(name)
        if branch in found.branches:
            raise _Refusal(409, "Reference already exists")
        found.branches[branch] = found.branches["main"]
        return {}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.hub.objects:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/objects/{wanted['oid']}"}}}

    def _commit(self, name: str, branch: str, body: bytes) -> dict[str, str]:
        self._writer()
        found = self._found(name)
        self.hub.before_commit(found)
        files, message = dict(found.files(branch)), ""
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    if value["parentCommit"] != found.branches[branch]:
                        raise _Refusal(412, "A commit has happened since. Please refresh and try again.")
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = found.add(branch, files, message)
        return {"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit}


def _json(value: object) -> tuple[dict[str, str], bytes]:
    return {"Content-Type": "application/json"}, json.dumps(value).encode()


def _mode(printed: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if printed["path"].endswith((".safetensors", ".png")) else "regular"
    return {"path": printed["path"], "uploadMode": mode, "shouldIgnore": False}
