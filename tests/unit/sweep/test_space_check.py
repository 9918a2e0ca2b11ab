"""A space of which a trial would fail is refused before anything starts, with everything said."""

from pathlib import Path

import pytest
import yaml
from sweep_parts import write_space

from lssl_ray.cluster.sweep_space import check_space, load_space
from lssl_ray.errors import ConfigError


def find_problems(
    folder: Path,
    recipe: Path | None,
    samplers: str,
    *,
    derive: str = "",
    sets: tuple[str, ...] = (),
) -> list[str]:
    """The lines of the refusal; none when the space is fine."""
    space = load_space(write_space(folder, samplers, derive=derive))
    try:
        check_space(space, config=recipe, overrides=sets)
    except ConfigError as error:
        first, *lines = str(error).splitlines()
        assert f"{len(lines)} problem" in first
        return [line.strip() for line in lines]
    return []


@pytest.mark.parametrize(
    "samplers",
    [
        '{"optim.learning_rate": tune.loguniform(1e-6, 1e-3)}',
        '{"optim.learning_rate": tune.quniform(0.1, 0.5, 0.1)}',
        '{"optim.clips_per_step": tune.randint(1, 100)}',
        '{"model.freeze_spatial": tune.choice([True, False])}',
        '{"optim.teacher_momentum": tune.choice([[0.99, 1.0], [0.9, 1.0]])}',
        '{"objective.weight_prior": tune.choice([1, {"shape": "cosine", "start": 3, "end": 0}])}',
        '{"concepts.labels": tune.choice(["bank:lss-a", "bank:lss-c"])}',
        '{"objective.space": tune.choice(["concepts", "prototypes"])}',
    ],
)
def test_check_accepts_what_every_trial_can_run(
    samplers: str, recipe_file: Path, tmp_path: Path
) -> None:
    assert find_problems(tmp_path, recipe_file, samplers) == []


@pytest.mark.parametrize(
    ("samplers", "words"),
    [
        ('{"objective.student_temprature": tune.uniform(0.1, 1)}', ["student_temperature"]),
        ('{"objectiv.weight_align": tune.uniform(0.1, 1)}', ["objectiv:", "objective?"]),
        ('{"optim.learning_rate": tune.uniform(-1.0, 1)}', ["optim.learning_rate", "-1.0", "0"]),
        ('{"optim.warmup_share": tune.uniform(0.0, 1.0)}', ["optim.warmup_share", "1.0"]),
        ('{"optim.epochs": tune.quniform(1, 8, 1)}', ["optim.epochs", "integer", "1.0, 2.0", "3"]),
        ('{"model.cls": tune.choice(["a", "b"])}', ["model.cls", "'a', 'b'", "per_frame"]),
        ('{"optim.epochs": tune.choice([1, "2"])}', ["optim.epochs", "'2'"]),
        ('{"concepts.layout": tune.choice(["pooled", "flat"])}', ["concepts.layout", "'flat'"]),
        ('{"optim.teacher_momentum": tune.choice([[0.9]])}', ["optim.teacher_momentum", "few"]),
        (
            '{"objective.weight_prior": tune.choice([{"shape": "cosine", "start": -1, "end": 0}])}',
            ["objective.weight_prior.start", "-1"],
        ),
        ('{"concepts.labels": tune.choice(["bank:lss-a", "bank:lss-d"])}', ["lss-d", "lss-c"]),
        ('{"concepts.labels": tune.choice(["missing.yaml"])}', ["missing.yaml"]),
        ('{"run.seed": tune.randint(0, 5)}', ["run.seed", "--seeds"]),
        ('{"tracking.uri": tune.choice(["a", "b"])}', ["tracking.uri", "store"]),
        ('{"cluster.num_workers": tune.choice([1, 2])}', ["cluster.num_workers"]),
        ('{"data.manifest": tune.choice(["a", "b"])}', ["data.manifest", "videos"]),
        ('{"evaluation.num_frames": tune.choice([2, 4])}', ["evaluation.num_frames"]),
        ('{"learning_rate": tune.uniform(0.1, 1)}', ["learning_rate", "dot", "derive_settings"]),
        ('{"optim.epochs": tune.grid_search([1, 2])}', ["optim.epochs", "grid_search"]),
        ('{"optim.epochs": 3}', ["optim.epochs", "3", "--set"]),
        ("{3: tune.choice([1, 2])}", ["3", "texts"]),
    ],
)
def test_check_names_key_value_and_remedy(
    samplers: str, words: list[str], recipe_file: Path, tmp_path: Path
) -> None:
    (problem,) = find_problems(tmp_path, recipe_file, samplers)
    assert [word for word in words if word not in problem] == []


def test_check_tells_all_problems_at_once_each_once(recipe_file: Path, tmp_path: Path) -> None:
    problems = find_problems(
        tmp_path,
        recipe_file,
        '{"optim.learning_rate": tune.uniform(-1.0, 1.0), "model.cls": tune.choice(["a", "b"]),'
        ' "optim.epoch": tune.randint(1, 5), "run.name": tune.choice(["x", "y"]),'
        ' "optim.betas": tune.sample_from(lambda: [0.9, 0.9]), "views.flip": tune.choice([0, 1]),'
        ' "concepts.labels": tune.choice(["bank:no"])}',
    )
    keys = sorted(problem.split(":")[0] for problem in problems)
    expected = (
        "concepts.labels model.cls optim.betas optim.epoch optim.learning_rate run.name views.flip"
    )
    assert keys == expected.split()


