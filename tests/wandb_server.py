"""A W&B server on 127.0.0.1 that can receive runs, and nothing more.

It answers the requests that wandb's client sends to upload a run: GraphQL's
`UpsertBucket`, `RunResumeStatus`, `CreateRunFiles` and `CreateArtifact`, the PUT of
each file, and `file_stream`. Tests compare what it received with a record.
"""

import gzip
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "0" * 40
"""A key of the right form; the server accepts every key."""


@dataclass
class Received:
    """What the server has received of one run."""

    config: dict[str, Any] = field(default_factory=dict)
    display_name: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    """The exit code of each complete upload."""


class Server(ThreadingHTTPServer):
    """Keeps the received runs in `runs`, by run id.

    Requests to paths that start with one of `refused` get the status 500.
    """

    daemon_threads = True

    def __init__(self, refused: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refused = refused
        self.runs: dict[str, Received] = {}
        self.projects: set[str] = set()
        self.requests = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def environment(self) -> dict[str, str]:
        """Return variables that make wandb's client use this server and retry soon."""
        url = f"http://127.0.0.1:{self.server_port}"
        intervals = {
            f"WANDB_X_{client}_RETRY_WAIT_{bound}_SECONDS": "1"
            for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
            for bound in ("MIN", "MAX")
        }
        intervals["WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL"] = "1"
        variables = {"WANDB_BASE_URL": url, "WANDB_API_KEY": API_KEY, **intervals}
        if not self.refused:  # a slow machine must not make a run go offline
            variables["WANDB_INIT_TIMEOUT"] = "120"
        return variables


@contextmanager
def serving(*refused: str) -> Iterator[Server]:
    """Start a server; stop it when the block ends."""
    with Server(refused) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests += 1
        status, content = 200, {}
        if self.path.startswith(self.server.refused):
            status = 500
        elif self.path == "/graphql":
            content = {"data": self._graphql(json.loads(body))}
        elif self.path.endswith("/file_stream"):
            self._stream(json.loads(body))
        elif self.path.startswith("/storage/"):
            _, _, run_id, name = self.path.split("/", 3)
            self.server.runs[run_id].files[name] = body
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _answer

    def _graphql(self, request: Mapping[str, Any]) -> dict[str, Any]:
        variables = request.get("variables", {})
        given = {k: v for k, v in variables.items() if v is not None}
        match request["operationName"]:
            case "UpsertBucket":
                run = self.server.runs.setdefault(given["name"], Received())
                self.server.projects.add(given["project"])
                config = json.loads(given.get("config", "{}"))
                run.config |= {key: item["value"] for key, item in config.items()}
                run.display_name = given.get("displayName", run.display_name)
                run.group = given.get("groupName", run.group)
                run.job_type = given.get("jobType", run.job_type)
                run.tags = given.get("tags", run.tags)
                bucket = self._bucket(given["name"]) | {
                    "project": {"name": given["project"], "entity": {"name": "someone"}}
                }
                return {"upsertBucket": {"bucket": bucket, "inserted": True}}
            case "RunResumeStatus":
                known = given["name"] in self.server.runs
                bucket = self._bucket(given["name"]) if known else None
                return {"model": {"name": given["project"], "bucket": bucket}}
            case "CreateRunFiles":
                url = f"http://127.0.0.1:{self.server.server_port}/storage"
                files = [
                    {"name": name, "uploadUrl": f"{url}/{given['run']}/{name}"}
                    for name in given["files"]
                ]
                return {"createRunFiles": {"runID": given["run"], "files": files}}
            case "CreateArtifact":
                # A table is also an artifact. COMMITTED: the server has its content.
                artifact: dict[str, Any] = {"id": "artifact", "state": "COMMITTED"}
                artifact["artifactSequence"] = {}
                return {"createArtifact": {"artifact": artifact}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
        return {}

    def _bucket(self, run_id: str) -> dict[str, Any]:
        run = self.server.runs[run_id]
        config = {key: {"value": value} for key, value in run.config.items()}
        return {
            "id": run_id,
            "name": run_id,
            "displayName": run.display_name,
            "tags": run.tags,
            "config": json.dumps(config),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsTail": "[]",
        }

    def _stream(self, request: Mapping[str, Any]) -> None:
        run = self.server.runs[self.path.split("/")[-2]]
        for name, chunk in request.get("files", {}).items():
            rows = [json.loads(line) for line in chunk["content"]]
            if name == "wandb-history.jsonl":
                run.history[chunk["offset"] :] = rows
            elif name == "wandb-summary.json":
                run.summary = rows[-1]
        if request.get("complete"):
            run.exit_codes.append(request["exitcode"])
