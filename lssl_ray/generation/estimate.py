"""What a generation will ask, before it asks: an estimate in tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lssl_ray.generation.generator import split_batches
from lssl_ray.generation.questions import (
    LABELS_PER_THEME_REQUEST,
    MAX_LABELS_PER_CLIP,
    SYSTEM,
    Question,
    build_describe_question,
    build_theme_question,
    build_video_question,
)
from lssl_ray.generation.sources import Source

CHARACTERS_PER_TOKEN = 4
TYPICAL_LABEL = "doing something usual"
TYPICAL_PHRASE = "both hands holding a small object at chest height"


@dataclass(frozen=True)
class Estimate:
    """Requests of one kind and their size.

    Attributes:
        kind: What they ask for.
        requests: How many, if every answer is good.
        input_tokens: Characters of prompts and schemas divided by four, without images.
        output_tokens: Characters of typical answers divided by four.
        images: JPEG files sent; providers count them each in their own way.
        example: The first request's prompt.
    """

    kind: str
    requests: int
    input_tokens: int
    output_tokens: int
    images: int
    example: str


def estimate_source(
    source: Source, *, batch: int, num_static: int, num_dynamic: int
) -> list[Estimate]:
    """What naming and describing will ask; for clips as many labels as they can have at most."""
    plan, labels = [], list(source.labels)
    if source.theme:
        labels = build_typical_labels(source.count)
        known = range(0, source.count, LABELS_PER_THEME_REQUEST)
        questions = [
            build_theme_question(
                source.theme,
                count=min(LABELS_PER_THEME_REQUEST, source.count - start),
                known=labels[:start],
            )
            for start in known
        ]
        plan.append(_estimate("Naming", questions, num_labels=source.count))
    elif source.clips:
        num_clips = len(source.clips)
        labels = build_typical_labels(num_clips * MAX_LABELS_PER_CLIP)
        questions = [build_video_question([b""] * source.frames)] * num_clips
        plan.append(_estimate("Naming", questions, num_labels=len(labels)))
    questions = [
        build_describe_question(some, num_static=num_static, num_dynamic=num_dynamic)
        for some in split_batches(labels, batch)
    ]
    num_phrases = num_static + num_dynamic
    plan.append(_estimate("Describing", questions, num_labels=len(labels), num_phrases=num_phrases))
    return plan


def build_typical_labels(count: int) -> list[str]:
    """Stand-ins of usual length for labels that are not known yet."""
    return [f"{TYPICAL_LABEL} {number}" for number in range(count)]


def _estimate(
    kind: str, questions: Sequence[Question], *, num_labels: int, num_phrases: int = 0
) -> Estimate:
    characters = sum(
        len(SYSTEM) + len(question.prompt) + len(json.dumps(question.schema))
        for question in questions
    )
    answer = {"label": TYPICAL_LABEL, "phrases": [TYPICAL_PHRASE] * num_phrases}
    return Estimate(
        kind=kind,
        requests=len(questions),
        input_tokens=characters // CHARACTERS_PER_TOKEN,
        output_tokens=num_labels * len(json.dumps(answer)) // CHARACTERS_PER_TOKEN,
        images=sum(len(question.images) for question in questions),
        example=questions[0].prompt,
    )
