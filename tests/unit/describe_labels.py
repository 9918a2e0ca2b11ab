"""Describing five labels with a server's help: what the tests of generation start from."""

import asyncio
from pathlib import Path

from chat_stub import (
    Body,
    Respond,
    Response,
    build_entry,
    describe_all,
)

from lssl_ray.generation.cache import AnswerCache
from lssl_ray.generation.generator import Failure, Generator
from lssl_ray.generation.questions import Entries
from lssl_ray.generation.server import ChatServer, Counts

LABELS = ("folding paper", "tying a knot", "kneading dough", "waving", "jumping rope")
KEY = "sk-very-secret-0123456789"


def describe(
    url: str,
    folder: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    batch: int = 2,
    concurrency: int = 1,
    max_retries: int = 2,
    timeout: float = 20.0,
    api_key: str | None = None,
    notes: list[str] | None = None,
) -> tuple[Entries, list[Failure], Counts]:
    """Describe labels with a server's help, without pauses between retries."""

    async def run() -> tuple[Entries, list[Failure], Counts]:
        server = ChatServer(
            url,
            model="stub",
            api_key=api_key,
            max_retries=max_retries,
            timeout_seconds=timeout,
            backoff_seconds=0.0,
            on_note=(notes if notes is not None else []).append,
        )
        async with server:
            generator = Generator(
                server, AnswerCache(folder, model="stub"), concurrency=concurrency
            )
            entries = await generator.describe(labels, batch=batch, num_static=4, num_dynamic=2)
        return entries, generator.failures, server.counts

    return asyncio.run(run())


def fail_first(*responses: Response) -> Respond:
    """The given responses, then good ones."""

    def respond(body: Body, number: int) -> Response:
        return responses[number] if number < len(responses) else describe_all(body)

    return respond


def expected_entries(labels: tuple[str, ...] = LABELS) -> Entries:
    entries = [build_entry(label) for label in labels]
    return {entry.pop("label"): entry for entry in entries}
