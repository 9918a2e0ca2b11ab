"""What a language model may answer: shapes and limits, checked by pydantic."""

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, model_validator

MAX_LABEL_WORDS = 8
MAX_LABEL_CHARACTERS = 60
MIN_PHRASE_WORDS = 2
MAX_PHRASE_WORDS = 16
MAX_PHRASE_CHARACTERS = 120  # CLIP reads 77 tokens, its template included


def fold(text: str) -> str:
    """A name's words in lower case, punctuation dropped: equal for what reads as the same name."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _check_label(text: str) -> str:
    text = " ".join(text.split())
    if not fold(text) or len(text) > MAX_LABEL_CHARACTERS or len(text.split()) > MAX_LABEL_WORDS:
        raise ValueError(
            f"a label must have 1 to {MAX_LABEL_WORDS} words and at most "
            f"{MAX_LABEL_CHARACTERS} characters"
        )
    return text


def _check_phrase(text: str) -> str:
    text = " ".join(text.split())
    num_words = len(text.split())
    if not MIN_PHRASE_WORDS <= num_words <= MAX_PHRASE_WORDS or len(text) > MAX_PHRASE_CHARACTERS:
        raise ValueError(
            f"a phrase must have {MIN_PHRASE_WORDS} to {MAX_PHRASE_WORDS} words and at most "
            f"{MAX_PHRASE_CHARACTERS} characters, this one has {num_words} and {len(text)}"
        )
    return text


# Limits are checked here and told in the prompt, not in the schema: servers differ in which of
# JSON schema's limits they refuse.
Label = Annotated[str, AfterValidator(_check_label)]
Phrase = Annotated[str, AfterValidator(_check_phrase)]


# The docstrings of the next three go to the language model, as descriptions in the schema.
class LabelDescriptions(BaseModel):
    """One action, its name copied exactly, with phrases about what it looks like."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: str
    static: list[Phrase]
    dynamic: list[Phrase]

    @model_validator(mode="after")
    def _check_phrases(self, info: ValidationInfo) -> "LabelDescriptions":
        # The context says how many are wanted: {"static": 4, "dynamic": 2}.
        for kind, wanted in (info.context or {}).items():
            if (given := len(getattr(self, kind))) != wanted:
                raise ValueError(f"{given} {kind} phrases, {wanted} were asked for")
        folded = [fold(phrase) for phrase in [*self.static, *self.dynamic]]
        if len(set(folded)) < len(folded):
            raise ValueError("a phrase is there twice")
        name = set(fold(self.label).split())
        for phrase in folded:
            if len(set(phrase.split()) - name) < MIN_PHRASE_WORDS:
                raise ValueError(f"{phrase!r} only repeats the label")
        return self


class Descriptions(BaseModel):
    """Every action asked for, each once."""

    model_config = ConfigDict(extra="forbid")

    labels: list[LabelDescriptions]


class Names(BaseModel):
    """Names of actions, each once."""

    model_config = ConfigDict(extra="forbid")

    labels: list[str]


class LabelName(BaseModel):
    """One label without phrases."""

    model_config = ConfigDict(strict=True)

    label: Label


class _Items(BaseModel):
    """Either answer before its items are looked at: a bad item must not cost the good ones."""

    model_config = ConfigDict(extra="forbid", strict=True)

    labels: list[Any]


def parse_items(text: str) -> list[Any]:
    """The `labels` of an answer, unchecked.

    Raises:
        ValueError: No JSON object with just `labels` (pydantic's ValidationError is one).
    """
    text = text.rpartition("</think>")[2]
    try:
        data = json.loads(text)
    except ValueError:  # in a code fence, or among talk: plain text mode
        start, end = text.find("{"), text.rfind("}")
        if start < 0:
            raise ValueError("no JSON object in the answer") from None
        data = json.loads(text[start : end + 1])
    return _Items.model_validate(data).labels
