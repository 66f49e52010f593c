"""One chat request at a time to any OpenAI-compatible server: dialects, the spend limit, errors in one line.

Retries with back-off are the openai client's own; there is no second layer. ``sending`` counts what they may cost.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, TypeVar

from distill.data import canonical_json
from distill.errors import TeacherError, first_line, missing_extra
from distill.progress import say
from distill.scrub import without_key, without_secrets
from distill.teacher.endpoint import api_key, endpoint_of, shown_endpoint
from distill.teacher.likelihood import TOP_LOGPROBS, read_tokens
from distill.teacher.sending import Charge, NotSentAgainError, Sending, http_client
from distill.types import Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import TracebackType

    from openai import AsyncOpenAI

    from distill.spec import TeacherSpec
    from distill.teacher.likelihood import Token
    from distill.teacher.prices import Budget

__all__ = [
    "DIALECTS",
    "ChatClient",
    "Dialect",
    "Reply",
    "Request",
    "RequestFailedError",
    "characters_of",
    "read_completion",
    "unusable",
]

_T = TypeVar("_T")
_CUT_OFF = "length"
_OF_THE_QUERY = re.compile(r"moderation|flagged|content[ _-](policy|filter|management)|safety (system|policy)")
"""What a 403 says that refuses what was asked, and not who asks."""
_FILTERED = re.compile(r"content_filter|content management policy|responsibleai")
"""What a 400 of Azure's content filter says; Azure bills for its tokens."""
_EFFORT_REFUSED = re.compile(r"(unsupported|invalid)[ _]value|supported values")
"""What a 400 about reasoning_effort says where the model takes others."""
_NO_COMPLETION = "the server's reply is not a chat completion"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server takes. A refused parameter is dropped once for the whole run, said, and part of the prompt's hash.

    Attributes:
        response_format: ``json_schema``, ``json_object`` or ``text``.
        temperature: Whether a temperature is sent; reasoning models refuse it.
        logprobs: Whether log-probabilities are asked for, where they are wanted.
        reasoning_effort: Whether ``teacher.reasoning_effort`` is sent, where it is set; models that do not reason refuse it.
    """

    response_format: str = "json_schema"
    temperature: bool = True
    logprobs: bool = True
    reasoning_effort: bool = True


DIALECTS = tuple(
    Dialect(response_format, temperature, logprobs, reasoning_effort)
    for reasoning_effort in (True, False)
    for logprobs in (True, False)
    for temperature in (True, False)
    for response_format in ("json_schema", "json_object", "text")
)
"""Every dialect, the preferred one first: a recording made in any of them is found again."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        messages: Pairs of role and content.
        schema: JSON schema of the answer, or None for free text.
        temperature: None leaves it to the server.
        max_output_tokens: Upper bound of the answer's length.
        logprobs: Whether the log-probabilities of the answer's tokens are wanted.
        shown: The labels that may be answered, where the schema does not say it; none: all of them.
    """

    messages: tuple[tuple[str, str], ...]
    schema: dict[str, Any] | None
    temperature: float | None
    max_output_tokens: int
    logprobs: bool = False
    shown: tuple[str, ...] = ()

    @property
    def prompt_bytes(self) -> int:
        """What its prompt has at most in tokens: one is at least a byte."""
        schema = "" if self.schema is None else canonical_json(self.schema)
        return sum(len(content.encode()) + 16 for _, content in self.messages) + len(schema.encode())

    @property
    def characters(self) -> int:
        """About how long its prompt is. The schema is billed as part of it."""
        return characters_of(self.messages, self.schema)


def characters_of(messages: Iterable[tuple[str, str]], schema: dict[str, Any] | None) -> int:
    """As ``Request.characters`` has it."""
    return sum(len(content) for _, content in messages) + (0 if schema is None else len(canonical_json(schema)))


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        content: The answer.
        usage: Its tokens.
        latency_ms: From sending to having the answer, with other requests in flight.
        dialect: In which it was given.
        cut_off: Whether it was longer than allowed.
        tokens: Those of the answer, where log-probabilities were wanted and given.
        unanswered_usd: As ``Charge`` has it.
    """

    content: str
    usage: Usage
    latency_ms: float
    dialect: Dialect
    cut_off: bool
    tokens: tuple[Token, ...] = ()
    unanswered_usd: Decimal = Decimal(0)

    @property
    def charge(self) -> Charge:
        """What it came to."""
        return Charge(self.usage, self.latency_ms, self.unanswered_usd)


