"""A loopback stand-in for the W&B server: enough of it for ``wandb sweep``, ``wandb agent`` and the runs they start."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT = "tester", "unigap"
OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")


@dataclass
class Sweep:
    """A sweep the server knows.

    Attributes:
        name: Its id.
        config: What ``wandb sweep`` sent.
        points: The runs of it, by id: a value for each parameter.
        jobs: Ids of the runs still to be handed out.
    """

    name: str
    config: dict[str, Any]
    points: dict[str, dict[str, Any]]
    jobs: list[str]

    @property
    def handed_out(self) -> dict[str, dict[str, Any]]:
        """The points that runs were started for."""
        return {run: point for run, point in self.points.items() if run not in self.jobs}


@dataclass
class Server:
    """What the server has been told.

    Attributes:
        url: Where it listens.
        sweeps: The sweeps, by id.
        runs: The config of each run, by id, as its last report says.
        groups: The group of each run, by id.
        history: The metrics each run logged, by id.
        files: What each run uploaded, by id and name.
        lock: Held while an answer is made.
    """

    url: str = ""
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, operation: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation."""
        answers = {
            "Viewer": self._viewer,
            "UpsertSweep": self._upsert_sweep,
            "SweepWithRuns": self._sweep_with_runs,
            "CreateAgent": lambda asked: {"createAgent": {"agent": {"id": asked["sweep"]}}},
            "Heartbeat": self._heartbeat,
            "UpsertBucket": self._upsert_bucket,
            "CreateRunFiles": self._create_run_files,
        }
        with self.lock:
            return answers[operation](variables) if operation in answers else {}

    def _viewer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        names = {"id": "1", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}
        return {"viewer": names}

    def _upsert_sweep(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        config = yaml.safe_load(asked["config"])
        name = f"sweep{len(self.sweeps)}"
        points = last_and_first(name, config["parameters"])
        self.sweeps[name] = Sweep(name, config, points, list(points))
        return {"upsertSweep": {"sweep": {"name": name, "project": project()}, "configValidationWarnings": []}}

    def _sweep_with_runs(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        config = yaml.safe_dump(self.sweeps[asked["sweep"]].config)
        return {"project": {"sweep": {"id": "1", "name": asked["sweep"], "config": config, "runs": {"edges": []}}}}

    def _heartbeat(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        sweep, running = self.sweeps[asked["id"]], json.loads(asked["runState"])
        commands: list[dict[str, Any]] = []
        if not running and sweep.jobs:
            name = sweep.jobs.pop(0)
            arguments = {key: {"value": value} for key, value in sweep.points[name].items()}
            commands = [{"type": "run", "run_id": name, "program": sweep.config["program"], "args": arguments}]
        elif not running:
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": sweep.name}, "commands": json.dumps(commands)}}

    def _upsert_bucket(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        name = asked["name"]
        if asked.get("groupName"):
            self.groups[name] = asked["groupName"]
        if asked.get("config"):
            self.runs[name] = {key: told["value"] for key, told in json.loads(asked["config"]).items()}
        bucket = {"id": name, "name": name, "displayName": name, "description": "", "config": "{}", "sweepName": None}
        bucket |= {"project": project(), "historyLineCount": 0}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _create_run_files(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        run = asked["run"]
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{run}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def stream(self, run: str, files: Mapping[str, Any]) -> None:
        """Takes what a run sends while it goes on."""
        lines = files.get("wandb-history.jsonl", {}).get("content", [])
        self.history.setdefault(run, []).extend(json.loads(line) for line in lines)


def project() -> dict[str, Any]:
    """The only project there is."""
    return {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}}


def last_and_first(sweep: str, parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The last and the first point of a grid, by run id."""
    grid = list(itertools.product(*(parameters[name]["values"] for name in parameters)))
    ends = [grid[-1], grid[0]]
    return {f"{sweep}-{number}": dict(zip(parameters, point, strict=True)) for number, point in enumerate(ends)}


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers on a port of its own while the body runs."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            if self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], asked.get("files") or {})
                return self._send({"exitcode": None, "limits": {}})
            operation = OPERATION.search(asked["query"])
            data = server.answer(operation[1] if operation else asked["query"], asked.get("variables") or {})
            self._send({"data": data})

        def do_GET(self) -> None:
            self._send({})

        def do_PUT(self) -> None:
            _, _, run, name = self.path.split("/", 3)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.files.setdefault(run, {})[name] = body
            self._send({})

        def _send(self, content: Mapping[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
