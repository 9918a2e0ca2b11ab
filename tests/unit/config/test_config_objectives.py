"""Objectives in a configuration: constants or schedules, and the baseline with prototypes."""

from typing import Any

import pytest
from config_samples import REQUIRED

from lssl_ray.config import RunConfig, dump_config, load_config, load_config_text
from lssl_ray.errors import ConfigError

BASE = [
    f"{section}.{key}={value}"
    for section, fields in REQUIRED.items()
    for key, value in fields.items()
]
NAMES = [
    "weight_distill_category", "weight_distill_description", "weight_align", "weight_prior",
    "student_temperature", "teacher_temperature",
]  # fmt: skip


def load(*overrides: str) -> RunConfig:
    return load_config(None, [*BASE, *overrides])


def refuse(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_objective_constant_or_schedule_survives_dump_and_load(name: str) -> None:
    for text, expected in (
        ("0.3", 0.3),
        ("1", 1.0),
        (
            "{shape: linear, start: 0.1, end: 1e-2}",
            {"shape": "linear", "start": 0.1, "end": 0.01, "until": 1.0},
        ),
        (
            "{shape: cosine, start: 1, end: 2, until: 0.5}",
            {"shape": "cosine", "start": 1.0, "end": 2.0, "until": 0.5},
        ),
    ):
        config = load(f"objective.{name}={text}")
        assert config.model_dump(mode="json")["objective"][name] == expected
        assert load_config_text(dump_config(config)) == config


def test_objective_schedule_by_dotted_keys_is_the_same() -> None:
    key = "objective.weight_prior"
    dotted = load(f"{key}.shape=linear", f"{key}.start=0", f"{key}.end=1", f"{key}.until=0.5")
    assert dotted == load(f"{key}={{shape: linear, start: 0, end: 1, until: 0.5}}")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("weight_prior=-1", "objective.weight_prior:"),
        ("weight_prior=many", "objective.weight_prior:"),
        ("weight_prior={shape: linear, start: 0, end: -1}", "objective.weight_prior.end:"),
        ("weight_prior={shape: square, start: 0, end: 1}", "objective.weight_prior.shape:"),
        ("weight_prior={shape: linear, start: 0, end: 1, until: 0}",
         "objective.weight_prior.until:"),
        ("weight_prior={shape: linear, start: 0, end: 1, unti: 1}",
         "objective.weight_prior.unti: unknown key; did you mean until?"),
        ("weight_prior={shape: linear, start: 0}", "objective.weight_prior.end: missing"),
        ("teacher_temperature=0", "objective.teacher_temperature:"),
        ("student_temperature={shape: linear, start: 0, end: 1}",
         "objective.student_temperature.start:"),
        ("student_temperature={shape: linear, start: 1, end: 0}",
         "objective.student_temperature.end:"),
        ("prior_running_mean=1", "objective.prior_running_mean:"),
        ("centering_momentum=-0.1", "objective.centering_momentum:"),
        ("num_prototypes=1", "objective.num_prototypes:"),
    ],
)  # fmt: skip
def test_objective_impossible_value_is_refused_by_its_key(override: str, key: str) -> None:
    (line,) = refuse(f"objective.{override}")
    assert line.startswith(key)


def test_objective_weights_that_stay_zero_are_refused_and_rising_ones_taken() -> None:
    nothing = [f"objective.{name}=0" for name in NAMES[:3]]
    rising = "objective.weight_prior={shape: linear, start: 0, end: 1}"
    assert load(*nothing, rising).objective.weight_align == 0
    (line,) = refuse(*nothing, rising.replace("end: 1", "end: 0"))
    assert line.startswith("objective: every weight is 0")


def test_objective_prototypes_bring_dinos_defaults_that_a_recipe_overrides() -> None:
    def pick(*overrides: str) -> list[Any]:
        config = load("objective.space=prototypes", *overrides)
        assert load_config_text(dump_config(config)) == config
        values = config.model_dump(mode="json")["objective"]
        return [values[name] for name in (*NAMES, "centering_momentum")]

    assert pick() == [0.0, 0.0, 0.0, 0.0, 0.1, 0.04, 0.9]
    changed = pick(
        "objective.weight_prior=2", "objective.student_temperature=0.2",
        "objective.centering_momentum=null",
    )  # fmt: skip
    assert changed == [0.0, 0.0, 0.0, 2.0, 0.2, 0.04, None]


def test_objective_concept_weight_with_prototypes_is_refused() -> None:
    (line,) = refuse("objective.space=prototypes", "objective.weight_align=1")
    assert line.startswith("objective.weight_align:") and "set 0" in line
