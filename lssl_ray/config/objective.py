"""What is learned: objectives, their schedules, the baseline with prototypes, collapse.

Values only, as in `schema.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from lssl_ray.config.section import (
    Count,
    NonNegative,
    Positive,
    PositiveShare,
    Section,
    Share,
    ShareBelowOne,
)

# Tells a constant from a schedule; pydantic puts it into the place of an error.
CONSTANT, SCHEDULE = "(constant)", "(schedule)"

# What the baseline does where a recipe doesn't say; as DINO does.
PROTOTYPE_DEFAULTS: dict[str, Any] = {
    "weight_distill_category": 0.0,
    "weight_distill_description": 0.0,
    "weight_align": 0.0,
    "weight_prior": 0.0,
    "student_temperature": 0.1,
    "teacher_temperature": 0.04,
    "centering_momentum": 0.9,
}


class WeightSchedule(Section):
    """A weight that changes over the run, then stays."""

    shape: Literal["linear", "cosine"] = Field(description="A straight line, or half a cosine.")
    start: NonNegative = Field(description="At the first step.")
    end: NonNegative = Field(description="At the last step of the change, and after.")
    until: PositiveShare = Field(default=1.0, description="Share of the run's steps it takes.")


class TemperatureSchedule(Section):
    """A temperature that changes over the run, then stays."""

    shape: Literal["linear", "cosine"] = Field(description="A straight line, or half a cosine.")
    start: Positive = Field(description="At the first step.")
    end: Positive = Field(description="At the last step of the change, and after.")
    until: PositiveShare = Field(default=1.0, description="Share of the run's steps it takes.")


def _find_tag(value: Any) -> str:
    return SCHEDULE if isinstance(value, dict | Section) else CONSTANT


Weight = Annotated[
    Annotated[NonNegative, Tag(CONSTANT)] | Annotated[WeightSchedule, Tag(SCHEDULE)],
    Discriminator(_find_tag),
]
Temperature = Annotated[
    Annotated[Positive, Tag(CONSTANT)] | Annotated[TemperatureSchedule, Tag(SCHEDULE)],
    Discriminator(_find_tag),
]


class ObjectiveSection(Section):
    """Losses in concept space.

    Weights and temperatures are a number, or a schedule:
    {shape: linear or cosine, start: 0.1, end: 0.05, until: 0.5}.
    """

    weight_distill_category: Weight = Field(default=1.0, description="Category distillation.")
    weight_distill_description: Weight = Field(default=1.0, description="Description distillation.")
    weight_align: Weight = Field(default=1.0, description="Alignment; acts with both spaces.")
    weight_prior: Weight = Field(
        default=1.0, description="Uniform prior, each space; 0 with prototypes."
    )
    student_temperature: Temperature = Field(
        default=0.01, description="Divides student cosines; 0.1 with prototypes."
    )
    teacher_temperature: Temperature = Field(
        default=0.005,
        description="Divides teacher cosines; below the student's it sharpens; 0.04 with "
        "prototypes.",
    )
    prior_running_mean: ShareBelowOne = Field(
        default=0.0,
        description="Share of earlier steps in the prior's mean, for spaces larger than a batch.",
    )
    centering_momentum: ShareBelowOne | None = Field(
        default=None,
        description="Of the mean teacher scores that are subtracted; null: off; 0.9 with "
        "prototypes.",
    )
    space: Literal["concepts", "prototypes"] = Field(
        default="concepts", description="Text concepts, or DINO's learned prototypes (baseline)."
    )
    num_prototypes: Annotated[int, Field(ge=2)] = Field(
        default=4096, description="With prototypes: how many."
    )
    head_width: Count = Field(
        default=2048, description="With prototypes: width of the head's hidden layers."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("space") == "prototypes":
            return PROTOTYPE_DEFAULTS | data
        return data


class HealthSection(Section):
    """Collapse: nearly all clips are given the same concepts. Stalls: a worker stands still."""

    collapse: Literal["warn", "stop", "off"] = Field(
        default="warn", description="What a collapse leads to."
    )
    entropy_threshold: Share = Field(
        default=0.2,
        description="Entropy of the mean prediction below which a row of metrics looks like one, "
        "as a share of log(number of categories).",
    )
    windows: Count = Field(default=3, description="So many such rows in a row are a collapse.")
    stall_seconds: NonNegative = Field(
        default=1800.0,
        description="Longest time for one thing a worker does: loading, waiting for a batch (also "
        "for decoders and nodes that start), a step (the first compiles), filing a checkpoint, "
        "waiting for others. Then its stacks go to logs/ and it is ended. 0: no limit.",
    )


def find_impossible_objectives(objective: ObjectiveSection) -> list[str]:
    """Combinations of valid objectives that can't work together: `key: rule; remedy`."""
    concept_weights = {
        "weight_distill_category": objective.weight_distill_category,
        "weight_distill_description": objective.weight_distill_description,
        "weight_align": objective.weight_align,
    }
    acting = [name for name, weight in concept_weights.items() if _ever_acts(weight)]
    if objective.space == "prototypes":
        return [
            f"objective.{name}: acts on concepts, not with objective.space=prototypes; leave it "
            "out or set 0"
            for name in acting
        ]
    if not acting and not _ever_acts(objective.weight_prior):
        return ["objective: every weight is 0, nothing would be learned; raise one"]
    return []


def _ever_acts(weight: float | WeightSchedule) -> bool:
    return bool(weight if isinstance(weight, float | int) else weight.start or weight.end)