class RequestFailedError(TeacherError):
    """One request failed for good; the run may go on with the next query.

    Attributes:
        usage: Tokens that the server counted all the same; None where nothing was answered.
        latency_ms: As ``Reply`` has it, where tokens were counted; else None.
        unanswered_usd: As ``Charge`` has it.
        of_query: Whether it may speak of this query alone: it was refused for what it says, or brought an answer, if an unusable one.
    """

    def __init__(self, message: str, usage: Usage | None = None, *, of_query: bool = False) -> None:
        super().__init__(message)
        self.usage = None if usage is None or usage.prompt_tokens is None else usage
        self.of_query = of_query or self.usage is not None
        self.latency_ms: float | None = None
        self.unanswered_usd = Decimal(0)

    @property
    def charge(self) -> Charge:
        """What it came to all the same."""
        return Charge(self.usage, self.latency_ms, self.unanswered_usd)


@contextmanager
def _settings_of_the_environment() -> Iterator[None]:
    """Says where to look when a client cannot be made; not what was found, as the address of a proxy may hold a password.

    Raises:
        TeacherError: A proxy or the certificates of the environment cannot be used.
    """
    from httpx2 import InvalidURL

    try:
        yield
    except (ImportError, ValueError, OSError, InvalidURL) as error:
        needs = "; a SOCKS proxy needs: pip install socksio" if isinstance(error, ImportError) else ""
        raise TeacherError(
            f"no connection can be made with what the environment says of proxies and certificates ({type(error).__name__}): see to "
            f"HTTP_PROXY, HTTPS_PROXY, ALL_PROXY (such as http://host:3128) and SSL_CERT_FILE (a file of certificates){needs}"
        ) from None


