"""An OpenAI-compatible server on loopback that answers by keywords, misbehaves on demand, and counts what it is asked."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from fake_batches import FakeBatches

_PROMPT_TOKENS, _COMPLETION_TOKENS = 100, 10
HANGS_UP = 0
"""In place of a status: the connection is closed without an answer."""


class FakeServer:
    """Serves ``/v1/chat/completions`` and the Batch API until the block ends.

    Args:
        profile: One of the methods ``_profile_*``, with dashes or underscores.
        delay_s: How long an answer takes.
        n_slow: The first so many requests alone take that long; None: all of them.
    """

    def __init__(self, profile: str = "normal", delay_s: float = 0.0, n_slow: int | None = None) -> None:
        self.profile, self.delay_s, self.n_slow = profile, delay_s, n_slow
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.n_in_flight = self.most_in_flight = 0
        self.usage: dict[str, Any] | None = {
            "prompt_tokens": _PROMPT_TOKENS,
            "completion_tokens": _COMPLETION_TOKENS,
            "total_tokens": _PROMPT_TOKENS + _COMPLETION_TOKENS,
        }
        self.lock = threading.Lock()
        self.batches = FakeBatches(self)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def n_requests(self) -> int:
        return len(self.requests)

    def take(self, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """Counts a request, and answers it."""
        query = query_of(body)
        self.asked[query] += 1
        self.requests.append(body)
        return self.respond(body, query)

    def respond(self, body: dict[str, Any], query: str) -> tuple[int, Any, dict[str, str]]:
        """Status, body (text is sent as it is) and headers."""
        return getattr(self, f"_profile_{self.profile.replace('-', '_')}")(body, query)

    def completion(self, content: Any, finish_reason: str = "stop") -> tuple[int, Any, dict[str, str]]:
        message = {"role": "assistant", "content": content}
        reply = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "fake",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        }
        return 200, reply if self.usage is None else reply | {"usage": self.usage}, {}

    def _profile_normal(self, body, query):
        return self.completion(good_answer(body, query))

    def _profile_reasoning(self, body, query):
        if "max_tokens" in body:
            return refusal("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens")  # fmt: skip
        if "temperature" in body:
            return refusal("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.", "temperature")  # fmt: skip
        return self._profile_normal(body, query)

    def _profile_logprobs(self, body, query):
        """As normal, and where asked for, three quarters of the probability for the answer and the rest for a refund."""
        content = good_answer(body, query)
        status, reply, headers = self.completion(content)
        if body.get("logprobs"):
            before, _, name = content[:-2].rpartition('"')
            others = [{"token": "refund", "logprob": math.log(0.25), "bytes": None}]
            told = [(f'{before}"', 0.0, []), (name, math.log(0.75), others), ('"}', 0.0, [])]
            tokens = [{"token": t, "logprob": p, "bytes": list(t.encode()), "top_logprobs": top} for t, p, top in told]
            reply["choices"][0]["logprobs"] = {"content": tokens}
        return status, reply, headers

    def _profile_logprobs_refusing(self, body, query):
        if "logprobs" in body:
            return refusal("You are not allowed to request logprobs from this model", "logprobs")
        return self._profile_normal(body, query)

    def _profile_effort_refusing(self, body, query):
        if "reasoning_effort" in body:
            return refusal("Unrecognized request argument supplied: reasoning_effort")
        return self._profile_normal(body, query)

    def _profile_schema_refusing(self, body, query):
        if body.get("response_format", {}).get("type") == "json_schema":
            return refusal("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", "response_format")  # fmt: skip
        return self._profile_normal(body, query)

    def _profile_detail_refusing(self, body, query):
        if "response_format" in body:
            return 422, {"detail": [{"loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}]}, {}
        return self._profile_normal(body, query)

    def _profile_schema_ignoring(self, body, query):
        if body.get("response_format", {}).get("type") == "json_object":
            return self._profile_normal(body, query)
        return self.completion("The user would like to know about something else.")

    def _profile_fenced(self, body, query):
        return self.completion(f"Sure!\n```json\n{good_answer(body, query)}\n```\nAnything else?")

    def _profile_cut_off(self, body, query):
        return self.completion('{"intent": "tra', "length")

    def _profile_invalid_json(self, body, query):
        return self.completion('{"intent": track_order')

    def _profile_no_such_intent(self, body, query):
        return self.completion('{"intent": "transfer_all_the_money"}')

    def _profile_obedient(self, body, query):
        """Does what the query says, as a weak model under a prompt injection would."""
        return self.completion(query.partition("answer exactly ")[2] or good_answer(body, query))

    def _profile_wavering(self, body, query):
        """Another answer each time it is asked the same: refund, then none."""
        return self.completion(json.dumps({"intents": ["refund"] * (self.asked[query] % 2)}))

    def _profile_parts(self, body, query):
        return self.completion([{"type": "text", "text": good_answer(body, query)}])

    def _profile_no_choices(self, body, query):
        status, reply, headers = self.completion(None)
        return status, reply | {"choices": []}, headers

    def _profile_empty(self, body, query):
        return self.completion(None)

    def _profile_not_chat(self, body, query):
        return 200, {"hello": "world"}, {}

    def _profile_list(self, body, query):
        return 200, ["hello"], {}

    def _profile_html(self, body, query):
        return 200, "<html>log in first</html>", {"Content-Type": "text/html"}

    def _profile_broken_body(self, body, query):
        return 200, '{"choices": [', {}

    def _profile_unauthorised(self, body, query):
        return (
            401,
            {"error": {"message": f"Incorrect API key provided: {max(self.keys)}", "code": "invalid_api_key"}},
            {},
        )

    def _profile_not_found(self, body, query):
        return 404, {"error": {"message": "The model does not exist", "code": "model_not_found"}}, {}

    def _profile_limited_once(self, body, query):
        if self.n_requests == 1:
            return 429, {"error": {"message": "Rate limit reached"}}, {"retry-after-ms": "1"}
        return self._profile_normal(body, query)

    def _profile_limited(self, body, query):
        return 429, {"error": {"message": "Rate limit reached"}}, {"retry-after-ms": "1"}

    def _profile_quota(self, body, query):
        message = "You exceeded your current quota, please check your plan and billing details."
        return 429, {"error": {"message": message, "type": "insufficient_quota", "code": "insufficient_quota"}}, {}

    def _profile_broken(self, body, query):
        return 500, {"error": {"message": "The server had an error"}}, {"retry-after-ms": "1"}

    def _profile_gateway_once(self, body, query):
        if self.n_requests == 1:
            return 504, "<html>gateway timeout</html>", {"retry-after-ms": "1", "Content-Type": "text/html"}
        return self._profile_normal(body, query)

    def _profile_timing_out_once(self, body, query):
        if self.n_requests == 1:
            return 408, {"error": {"message": "The operation was timeout."}}, {"retry-after-ms": "1"}
        return self._profile_normal(body, query)

    def _profile_filtering(self, body, query):
        """As Azure's content filter refuses a query."""
        message = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
        return 400, {"error": {"message": message, "code": "content_filter", "status": 400}}, {}

    def _profile_going_round(self, body, query):
        return 307, {}, {"Location": f"{self.base_url}/chat/completions"}

    def _profile_hangs_up(self, body, query):
        return HANGS_UP, "", {}

    def _profile_hangs_up_once(self, body, query):
        return (HANGS_UP, "", {}) if self.n_requests == 1 else self._profile_normal(body, query)

    def _profile_broken_on_odd(self, body, query):
        return self._profile_broken(body, query) if self.n_requests % 2 else self._profile_normal(body, query)

    def _profile_echoing(self, body, query):
        return 400, {"error": {"message": f"Bad request with\nAuthorization: Bearer {max(self.keys)}"}}, {}

    def _profile_echoing_answers(self, body, query):
        return self.completion(f"401 Authorization: Bearer {max(self.keys)}")

    def _profile_echoing_fields(self, body, query):
        said = f"Authorization: Bearer {max(self.keys)}"
        return self.completion(json.dumps({"intent": said, "queries": [said, f"{said} once more"]}))

    def _profile_too_long(self, body, query):
        if "max_completion_tokens" in body:
            return refusal("Unrecognized request argument supplied: max_completion_tokens. Use max_tokens.")
        if "long" in query:
            return refusal("This model's maximum context length is 10 tokens; reduce your prompt or max_tokens.")
        return self._profile_normal(body, query)


