"""OpenAI's chat protocol in plain functions: requests, replies, addresses. Sends nothing."""

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from lssl_ray.errors import ConfigError

FORMATS = ("json_schema", "json_object", "text")

Message = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: The model's answer.
        problem: Why it is not worth reading; "" if it is.
        prompt_tokens: As the server says; 0 if it doesn't.
        completion_tokens: As the server says; 0 if it doesn't.
    """

    text: str
    problem: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _ChatMessage(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _ChatMessage
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _ChatCompletion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def parse_reply(body: str) -> Reply:
    """The body of a server's reply to text."""
    try:
        completion = _ChatCompletion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        return Reply("", f"the server's reply is no chat completion: {place} {first['msg']}")
    choice = completion.choices[0]
    text, problem = choice.message.content or "", ""
    if choice.finish_reason == "length":
        problem = "the answer was cut off (finish_reason length); lower --batch"
    elif choice.message.refusal or choice.finish_reason == "content_filter":
        problem = f"the model refused: {choice.message.refusal or 'content filter'}"
    elif not text:
        problem = "the answer is empty"
    usage = completion.usage or _Usage()
    return Reply(text, problem, usage.prompt_tokens, usage.completion_tokens)


def parse_host(base_url: str) -> str:
    """Host and port of a server's address.

    Raises:
        ConfigError: Not an HTTP address, or one that holds credentials.
    """
    try:
        parts = urlsplit(base_url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError as error:
        raise ConfigError(f"--base-url is no address: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("--base-url must look like https://HOST/v1 or http://127.0.0.1:8000/v1.")
    if "@" in parts.netloc or parts.query:
        raise ConfigError(
            "--base-url must not hold credentials or a query; put the key into the environment "
            "variable that --api-key-env names."
        )
    return f"{parts.hostname}{port}"


def parse_retry_after(value: str | None) -> float:
    """Seconds to wait by a Retry-After header, a number or a date; 0 for none or nonsense."""
    if value is None:
        return 0.0
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0


def build_request(
    messages: list[Message], schema: Mapping[str, Any], answer_format: str
) -> dict[str, Any]:
    """The part of a request's body that depends on one of `FORMATS`.

    A server that does not hold the model to the schema has it in the prompt.
    """
    if answer_format == "json_schema":
        json_schema = {"name": "answer", "strict": True, "schema": schema}
        return {
            "messages": messages,
            "response_format": {"type": "json_schema", "json_schema": json_schema},
        }
    system = f"{messages[0]['content']}\nIt must fit this JSON schema:\n{json.dumps(schema)}"
    request: dict[str, Any] = {"messages": [{"role": "system", "content": system}, *messages[1:]]}
    if answer_format == "json_object":
        request["response_format"] = {"type": "json_object"}
    return request
