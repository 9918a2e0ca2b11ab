"""A chat server that speaks OpenAI's protocol: retries, back-off, and simpler answer formats.

Not here: whether an answer is any good (`questions`), how many are under way (`generator`).
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from lssl_ray.errors import ConfigError, LsslError
from lssl_ray.generation.protocol import (
    FORMATS,
    Message,
    Reply,
    build_request,
    parse_host,
    parse_reply,
    parse_retry_after,
)

GIVE_UP_AFTER = 3  # requests in a row that used up their retries
MAX_BACKOFF_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 600.0


class RequestError(LsslError):
    """A request got no answer: retries used up, refused, or the server is given up."""


class _FormatRefusedError(LsslError):
    """The server refuses a request, perhaps for its `response_format`."""


@dataclass
class Counts:
    """What a run did; it ends up in the vocabulary's provenance.

    Attributes:
        requests: HTTP requests sent, those sent again included.
        cached: Questions that the cache answered completely.
        retries: Requests sent again after an error of server or network.
        refused_formats: Requests sent again because the server refused their answer format.
        invalid: Answers with something wrong in them.
        answers: Answers by the format they were asked for in; only `json_schema` is no fallback.
        prompt_tokens: As the server says; 0 if it doesn't.
        completion_tokens: As the server says; 0 if it doesn't.
    """

    requests: int = 0
    cached: int = 0
    retries: int = 0
    refused_formats: int = 0
    invalid: int = 0
    answers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FORMATS, 0))
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatServer:
    """Asks one model on one server.

    Args:
        base_url: Where `/chat/completions` lies below, e.g. `http://127.0.0.1:8000/v1`.
        model: The model's name there.
        api_key: Sent as bearer token, never written or shown; None sends no credentials.
        max_retries: Times a request is sent again after 408, 409, 429, 5xx, a time-out or a broken
            connection.
        timeout_seconds: Time for one request.
        backoff_seconds: Pause before the first retry; doubled each time, with jitter.
        on_note: Told, in one line, of what changes for the whole run.

    Raises:
        ConfigError: The URL is none or holds credentials, or the client library is not installed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        api_key: str | None,
        max_retries: int,
        timeout_seconds: float,
        backoff_seconds: float = 1.0,
        on_note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.host = parse_host(base_url)
        self.model = model
        self.counts = Counts()
        self._api_key = api_key
        self._max_retries = max_retries
        self._timeout_seconds = timeout_seconds
        self._backoff_seconds = backoff_seconds
        self._on_note = on_note
        self._format = FORMATS[0]
        self._num_gave_up = 0
        self._stopped = ""
        try:
            import openai
        except ImportError as error:
            raise ConfigError(
                "Generation needs the client library `openai`; install it with "
                "`pip install 'lssl_ray[generate]'`."
            ) from error
        self._openai = openai
        authorization = openai.omit if api_key is None else f"Bearer {api_key}"
        self._headers = {"Authorization": authorization}
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout_seconds, max_retries=0
        )

    async def __aenter__(self) -> "ChatServer":
        """Returns itself; connects to nothing yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes all connections."""
        await self._client.close()

    async def ask(self, messages: list[Message], *, schema: Mapping[str, Any]) -> Reply:
        """One answer in the strictest format that the server takes.

        Args:
            messages: The conversation, a system message first.
            schema: JSON schema of the answer.

        Raises:
            RequestError: There is no answer.
        """
        refusal = ""
        for answer_format in FORMATS[FORMATS.index(self._format) :]:
            self.counts.refused_formats += bool(refusal)
            try:
                body = await self._send(build_request(messages, schema, answer_format))
            except _FormatRefusedError as error:
                refusal = str(error)
                continue
            # Another request may have gone further down meanwhile.
            if FORMATS.index(answer_format) > FORMATS.index(self._format):
                self._on_note(
                    f"The server refuses answers as {self._format} ({refusal}); "
                    f"falling back to {answer_format}."
                )
                self._format = answer_format
            self.counts.answers[answer_format] += 1
            reply = parse_reply(body)
            self.counts.prompt_tokens += reply.prompt_tokens
            self.counts.completion_tokens += reply.completion_tokens
            return replace(reply, problem=self._clean(reply.problem))
        raise RequestError(f"The server refuses the request: {refusal}")

    async def _send(self, request: dict[str, Any]) -> str:
        """The body of the server's reply, after as many retries as it takes."""
        openai = self._openai
        for attempt in range(self._max_retries + 1):
            if self._stopped:
                raise RequestError(self._stopped)
            self.counts.requests += 1
            retry_after = 0.0
            try:
                reply = await asyncio.wait_for(
                    self._client.chat.completions.with_raw_response.create(
                        model=self.model, extra_headers=self._headers, **request
                    ),
                    self._timeout_seconds,
                )
                self._num_gave_up = 0
                return str(reply.text)
            except (asyncio.TimeoutError, openai.APITimeoutError):
                problem = f"no answer within {self._timeout_seconds:g} s (--timeout)"
            except openai.APIConnectionError as error:
                problem = f"no connection to {self.host} ({self._clean(error.__cause__ or error)})"
            except openai.APIStatusError as error:
                problem = self._clean(error)
                retry_after = parse_retry_after(error.response.headers.get("retry-after"))
                self._judge_status(error.status_code, problem, retry_after)
            if attempt < self._max_retries:
                self.counts.retries += 1
                pause = min(self._backoff_seconds * 2**attempt, MAX_BACKOFF_SECONDS)
                await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), retry_after))
        self._num_gave_up += 1
        gave_up = f"{self._max_retries + 1} tries (--max-retries), the last: {problem}"
        if self._num_gave_up >= GIVE_UP_AFTER:
            self._stopped = f"Not asked: {GIVE_UP_AFTER} requests in a row failed after {gave_up}"
        raise RequestError(f"No answer in {gave_up}")

    def _judge_status(self, status: int, problem: str, retry_after: float) -> None:
        """Returns for what may pass, raises for what won't."""
        if status in (401, 403, 404):  # the key, the model or the address: no request can succeed
            self._stopped = f"{problem}. Check --api-key-env, --model and --base-url."
            raise RequestError(self._stopped)
        if status in (400, 422):
            raise _FormatRefusedError(problem)
        if status not in (408, 409, 429) and status < 500:
            raise RequestError(problem)
        if retry_after > MAX_RETRY_AFTER_SECONDS:
            self._stopped = f"The server wants {retry_after:.0f} s of rest; start again then"
            raise RequestError(f"{self._stopped} ({problem})")

    def _clean(self, message: object) -> str:
        """One short line; servers are known to repeat the key in their errors."""
        text = " ".join(str(message).split())
        if self._api_key:
            text = text.replace(self._api_key, "***")
        return text[:300]