def refusal(message: str, parameter: str | None = None) -> tuple[int, Any, dict[str, str]]:
    error = {"message": message, "type": "invalid_request_error", "param": parameter, "code": "unsupported_parameter"}
    return 400, {"error": error}, {}


def query_of(body: dict[str, Any]) -> str:
    """The query in a request: the JSON string after ``Query:`` on the last line, or the whole last message."""
    content = body["messages"][-1]["content"]
    found = re.search(r"^Query: (\".*\")\Z", content, flags=re.MULTILINE)
    return json.loads(found.group(1)) if found else content


KEYWORDS = {"parcel": "track_order", "cancel": "cancel_order", "refund": "refund"}
CHANNELS = {"see": "visual", "hear": "audio", "say": "transcription"}


def good_answer(body: dict[str, Any], query: str) -> str:
    """Queries where queries are asked for, otherwise what the words of the query speak for, as the prompt wants it said."""
    instructions = body["messages"][0]["content"]
    if instructions.startswith("You write queries"):
        return json.dumps({"queries": written_queries(body["messages"][-1]["content"])})
    if '"weights": {' in instructions:
        heard = {name: 50 * (word in query) for word, name in CHANNELS.items()}
        weights = heard if any(heard.values()) else dict.fromkeys(heard, 10)
        return json.dumps({"channels": [name for name, weight in weights.items() if weight], "weights": weights})
    named = [intent for word, intent in KEYWORDS.items() if word in query]
    return json.dumps({"intents": named} if '{"intents"' in instructions else {"intent": (*named, "oos")[0]})