def test_check_finds_an_impossible_combination_and_who_makes_it(
    recipe_file: Path, tmp_path: Path
) -> None:
    sets = ("cluster.num_workers=5",)
    samplers = (
        '{"optim.clips_per_step": tune.choice([4, 6, 8]), "optim.epochs": tune.choice([1, 2])}'
    )
    (problem,) = find_problems(tmp_path, recipe_file, samplers, sets=sets)
    assert "clips_per_step=4" in problem and "5 workers" in problem
    assert "epochs" not in problem


def test_check_finds_what_two_values_do_only_together(recipe_file: Path, tmp_path: Path) -> None:
    weights = ("distill_category", "distill_description", "align", "prior")
    samplers = ", ".join(f'"objective.weight_{name}": tune.choice([0, 1])' for name in weights)
    (problem,) = find_problems(tmp_path, recipe_file, "{" + samplers + "}")
    assert "every weight is 0" in problem
    assert all(f"objective.weight_{name}=0" in problem for name in weights)


def test_check_of_a_large_product_tries_every_value_and_samples_the_rest(
    recipe_file: Path, tmp_path: Path
) -> None:
    many = "tune.choice([0.1 * n for n in range(1, 10)])"
    samplers = (
        f'{{"optim.learning_rate": {many}, "optim.gradient_clip": {many}, '
        f'"optim.temporal_rate_factor": {many}, "optim.warmup_share": tune.choice([0.1, 1.0]), '
        '"views.global.count": tune.choice([2, 1]), "views.local.count": tune.choice([2, 0])}'
    )
    problems = find_problems(tmp_path, recipe_file, samplers)
    keys = [problem.split(":")[0] for problem in problems]
    # One view in all is found by sampling: it takes a value of both that isn't their first.
    assert sorted(keys) == ["optim.warmup_share", "views.global.count"]


def test_check_blames_the_name_that_a_setting_was_derived_from(
    recipe_file: Path, tmp_path: Path
) -> None:
    samplers = '{"share": tune.choice([0.5, -0.5]), "optim.epochs": tune.choice([1, 2])}'
    derive = 'return {"objective.teacher_temperature": 0.1 * values["share"]}'
    (problem,) = find_problems(tmp_path, recipe_file, samplers, derive=derive)
    assert "objective.teacher_temperature" in problem and "share=-0.5" in problem


@pytest.mark.parametrize(
    ("derive", "words"),
    [
        ('return {"objective.weight_align": values["no"]}', ["derive_settings", "KeyError"]),
        ("return 3", ["derive_settings", "TypeError"]),
        ('return {"run.name": "x"}', ["run.name", "--name"]),
        ('return {"optim.epochs": 7}', ["optim.epochs", "drawn"]),
        ('return {"objective.weight_aling": 1}', ["weight_align"]),
    ],
)
def test_check_of_derived_settings_says_what_is_wrong(
    derive: str, words: list[str], recipe_file: Path, tmp_path: Path
) -> None:
    samplers = '{"share": tune.choice([0.5]), "optim.epochs": tune.choice([1, 2])}'
    (problem,) = find_problems(tmp_path, recipe_file, samplers, derive=derive)
    assert [word for word in words if word not in problem] == []


def test_check_refuses_a_set_that_the_space_would_overwrite(
    recipe_file: Path, tmp_path: Path
) -> None:
    samplers = '{"optim.epochs": tune.choice([1, 2])}'
    (problem,) = find_problems(tmp_path, recipe_file, samplers, sets=("optim.epochs=3",))
    assert "optim.epochs" in problem and "--set" in problem


def test_check_lets_a_space_vary_a_part_of_the_recipes_schedule(
    recipe_file: Path, tmp_path: Path
) -> None:
    samplers = '{"objective.weight_prior.start": tune.uniform(0.5, 3.0)}'
    schedule = "objective.weight_prior={shape: linear, start: 1.0, end: 0.1}"
    assert find_problems(tmp_path, recipe_file, samplers, sets=(schedule,)) == []
    (problem,) = find_problems(tmp_path, recipe_file, samplers, sets=("objective.weight_prior=1",))
    assert "objective.weight_prior" in problem


def test_check_tells_what_is_wrong_with_the_recipe_itself_once(
    recipe_file: Path, tmp_path: Path
) -> None:
    values = yaml.safe_load(recipe_file.read_text())
    values["optim"]["epochs"] = 0
    recipe_file.write_text(yaml.safe_dump(values))
    samplers = '{"optim.gradient_clip": tune.choice([1.0, 2.0]), "model.cls": tune.choice(["x"])}'
    recipe, value = find_problems(tmp_path, recipe_file, samplers)
    assert "optim.epochs" in recipe and "recipe" in recipe
    assert "model.cls" in value


def test_check_without_recipe_asks_for_what_is_missing(tmp_path: Path) -> None:
    samplers = '{"concepts.labels": tune.choice(["bank:lss-a", "bank:lss-b"])}'
    problems = find_problems(tmp_path, None, samplers)
    assert sorted(problem.split(":")[0] for problem in problems) == ["clip.model", "data.manifest"]