class ChatClient:
    """Asks one model. To be used as an async context manager.

    Args:
        teacher: Endpoint, key's variable and limits.
        model: Name of the model.
        budget: Is asked before each request.
        dialect: Where to start from; the recording's own, so that a resumed run does not probe again.

    Raises:
        MissingKeyError: The key's variable is not set, and the endpoint is not on this machine.
        MissingExtraError: The package openai is not installed.
        TeacherError: Opened, it cannot use a proxy or the certificates that the environment names.
    """

    def __init__(self, teacher: TeacherSpec, model: str, budget: Budget, dialect: Dialect) -> None:
        self.teacher, self.model, self.budget, self.dialect = teacher, model, budget, dialect
        self._length_parameter = "max_tokens" if endpoint_of(teacher.base_url) else "max_completion_tokens"
        self._said: set[str] = set()
        self._has_answered = False
        self._hopeless: str | None = None
        self._key = api_key(teacher)
        self._unanswered_before_usd = budget.unanswered_usd
        self._client: AsyncOpenAI | None = None

    async def __aenter__(self) -> Self:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise missing_extra("openai") from error
        with _settings_of_the_environment():
            self._client = AsyncOpenAI(
                api_key=self._key,
                base_url=self.teacher.base_url,
                timeout=self.teacher.timeout_s,
                max_retries=self.teacher.max_retries,
                http_client=http_client(),
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
        self._say_what_may_be_billed()
        if error is None and self._hopeless is not None:  # no request came after it that would have met it
            raise TeacherError(self._hopeless)

    def _say_what_may_be_billed(self) -> None:
        if lost_usd := self.budget.unanswered_usd - self._unanswered_before_usd:
            say(
                f"{self.model}: requests without an answer may be billed all the same, with USD {lost_usd:.4f} at most; "
                "that counts towards teacher.max_usd, and is not in what was spent"
            )

    def body(self, request: Request) -> dict[str, Any]:
        """A request as it is sent, in the dialect that has been found so far."""
        return self._body(request, self.dialect, self._length_parameter)

    async def call(self, work: Callable[[AsyncOpenAI], Awaitable[_T]], *, not_found: str | None = None) -> _T:
        """Makes another call of the API than a chat request.

        Args:
            work: Is given the openai client.
            not_found: What a 404 means.

        Raises:
            RequestFailedError: It failed after the client's retries; it may succeed later.
            TeacherError: It cannot succeed.
        """
        from openai import APIConnectionError, NotFoundError, OpenAIError

        if self._client is None:
            raise TeacherError("the client is not open")
        try:
            return await work(self._client)
        except NotFoundError as error:
            raise TeacherError(not_found) if not_found is not None else self._explain(error) from None
        except APIConnectionError as error:
            raise RequestFailedError(str(self._explain(error))) from None
        except (AttributeError, TypeError, ValueError):
            raise TeacherError(
                not_found or f"{shown_endpoint(self.teacher.base_url)}: the reply is not what the API says"
            ) from None
        except OpenAIError as error:
            # No cause: its text may hold what the server echoed, the key included.
            raise self._explain(error) from None

    async def ask(self, request: Request) -> Reply:
        """Sends a request, in simpler dialects where the server refuses a parameter.

        Raises:
            RequestFailedError: This request failed after the client's retries.
            TeacherError: No request can succeed: the key is refused, the model does not exist, nothing listens.
            SpendLimitError: It could exceed the spend limit; nothing was sent.
        """
        from openai import OpenAIError

        if self._hopeless is not None:
            raise TeacherError(self._hopeless)
        with Sending(self.budget, request.prompt_bytes, request.max_output_tokens) as sending:
            try:
                reply = await self._send_adapting(request, sending)
            except (OpenAIError, RequestFailedError, NotSentAgainError) as error:
                failed = self._failed(error, sending)
                # No cause: its text may hold what the server echoed, the key included.
                raise failed from None
            except asyncio.CancelledError:  # a second Ctrl-C: what may be billed is to be recorded all the same
                if not sending.unanswered_usd:
                    raise
                raise self._failed(RequestFailedError("left before an answer came"), sending) from None
            sending.usage, self._has_answered = reply.usage, True
        return replace(reply, unanswered_usd=sending.unanswered_usd)

    def _failed(self, error: Exception, sending: Sending) -> TeacherError:
        """What a request's error means, for the run."""
        from openai import PermissionDeniedError

        failed: TeacherError
        match error:
            case RequestFailedError():
                failed = error
            case NotSentAgainError():
                failed = RequestFailedError(str(error))
            case PermissionDeniedError() if (
                of_query := bool(_OF_THE_QUERY.search(_reason(error)))
            ) or self._has_answered:
                refusal = self.scrub(f"the server refused the request (403): {_shown_reason(error)}")
                failed = RequestFailedError(refusal, of_query=of_query)
            case _:
                failed = self._explain(error)
        if sending.unanswered_usd and not isinstance(failed, RequestFailedError):
            self._hopeless = str(failed)  # for the next request: what this one may be billed is to be recorded first
            failed = RequestFailedError(self._hopeless)
        if isinstance(failed, RequestFailedError):
            sending.usage, failed.unanswered_usd = failed.usage, sending.unanswered_usd
        return failed

    async def _send_adapting(self, request: Request, sending: Sending) -> Reply:
        """Sends a request, again without what the server refuses, until it is taken or nothing is left to drop."""
        from openai import BadRequestError, UnprocessableEntityError

        first = (self.dialect, self._length_parameter)
        tried: set[tuple[Dialect, str]] = set()
        while True:
            sent = (self.dialect, self._length_parameter)
            tried.add(sent)
            try:
                return await self._send(request, *sent, sending)
            except (BadRequestError, UnprocessableEntityError) as error:
                reason, refusal = _reason(error), self.scrub(f"the server refused the request: {_shown_reason(error)}")
            # left out, it would be the model's own, which may cost more
            if "reasoning_effort" in reason and _EFFORT_REFUSED.search(reason):
                raise TeacherError(f"teacher.reasoning_effort {self.teacher.reasoning_effort!r}: {refusal}")
            # Another request may have found out meanwhile what this server refuses.
            if (self.dialect, self._length_parameter) in tried and not self._adapt(reason, tried):
                self.dialect, self._length_parameter = first  # nothing helped, so nothing is learnt about the server
                if _FILTERED.search(reason):
                    sending.lose()
                raise RequestFailedError(refusal, of_query=True)

    async def _send(self, request: Request, dialect: Dialect, length_parameter: str, sending: Sending) -> Reply:
        if self._client is None:
            raise TeacherError("the client is not open")
        started = time.perf_counter()
        try:
            completion = await self._client.chat.completions.create(**self._body(request, dialect, length_parameter))
        except ValueError:
            sending.lose()
            raise RequestFailedError("the server's reply is not JSON") from None
        latency_ms = (time.perf_counter() - started) * 1000
        try:
            content, usage, cut_off, tokens = self.read(completion)
        except RequestFailedError as error:
            error.latency_ms = None if error.usage is None else latency_ms
            raise
        if request.logprobs and dialect.logprobs and content and not tokens:
            dialect = self.dialect = replace(dialect, logprobs=False)
            self._say_once(f"{self.model}: the server gives no log-probabilities; its answers count as they stand")
        return Reply(content, usage, latency_ms, dialect, cut_off, tokens)

    def _body(self, request: Request, dialect: Dialect, length_parameter: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": content} for role, content in request.messages],
            length_parameter: request.max_output_tokens,
        }
        if dialect.temperature and request.temperature is not None:
            body["temperature"] = request.temperature
        if dialect.logprobs and request.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        effort = self.teacher.reasoning_effort if self.model == self.teacher.model else None
        if dialect.reasoning_effort and effort is not None:
            body["reasoning_effort"] = effort
        if request.schema is not None and dialect.response_format != "text":
            body["response_format"] = _response_format(request.schema, dialect.response_format)
        return body

    def _adapt(self, reason: str, tried: set[tuple[Dialect, str]]) -> bool:
        """Drops what the server refuses. True when another try makes sense."""
        for dialect, length_parameter, note in self._simpler(reason):
            if (dialect, length_parameter) not in tried:
                self.dialect, self._length_parameter = dialect, length_parameter
                self._say_once(f"{self.model}: {note}")
                return True
        return False

    def _simpler(self, reason: str) -> Iterator[tuple[Dialect, str, str]]:
        """Ways to ask that leave out what the server's message names."""
        dialect, parameter = self.dialect, self._length_parameter
        if "max_completion_tokens" in reason or "max_tokens" in reason:
            other = "max_tokens" if parameter == "max_completion_tokens" else "max_completion_tokens"
            yield dialect, other, f"the server refuses {parameter}; sending {other}"
        if "temperature" in reason and dialect.temperature:
            yield replace(dialect, temperature=False), parameter, "the server refuses temperature; leaving it out"
        if "logprobs" in reason and dialect.logprobs:
            yield (
                replace(dialect, logprobs=False),
                parameter,
                "the server refuses logprobs; its answers count as they stand",
            )
        if "reasoning_effort" in reason and dialect.reasoning_effort:
            yield (
                replace(dialect, reasoning_effort=False),
                parameter,
                "the server refuses reasoning_effort; leaving it out",
            )
        if any(word in reason for word in ("response_format", "schema", "json_object", "grammar")):
            kind = {"json_schema": "json_object", "json_object": "text"}.get(dialect.response_format)
            if kind is not None:
                note = f"the server refuses response_format {dialect.response_format}; asking for {kind}"
                yield replace(dialect, response_format=kind), parameter, note

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            say(message)

    def _explain(self, error: Exception) -> TeacherError:
        """One clear line. ``TeacherError`` itself when no request can succeed, otherwise ``RequestFailedError``."""
        import openai

        where, variable = shown_endpoint(self.teacher.base_url), self.teacher.api_key_env
        said = self.scrub(_shown_reason(error))
        match error:
            case openai.AuthenticationError():  # what the server says may show part of the key
                hopeless = f"the API key in {variable} was refused (401); check {variable}"
            case openai.PermissionDeniedError():
                hopeless = f"the API key in {variable} may not do this (403): {said}; check its rights, and the model's name ({self.model!r})"
            case openai.NotFoundError():
                hopeless = f"not found (404): {said}; check the model's name ({self.model!r}) and that base_url ends right (often /v1)"
            case openai.RateLimitError() if "insufficient_quota" in _reason(error):
                hopeless = f"the account's quota is used up (429): {said}; everything answered is kept"
            case openai.RateLimitError():
                return RequestFailedError(
                    f"the server asks to slow down (429): {said}; ask it fewer at a time (teacher.concurrency), or wait where it speaks of a quota"
                )
            case openai.APITimeoutError():
                return RequestFailedError(f"no answer within {self.teacher.timeout_s:g} s (teacher.timeout_s)")
            case openai.APIConnectionError():
                hopeless = f"cannot be reached ({self.scrub(_root_of(error))}); is the server up, and base_url right? Everything answered is kept"
            case _:
                status = getattr(error, "status_code", None)
                what = f"the server answered {status}" if status else type(error).__name__
                return RequestFailedError(f"{what}: {said}")
        return TeacherError(f"{where}: {hopeless}")

    def read(self, completion: Any) -> tuple[str, Usage, bool, tuple[Token, ...]]:
        """As ``read_completion``, the content without the key: a server may echo what it was sent in an answer too.

        Raises:
            RequestFailedError: It is no chat completion.
        """
        content, usage, cut_off, tokens = read_completion(completion)
        return without_key(content, self._key), usage, cut_off, tokens

    def scrub(self, message: str) -> str:
        """A message without secrets and on one line; servers may echo what they were sent."""
        return without_secrets(message, self._key)


def read_completion(completion: Any) -> tuple[str, Usage, bool, tuple[Token, ...]]:
    """Content, usage, whether the answer was cut off, and its tokens where given, of a chat completion as openai's client gives it.

    Raises:
        RequestFailedError: It is none; if the server counted its tokens, it was paid for all the same.
    """
    usage = _usage(getattr(completion, "usage", None))
    content: Any
    try:
        choice = completion.choices[0]
        content, cut_off = choice.message.content, choice.finish_reason == _CUT_OFF
    except (AttributeError, LookupError, TypeError):
        raise RequestFailedError(_NO_COMPLETION, usage) from None
    if not isinstance(content, str | None):
        raise RequestFailedError(_NO_COMPLETION, usage)
    return content or "", usage, cut_off, read_tokens(choice)


def unusable(problem: ValueError, usage: Usage, *, cut_off: bool) -> str:
    """What is wrong with an answer, as the ledger says it."""
    return (
        f"{f'cut off after {usage.completion_tokens} tokens (teacher.max_output_tokens): ' if cut_off else ''}{problem}"
    )


def _response_format(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _reason(error: Exception) -> str:
    """All that the server said, in lower case, whatever shape its error has: the code may stand beside the message."""
    return f"{error} {canonical_json(getattr(error, 'body', None))}".lower()


def _root_of(error: BaseException) -> str:
    """What lies at the bottom of a connection that failed, such as a certificate that nobody here trusts."""
    while (cause := error.__cause__) is not None:
        error = cause
    return first_line(error)


def _shown_reason(error: Exception) -> str:
    """What the server said, for people. openai's own text is empty where the error has not OpenAI's shape."""
    body = getattr(error, "body", None)
    message = str(error)
    if body is None or " - " in message:
        return message
    return f"{message} - {body if isinstance(body, str) else canonical_json(body)}"


def _usage(counted: Any) -> Usage:
    """What the server counted. Some leave reasoning out of the answer's tokens, and count it in the total alone."""
    details = getattr(counted, "prompt_tokens_details", None)
    prompt, completion, total = (_count(counted, f"{each}_tokens") for each in ("prompt", "completion", "total"))
    if prompt is not None and total is not None and total - prompt > (completion or 0):
        completion = total - prompt
    return Usage(prompt, completion, _count(details, "cached_tokens"))


def _count(counted: Any, name: str) -> int | None:
    value = getattr(counted, name, None)
    return value if isinstance(value, int) and value >= 0 else None
