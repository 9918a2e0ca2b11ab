"""How soft should the student's predictions be, and how much sharper the teacher's?

Temperatures must fit CLIP's logit scale: this space is for a scale of 100 (OpenAI's), where 0.01 is
CLIP's own softmax. `teacher_share` is the teacher's temperature over the student's: 1 doesn't
sharpen at all, 0.25 is MSN's choice, 0.4 DINO's. `teacher_path` lets it stand still, or reach its
value from a softer one (`sharpening`) or a sharper one (`softening`, as DINO's warm-up does) over
the first half of the run.

To read: parallel coordinates first. A best student temperature at an end of its range means that
the range is too short. A sharp teacher can collapse: look at the best trial's `health/` metrics
before believing it.
"""

from typing import Any

from ray import tune

# A path starts at the value times this.
STARTS = {"constant": 1.0, "sharpening": 2.0, "softening": 0.5}


def build_space() -> dict[str, Any]:
    """What is drawn."""
    return {
        "objective.student_temperature": tune.loguniform(0.004, 0.08),
        "teacher_share": tune.uniform(0.2, 1.0),
        "teacher_path": tune.choice(list(STARTS)),
    }


def derive_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The teacher's temperature, from the student's."""
    end = values["objective.student_temperature"] * values["teacher_share"]
    start = end * STARTS[values["teacher_path"]]
    if start == end:
        return {"objective.teacher_temperature": end}
    schedule = {"shape": "linear", "start": start, "end": end, "until": 0.5}
    return {"objective.teacher_temperature": schedule}
