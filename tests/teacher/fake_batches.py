"""The Batch API of the fake server: files, and batches that take a step each time they are looked at."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fake_server import FakeServer

_BY_ITSELF = {"validating": "in_progress", "in_progress": "finalizing"}


class FakeBatches:
    """Serves ``/v1/files`` and ``/v1/batches`` as OpenAI does: replies in another order, errors in a second file, 404 for what is unknown.

    Attributes:
        outcome: How a batch ends: ``completed``, ``expired``, ``cancelled`` or ``failed``.
        n_answered: Most requests that are answered before it ends; None: all of them.
        failure: What a failed batch says.
        fails_above: A batch with more requests fails, its queue being full.
        n_unreachable: Looks at a batch that get a 500 first.
        is_flaky: Whether every other look gets one.
        stays: Status in which every batch stays.
        is_served: Whether there is a Batch API.
    """

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.outcome, self.stays = "completed", None
        self.n_answered: int | None = None
        self.failure = [
            {"code": "invalid_json_line", "message": "This line is not parseable as valid JSON.", "line": 3}
        ]
        self.fails_above: int | None = None
        self.n_unreachable = 0
        self.is_flaky = False
        self.is_served = True
        self.n_looks = 0
        self.loses_reply_to_creation = False

    @property
    def uploads(self) -> list[dict[str, Any]]:
        return [file for file in self.files.values() if file["purpose"] == "batch"]

    def custom_ids(self) -> list[str]:
        """Of every request in every batch that was created."""
        created = [self.contents[batch["input_file_id"]] for batch in self.batches.values()]
        return [json.loads(line)["custom_id"] for content in created for line in content.splitlines()]

    def answer(self, method: str, path: str, content: bytes, content_type: str) -> tuple[int, Any]:
        """Status and body; bytes are sent as they are."""
        reply: tuple[int, Any] = 404, {"error": {"message": f"No such object: {path}", "type": "invalid_request_error"}}
        match [method, *path.removeprefix("/v1/").split("?")[0].split("/")] if self.is_served else []:
            case ["POST", "files"]:
                reply = 200, self._store(*_multipart(content, content_type))
            case ["GET", "files"]:
                reply = 200, _page(list(self.files.values())[::-1])
            case ["GET", "files", file_id, "content"] if file_id in self.contents:
                reply = 200, self.contents[file_id]
            case ["POST", "batches"]:
                reply = self._create(json.loads(content))
            case ["GET", "batches"]:
                reply = 200, _page(list(self.batches.values())[::-1])
            case ["GET", "batches", batch_id] if batch_id in self.batches:
                reply = self._look(self.batches[batch_id])
        return reply

    def _store(self, filename: str, content: bytes, purpose: str = "batch") -> dict[str, Any]:
        file_id = f"file-{len(self.files) + 1}"
        self.contents[file_id] = content
        self.files[file_id] = {
            "id": file_id, "object": "file", "bytes": len(content), "created_at": int(time.time()), "filename": filename,
            "purpose": purpose, "status": "processed",
        }  # fmt: skip
        return self.files[file_id]

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        assert body["endpoint"] == "/v1/chat/completions"
        assert body["completion_window"] == "24h"
        lines = self.contents[body["input_file_id"]].splitlines()
        batch = {
            "id": f"batch_{len(self.batches) + 1}", "object": "batch", "endpoint": body["endpoint"], "errors": None,
            "input_file_id": body["input_file_id"], "completion_window": "24h", "status": "validating", "output_file_id": None,
            "error_file_id": None, "created_at": int(time.time()), "metadata": body.get("metadata"),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }  # fmt: skip
        self.batches[batch["id"]] = batch
        if self.loses_reply_to_creation:
            return 500, {"error": {"message": "The server had an error"}}
        return 200, batch

    def _look(self, batch: dict[str, Any]) -> tuple[int, Any]:
        """A batch as it is, one step further than the last time."""
        self.n_looks += 1
        if self.n_unreachable or (self.is_flaky and self.n_looks % 2):
            self.n_unreachable = max(self.n_unreachable - 1, 0)
            return 500, {"error": {"message": "The server had an error"}}
        shown = json.loads(json.dumps(batch))
        n_requests = batch["request_counts"]["total"]
        if batch["status"] == self.stays:
            return 200, shown
        if batch["status"] == "validating" and self.outcome == "failed":
            batch |= {"status": "failed", "errors": {"object": "list", "data": self.failure}}
        elif batch["status"] == "validating" and self.fails_above is not None and n_requests > self.fails_above:
            full = {
                "code": "token_limit_exceeded",
                "message": "Enqueued token limit reached for fake in organization org-1.",
            }
            batch |= {"status": "failed", "errors": {"object": "list", "data": [full]}}
        elif batch["status"] == "in_progress" and self.outcome in {"expired", "cancelled"}:
            self._end(batch)
        elif batch["status"] in _BY_ITSELF:
            batch["status"] = _BY_ITSELF[batch["status"]]
        elif batch["status"] == "finalizing":
            self._end(batch)
        return 200, shown

    def _end(self, batch: dict[str, Any]) -> None:
        """Asks the profile for every answer, the last request first."""
        lines = [json.loads(line) for line in self.contents[batch["input_file_id"]].splitlines()][::-1]
        n_answered = len(lines) if self.n_answered is None else self.n_answered
        good, bad = [], []
        for number, line in enumerate(lines):
            reply = {"id": f"batch_req_{number}", "custom_id": line["custom_id"], "response": None, "error": None}
            if number >= n_answered:
                bad.append(reply | {"error": {"code": f"batch_{self.outcome}", "message": "This request could not be executed before the completion window expired."}})  # fmt: skip
                continue
            status, body, _ = self.fake.take(line["body"])
            reply["response"] = {"status_code": status, "request_id": f"req_{number}", "body": body}
            (good if status == 200 else bad).append(reply)
        batch["status"] = self.outcome
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}
        for name, replies in (("output_file_id", good), ("error_file_id", bad)):
            if replies:
                content = "".join(json.dumps(reply) + "\n" for reply in replies).encode()
                batch[name] = self._store(f"{batch['id']}_{name}.jsonl", content, "batch_output")["id"]


def _page(data: list[dict[str, Any]]) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"object": "list", "data": data, "has_more": False, **ends}


def _multipart(content: bytes, content_type: str) -> tuple[str, bytes]:
    """Name and content of the file in a form; its purpose must be ``batch``."""
    boundary = re.search(r'boundary="?([^";]+)', content_type).group(1).encode()
    parts = [part.strip(b"\r\n").partition(b"\r\n\r\n") for part in content.split(b"--" + boundary)[1:-1]]
    forms = {re.search(rb'name="([^"]+)"', head).group(1): (head, body) for head, _, body in parts}
    assert forms[b"purpose"][1] == b"batch"
    head, body = forms[b"file"]
    return re.search(rb'filename="([^"]+)"', head).group(1).decode(), body + b"\n"
