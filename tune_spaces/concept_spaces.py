"""Which vocabulary should the run learn in, and do descriptions of its labels help?

`vocabulary` is LSS-A (the benchmarks' label names), LSS-B (Kinetics-400's only) or LSS-C (written
by a language model). `form` is `names` (category space only, no descriptions), `pooled`
(descriptions averaged per label) or `full` (one row per description). Spaces with more rows than a
batch has clips may want a slower mean in the uniform prior: `objective.prior_running_mean`.

To read: 18 configurations; `--search grid` tries each one. Accuracy on UCF101 and HMDB51 under
LSS-A is transductive in the vocabulary: their label names were axes of the training. A label-free
score is computed on each trial's own labels, and does not compare vocabularies; zero-shot accuracy
does, with the same answers for all: `--select zero_shot:SPLIT --set evaluation.labels=FILE`.
"""

from typing import Any

from ray import tune

FORMS: dict[str, dict[str, Any]] = {
    "names": {"concepts.spaces": "category", "concepts.layout": "pooled"},
    "pooled": {"concepts.spaces": "both", "concepts.layout": "pooled"},
    "full": {"concepts.spaces": "both", "concepts.layout": "full"},
}


def build_space() -> dict[str, Any]:
    """What is drawn."""
    return {
        "vocabulary": tune.choice(["lss-a", "lss-b", "lss-c"]),
        "form": tune.choice(list(FORMS)),
        "objective.prior_running_mean": tune.choice([0.0, 0.9]),
    }


def derive_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The bank's vocabulary, and the settings of the form."""
    return {"concepts.labels": f"bank:{values['vocabulary']}"} | FORMS[values["form"]]
