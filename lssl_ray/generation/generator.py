"""Asks until every label is there and valid, or the attempts are used up; loses nothing valid."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from lssl_ray.generation.answers import fold
from lssl_ray.generation.cache import AnswerCache
from lssl_ray.generation.frames import Clip, FrameReader
from lssl_ray.generation.protocol import Message
from lssl_ray.generation.questions import (
    LABELS_PER_THEME_REQUEST,
    SYSTEM,
    Entries,
    Question,
    build_describe_question,
    build_theme_question,
    build_video_question,
)
from lssl_ray.generation.server import ChatServer, RequestError
from lssl_ray.video.isolation import DecodeError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Failure:
    """Something asked for that did not come.

    Attributes:
        kind: What it is: a label without descriptions, labels of a theme, a clip without labels.
        name: The label, the theme or the video_id.
        reason: Why, in one line.
    """

    kind: Literal["label", "theme", "clip"]
    name: str
    reason: str


class Generator:
    """Labels and descriptions from one server, through one cache.

    Args:
        server: Who is asked.
        cache: What was answered before.
        concurrency: Questions under way at a time.
        max_attempts: Answers asked for until a question is given up.
        on_count: Told of progress: done, total.
    """

    def __init__(
        self,
        server: ChatServer,
        cache: AnswerCache,
        *,
        concurrency: int,
        max_attempts: int = 3,
        on_count: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.failures: list[Failure] = []
        self._server = server
        self._cache = cache
        self._semaphore = asyncio.Semaphore(concurrency)
        self._max_attempts = max_attempts
        self._on_count = on_count

    async def describe(
        self, labels: Sequence[str], *, batch: int, num_static: int, num_dynamic: int
    ) -> Entries:
        """Phrases for each label, in the order given; without those that failed."""

        async def describe_some(some: Sequence[str]) -> Entries:
            question = build_describe_question(some, num_static=num_static, num_dynamic=num_dynamic)
            entries, reason = await self._ask(question)
            missing = [label for label in some if label not in entries]
            self.failures += [Failure("label", label, reason) for label in missing]
            return entries

        parts = await self._run_all(describe_some, split_batches(labels, batch))
        entries = {label: phrases for part in parts for label, phrases in part.items()}
        return {label: entries[label] for label in labels if label in entries}

    async def name_theme(self, theme: str, *, count: int) -> list[str]:
        """Up to `count` labels on a theme: one request after the other, each knowing the last."""
        labels: list[str] = []
        while len(labels) < count:
            wanted = min(LABELS_PER_THEME_REQUEST, count - len(labels))
            question = build_theme_question(theme, count=wanted, known=labels)
            entries, reason = await self._ask(question)
            labels += entries
            self._on_count(len(labels), count)
            if len(entries) < wanted:
                short = f"{len(labels)} of {count} labels: {reason}"
                self.failures.append(Failure("theme", theme, short))
                break
        return labels

    async def name_clips(
        self, clips: Sequence[Clip], *, reader: FrameReader, num_frames: int
    ) -> list[str]:
        """The labels that a multimodal model gives clips, most frequent first, each once."""
        decoding = asyncio.Lock()  # the reader serves one at a time

        async def name_one(clip: Clip) -> Entries:
            try:
                async with decoding:
                    images = await asyncio.to_thread(reader.read, clip, num_frames=num_frames)
            except DecodeError as error:
                self.failures.append(
                    Failure("clip", clip.video_id, f"{error.reason}: {error.detail}")
                )
                return {}
            entries, reason = await self._ask(build_video_question(images))
            if reason:
                self.failures.append(Failure("clip", clip.video_id, reason))
            return entries

        parts = await self._run_all(name_one, clips)
        return merge_labels([label for part in parts for label in part])

    async def _run_all(
        self, work: Callable[[Item], Awaitable[Entries]], items: Sequence[Item]
    ) -> list[Entries]:
        """Results in order, `concurrency` at work at a time."""
        num_done = 0

        async def run(item: Item) -> Entries:
            nonlocal num_done
            async with self._semaphore:
                entries = await work(item)
            num_done += 1
            self._on_count(num_done, len(items))
            return entries

        return await asyncio.gather(*map(run, items))

    async def _ask(self, question: Question) -> tuple[Entries, str]:
        """What was accepted, and why the rest was not ("" when nothing is missing)."""
        entries: Entries = {}
        remaining = ""
        if (known := self._cache.load(question)) is not None:
            entries, remaining = known.entries, known.remaining
            if not remaining:
                self._server.counts.cached += 1
                return entries, ""
        messages = build_messages(question, remaining)
        problems: tuple[str, ...] = ()
        for _ in range(self._max_attempts):
            try:
                reply = await self._server.ask(messages, schema=question.schema)
            except RequestError as error:
                return entries, str(error)
            if reply.problem:
                problems = (reply.problem,)
            else:
                reading = question.read(reply.text, entries)
                problems, remaining = reading.problems, reading.remaining
                if len(reading.entries) > len(entries) or not remaining:
                    self._cache.save(question, reading.entries)
                entries = reading.entries
            self._server.counts.invalid += bool(problems)
            if not reply.problem and not remaining:
                return entries, ""
            shown = "" if reply.problem else reply.text
            messages = build_messages(question, remaining, problems=problems, answer=shown)
        return entries, f"{self._max_attempts} invalid answers, the last: {'; '.join(problems)}"


def build_messages(
    question: Question, remaining: str, *, problems: Sequence[str] = (), answer: str = ""
) -> list[Message]:
    """The conversation: the question and, after a bad answer, what was wrong with it.

    Args:
        question: What is asked.
        remaining: What must still come; empty for all.
        problems: Of the last answer.
        answer: The last answer's text, if it is worth showing.
    """
    content: Any = question.prompt
    if question.images:
        content = [{"type": "text", "text": question.prompt}]
        content += [
            {"type": "image_url", "image_url": {"url": build_data_url(image)}}
            for image in question.images
        ]
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    if answer:
        messages.append({"role": "assistant", "content": answer})
    lines = [f"- {problem}" for problem in problems]
    if lines:
        lines = ["Your last answer had these problems:", *lines]
    if remaining:
        lines.append(f"Answer in the same form, but only for what is still missing: {remaining}")
    elif lines:
        lines.append("Answer again, in the form asked for.")
    if lines:
        messages.append({"role": "user", "content": "\n".join(lines)})
    return messages


def build_data_url(image: bytes) -> str:
    """A JPEG file as a `data:` URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode('ascii')}"


def split_batches(labels: Sequence[str], batch: int) -> list[Sequence[str]]:
    """Consecutive groups of `batch` labels; the last may be smaller."""
    return [labels[start : start + batch] for start in range(0, len(labels), batch)]


def merge_labels(labels: Sequence[str]) -> list[str]:
    """Each label once, in its first spelling: most frequent first, then by name."""
    spellings: dict[str, str] = {}
    counts: dict[str, int] = {}
    for label in labels:
        key = fold(label)
        spellings.setdefault(key, label)
        counts[key] = counts.get(key, 0) + 1
    return [spellings[key] for key in sorted(counts, key=lambda key: (-counts[key], key))]
