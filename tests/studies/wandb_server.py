"""A W&B server on this machine: answers the calls that the agent and its runs make, and keeps what they sent."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import yaml

from tests import loopback

PROJECT = {"id": "p1", "name": "vlsafe", "entity": {"id": "e1", "name": "tester"}, "entityName": "tester"}


class Server:
    """Hands out ``trials``, each a mapping flag -> value, one after the other, then tells the agent to exit."""

    def __init__(self, sweep: dict[str, Any], trials: list[dict[str, Any]]) -> None:
        self.address = ""
        self.sweep = sweep
        self.waiting = [(f"run{number}", trial) for number, trial in enumerate(trials)]
        self.guard = threading.Lock()
        self.summaries: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.exit_codes: dict[str, int] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.unknown: list[str] = []

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        data = loopback.body(handler)
        if handler.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        answer: dict[str, Any] = {}
        if handler.command == "POST" and handler.path == "/graphql":
            question = json.loads(data)
            found = re.search(r"(?:query|mutation)\s+(\w+)", question["query"])
            answer = {"data": self.answer(found[1] if found else "", question.get("variables") or {})}
        elif handler.command == "POST" and handler.path.endswith("/file_stream"):
            self.streamed(handler.path.split("/")[-2], json.loads(data))
        loopback.send(handler, 200, json.dumps(answer).encode())

    def commands(self, alive: dict[str, bool]) -> list[dict[str, Any]]:
        with self.guard:
            if any(alive.values()):
                return []
            if not self.waiting:
                return [{"type": "exit"}]
            name, trial = self.waiting.pop(0)
            arguments = {flag: {"value": value} for flag, value in trial.items()}
            return [{"type": "run", "run_id": name, "program": "", "args": arguments}]

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "Heartbeat":
            alive = json.loads(given.get("runState") or "{}")
            return {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": json.dumps(self.commands(alive))}}
        if operation == "UpsertBucket":
            name = given.get("name") or given.get("id")
            if given.get("config"):
                self.configs[name] = json.loads(given["config"])
            bucket = {"id": name, "name": name, "displayName": name, "description": "", "config": "{}"}
            more = {"sweepName": "s1", "project": PROJECT, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket | more, "inserted": True}}
        sweep = {"id": "s1", "name": "s1", "method": self.sweep["method"], "state": "RUNNING", "description": ""}
        sweep |= {"config": yaml.safe_dump(self.sweep), "createdAt": "", "heartbeatAt": "", "updatedAt": ""}
        sweep |= {"earlyStopJobRunning": False, "controller": None, "scheduler": None, "runs": {"edges": []}}
        user = {
            "id": "u1",
            "entity": "tester",
            "username": "tester",
            "email": "",
            "flags": "{}",
            "teams": {"edges": []},
        }
        known: dict[str, dict[str, Any]] = {
            "Viewer": {"viewer": user},
            "SweepWithRuns": {"project": {"sweep": sweep}},
            "Sweep": {"project": {"sweep": sweep}},
            "CreateAgent": {"createAgent": {"agent": {"id": "a1"}}},
            "ServerFeaturesQuery": {"serverInfo": {"features": []}},
            "OrganizationCoreWeaveOrganizationID": {"entity": {"organization": None}},
        }
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.address}/upload"} for name in given.get("files", [])]
            return {"createRunFiles": {"runID": given.get("run", ""), "uploadHeaders": [], "files": files}}
        if operation not in known:
            self.unknown.append(operation)
        return known.get(operation, {})

    def streamed(self, run: str, body: dict[str, Any]) -> None:
        for name, part in body.get("files", {}).items():
            for line in part["content"]:
                if name == "wandb-summary.json":
                    self.summaries.setdefault(run, {}).update(json.loads(line))
                elif name == "wandb-history.jsonl":
                    self.history[run].append(json.loads(line))
        if body.get("complete"):
            self.exit_codes[run] = body["exitcode"]


@contextmanager
def serving(sweep: dict[str, Any], trials: list[dict[str, Any]]) -> Iterator[Server]:
    server = Server(sweep, trials)
    with loopback.serving(server.respond) as server.address:
        yield server