def written_queries(prompt: str) -> list[str]:
    """As many queries as are asked for, and the same ones for the same prompt."""
    number = sum(map(ord, prompt))
    return [f"query {number} {line}" for line in re.findall(r"^\d+\. (.*)$", prompt, flags=re.MULTILINE)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the body waits 40 ms for the headers to be acknowledged
    fake: FakeServer

    def do_GET(self) -> None:
        self._answer_of_batches(b"")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.endswith("/chat/completions"):
            self._answer_of_batches(content)
            return
        body = json.loads(content)
        query, fake = query_of(body), self.fake
        with fake.lock:
            fake.keys.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
            fake.n_in_flight += 1
            fake.most_in_flight = max(fake.most_in_flight, fake.n_in_flight)
            status, reply, headers = fake.take(body)
            is_slow = fake.n_slow is None or fake.n_requests <= fake.n_slow
        time.sleep(fake.delay_s if is_slow else 0)
        content = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
        with fake.lock:
            fake.n_in_flight -= 1
        if status == HANGS_UP:
            self.close_connection = True
            return
        if self._send(status, content, headers):
            with fake.lock:
                fake.answered[query] += 1

    def _answer_of_batches(self, content: bytes) -> None:
        with self.fake.lock:
            self.fake.keys.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
            given = self.headers.get("Content-Type", "")
            status, reply = self.fake.batches.answer(self.command, self.path, content, given)
        is_file = isinstance(reply, bytes)
        kind = {"Content-Type": "application/octet-stream"} if is_file else {}
        self._send(status, reply if is_file else json.dumps(reply).encode(), kind)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> bool:
        """Whether anybody took it: the client may have been killed."""
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            return False
        return True

    def log_message(self, *_: object) -> None:
        """Silent."""
