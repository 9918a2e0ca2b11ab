"""The settings of evaluation: before and after training, and while it goes on."""

from typing import Annotated

from pydantic import Field

from lssl_ray.config.section import Count, Name, Positive, Section, Share

VALIDATION_PREFIX, HELD_BACK_PREFIX = "validation/", "held_back/"
SPLIT_FIGURES = ("zero_shot", "knn")


class EvaluationSection(Section):
    """Evaluation before and after training, and of checkpoints while it goes on."""

    manifests: dict[Name, str] = Field(
        default={}, description="Split name to manifest with labels; empty: no evaluation."
    )
    labels: str | None = Field(
        default=None,
        description="Labels that evaluation chooses from: a label file or bank:NAME; null: those "
        "of the concept space.",
    )
    num_frames: Count = Field(default=8, description="Frames per video, evenly spaced.")
    size: Count | None = Field(default=None, description="Centre view, px; null: global size.")
    every_checkpoints: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Every so many checkpoints, and the last one, are evaluated while training "
        "goes on; 0: none.",
    )
    best: str | None = Field(
        default=None,
        description="Metric by which the best checkpoint is kept in RUN/best: "
        "validation/SPLIT/zero_shot, validation/SPLIT/knn or held_back/SCORE; null: none is.",
    )
    deadline_seconds: Positive = Field(
        default=3600.0,
        description="Longest time that one checkpoint may take; then its evaluation is ended, "
        "tried once more, and filed as not evaluated.",
    )
    gpu_share: Share = Field(
        default=0.0, description="Share of a GPU for evaluation beside training; 0: one core."
    )


def find_impossible_evaluation(evaluation: EvaluationSection, *, num_held_back: int) -> list[str]:
    """Combinations of valid values that can't work together: `key: rule; remedy`."""
    problems = []
    if evaluation.every_checkpoints and not evaluation.manifests and not num_held_back:
        problems.append(
            "evaluation.every_checkpoints: there is nothing to evaluate on; name labelled videos "
            "in evaluation.manifests, or hold unlabelled ones back with data.hold_back"
        )
    best = evaluation.best
    if best is None:
        return problems
    if not evaluation.every_checkpoints:
        problems.append(
            f"evaluation.best: {best} is measured while training goes on only; set "
            "evaluation.every_checkpoints >= 1"
        )
    known = [
        f"{VALIDATION_PREFIX}{split}/{figure}"
        for split in evaluation.manifests
        for figure in SPLIT_FIGURES
    ]
    if best.startswith(HELD_BACK_PREFIX):
        if not num_held_back:
            problems.append(
                f"evaluation.best: {best} is measured on held-back videos; set data.hold_back"
            )
    elif best not in known:
        problems.append(
            f"evaluation.best: {best} is not measured; it can be {HELD_BACK_PREFIX}SCORE with "
            f"data.hold_back, or with evaluation.manifests one of: {', '.join(known) or 'none'}"
        )
    return problems
