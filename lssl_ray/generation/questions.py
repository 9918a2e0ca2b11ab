"""Questions to a language model: the prompts, and how each answer is read and judged.

A reader keeps every valid item of an answer, says what is wrong with the others, and what must
still come.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from lssl_ray.generation.answers import (
    Descriptions,
    LabelDescriptions,
    LabelName,
    Names,
    fold,
    parse_items,
)

PROMPT_VERSION = 1
LABELS_PER_THEME_REQUEST = 40
MAX_LABELS_PER_CLIP = 3

SYSTEM = """\
You write the vocabulary of a video recogniser: names of human actions, and what they look like.
Answer with one JSON object and nothing else."""

DESCRIBE = """\
Describe what a camera sees while somebody does each of the actions below. For each action write
- "static": exactly {num_static} phrases about what a single frame shows: body parts and their \
pose, objects, clothes, place;
- "dynamic": exactly {num_dynamic} phrases about what changes from frame to frame: how body parts \
and objects move, and in which order.
Each phrase has 3 to 12 words in lower case without a full stop. It is concrete, visible without \
sound, typical of the action, different from the other phrases, and more than the action's name.
Give every action once, with its name copied exactly into "label". Add no other action.

Actions:
{labels}"""

THEME = """\
Name {count} different human actions that videos of this theme show: {theme}
Each name is a short verb phrase in lower case of 1 to 6 words for one action that can be seen in \
a few seconds without sound. Cover the theme broadly: common actions and rare ones.{known}"""

VIDEO = """\
The images are {num_frames} frames of one video clip, in order of time. Name the human action that \
the clip shows: a short verb phrase in lower case of 1 to 6 words, specific but not tied to the \
persons or the place. If it shows several, give up to {max_labels} names, the clearest first. Name \
only what can be seen; if no human action can be seen, give an empty list."""

Entries = dict[str, dict[str, list[str]]]
"""Accepted labels in order, each with its phrases by kind (none where only names are asked for)."""


@dataclass(frozen=True)
class Reading:
    """What came of an answer.

    Attributes:
        entries: All that is accepted so far.
        problems: What was wrong, one line each.
        remaining: What must still come, in words for the next prompt; empty when nothing must.
    """

    entries: Entries
    problems: tuple[str, ...]
    remaining: str


@dataclass(frozen=True)
class Question:
    """One request to a language model.

    Attributes:
        prompt: The user's message.
        schema: JSON schema of the answer.
        read: Judges an answer's text, given what was accepted before.
        images: JPEG files that go with the prompt.
    """

    prompt: str
    schema: Mapping[str, Any]
    read: Callable[[str, Entries], Reading]
    images: tuple[bytes, ...] = ()


def build_describe_question(
    labels: Sequence[str], *, num_static: int, num_dynamic: int
) -> Question:
    """Phrases for labels."""
    prompt = DESCRIBE.format(
        num_static=num_static,
        num_dynamic=num_dynamic,
        labels="\n".join(f"- {label}" for label in labels),
    )
    read = partial(
        read_descriptions,
        labels=tuple(labels),
        num_phrases={"static": num_static, "dynamic": num_dynamic},
    )
    return Question(prompt, Descriptions.model_json_schema(), read)


def build_theme_question(theme: str, *, count: int, known: Sequence[str]) -> Question:
    """`count` labels on a theme, other than the known ones."""
    avoid = f"\nThese are named already; name others: {'; '.join(known)}" if known else ""
    prompt = THEME.format(theme=theme, count=count, known=avoid)
    read = partial(read_names, known=tuple(known), min_count=count, max_count=count)
    return Question(prompt, Names.model_json_schema(), read)


def build_video_question(images: Sequence[bytes]) -> Question:
    """Labels for one clip, from its frames; none is an answer as well."""
    prompt = VIDEO.format(num_frames=len(images), max_labels=MAX_LABELS_PER_CLIP)
    read = partial(read_names, known=(), min_count=0, max_count=MAX_LABELS_PER_CLIP)
    return Question(prompt, Names.model_json_schema(), read, tuple(images))


def read_descriptions(
    text: str, accepted: Entries, *, labels: tuple[str, ...], num_phrases: Mapping[str, int]
) -> Reading:
    """Keeps the labels asked for that have all their phrases."""
    asked = {fold(label): label for label in labels}
    found: Entries = {}
    twice: set[str] = set()
    problems = []
    items, problem = _try_parse(text)
    for item in items:
        name = item.get("label") if isinstance(item, dict) else None
        # Exactly first: "push up" and "push-up" may both have been asked for.
        label = name if name in labels else asked.get(fold(str(name)))
        if label in accepted:
            continue  # an answer to a second request may give the good ones again
        if label is None:
            problems.append(f"{_shorten(name)} was not asked for")
        elif label in found or label in twice:
            twice.add(label)
        else:
            try:
                entry = LabelDescriptions.model_validate(item, context=num_phrases)
                found[label] = {"static": entry.static, "dynamic": entry.dynamic}
            except ValidationError as error:
                problems.append(f"{label!r}: {_explain(error)}")
    for label in twice:
        found.pop(label, None)
        problems.append(f"{label!r} is there twice")
    entries = accepted | found
    missing = [label for label in labels if label not in entries]
    named = "".join(problems)
    if problem:
        problems.append(problem)
    elif absent := [label for label in missing if repr(label) not in named]:
        problems.append(f"missing: {', '.join(map(repr, absent))}")
    return Reading(entries, tuple(problems), "; ".join(missing))


def read_names(
    text: str, accepted: Entries, *, known: tuple[str, ...], min_count: int, max_count: int
) -> Reading:
    """Keeps valid new labels, the first `max_count` of them."""
    entries = dict(accepted)
    taken = {fold(label) for label in (*known, *accepted)}
    problems = []
    items, problem = _try_parse(text)
    for item in items:
        try:
            label = LabelName.model_validate({"label": item}).label
        except ValidationError as error:
            problems.append(f"{_shorten(item)}: {_explain(error)}")
            continue
        if fold(label) in taken:
            problems.append(f"{label!r} is there twice or was named before")
        elif len(entries) < max_count:
            taken.add(fold(label))
            entries[label] = {}
    if problem:
        problems.append(problem)
    num_missing = max(min_count - len(entries), 0)
    # An empty list is an answer about a clip, unreadable text is not.
    if not num_missing and not entries and problems:
        return Reading(entries, tuple(problems), "the whole answer")
    if num_missing:
        problems.append(f"{num_missing} labels too few")
    remaining = f"{num_missing} more, other than {'; '.join(entries) or 'none'}"
    return Reading(entries, tuple(problems), remaining if num_missing else "")


def write_answer(entries: Entries) -> dict[str, Any]:
    """Accepted entries in the shape of an answer, so that the same reader judges them again."""
    if any(entries.values()):
        return {"labels": [{"label": label, **phrases} for label, phrases in entries.items()]}
    return {"labels": list(entries)}


def compute_prompt_digest() -> str:
    """The first 16 hex digits of SHA-256 over all prompts and schemas: which ones wrote a file."""
    schemas = [model.model_json_schema() for model in (Descriptions, Names)]
    parts = json.dumps([SYSTEM, DESCRIBE, THEME, VIDEO, schemas], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _try_parse(text: str) -> tuple[list[Any], str]:
    """The items, and what is wrong with the answer as a whole."""
    try:
        return parse_items(text), ""
    except ValidationError as error:
        return [], f"the answer does not fit the schema: {_explain(error)}"
    except (ValueError, RecursionError) as error:
        return [], f"the answer is not JSON: {error}"


def _explain(error: ValidationError) -> str:
    """The first three of pydantic's complaints in one line."""
    lines = []
    for part in error.errors(include_url=False)[:3]:
        place = ".".join(str(key) for key in part["loc"])
        lines.append(f"{place}: {part['msg']}" if place else part["msg"])
    return "; ".join(lines)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
