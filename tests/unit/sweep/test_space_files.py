"""Space files: read or refused; every one that we ship fits the recipes that it is for."""

import json
from pathlib import Path
from typing import Any

import pytest
from sweep_parts import write_space

from lssl_ray.cluster.sweep_space import SweepSpace, check_space, list_grid, load_space
from lssl_ray.config import load_config
from lssl_ray.demo.job import LABELS, RECIPE
from lssl_ray.errors import ConfigError
from lssl_ray.sweep.trials import build_overrides

ROOT = Path(__file__).resolve().parents[3]
SPACES = sorted((ROOT / "tune_spaces").glob("*.py"))
DEMO_OVERRIDES = [f"concepts.labels={json.dumps(str(LABELS))}", "clip.model=local-dir:demo/clip"]
SCHEDULE = '{"shape": "linear", "start": 0.1, "end": 0.05}'


def draw(space: SweepSpace) -> dict[str, Any]:
    values = {key: sampler.sample(random_state=0) for key, sampler in space.samplers.items()}
    return space.compute_settings(values)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_space_fits_its_recipe_and_changes_it(path: Path) -> None:
    space = load_space(path)
    recipe, overrides = ROOT / "jobs/recipes/k400_lss_a_vit_b16.yaml", ["run.name=base"]
    if space.name == "demo":
        recipe, overrides = RECIPE, DEMO_OVERRIDES
    check_space(space, config=recipe, overrides=overrides)
    settings = draw(space)
    config = load_config(recipe, [*overrides, *build_overrides(settings)])
    assert config != load_config(recipe, overrides)
    assert space.question.endswith("?") or "?" in space.question
    assert "To read:" in space.description


def test_shipped_spaces_are_the_ones_that_are_named() -> None:
    names = "concept_spaces demo joint loss_weights optimisation temperatures"
    assert [path.stem for path in SPACES] == names.split()


def test_demo_space_is_six_configurations() -> None:
    assert len(list_grid(load_space(ROOT / "tune_spaces/demo.py"))) == 6


def test_space_file_gives_name_question_and_settings(tmp_path: Path) -> None:
    path = write_space(
        tmp_path,
        '{"objective.student_temperature": tune.choice([0.1, 0.2]), "share": tune.choice([0.5])}',
        derive='return {"objective.teacher_temperature": '
        'values["share"] * values["objective.student_temperature"]}',
        name="half",
    )
    space = load_space(path)
    assert (space.name, space.question) == ("half", "Does it help?")
    assert space.compute_settings({"objective.student_temperature": 0.2, "share": 0.5}) == {
        "objective.student_temperature": 0.2,
        "objective.teacher_temperature": 0.1,
    }


def test_space_file_without_derive_takes_values_as_settings(tmp_path: Path) -> None:
    path = write_space(
        tmp_path, '{"objective.teacher_temperature": tune.choice([0.05, ' + SCHEDULE + "])}"
    )
    space = load_space(path)
    values = {"objective.teacher_temperature": json.loads(SCHEDULE)}
    assert space.compute_settings(values) == values


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def build_space():\n    return {}\n", "question"),
        ('"""Says something."""\n\ndef build_space():\n    return {"a.b": 1}\n', "question"),
        ('"""Is there more?"""\n', "build_space"),
        ('"""Is it one?"""\nbuild_space = 3\n', "build_space"),
        ('"""Is it empty?"""\n\ndef build_space():\n    return {}\n', "at least one"),
        ('"""Is it Python?"""\n\ndef build_space(:\n', "SyntaxError"),
        ('"""Does it run?"""\nimport no_such_module\n', "line 2"),
        ('"""Does it build?"""\n\ndef build_space():\n    return {"a.b": tune}\n', "line 4"),
        (
            '"""Is the range right?"""\nfrom ray import tune\n\n\ndef build_space():\n'
            '    return {"optim.learning_rate": tune.loguniform(0.0, 1.0)}\n',
            "LogUniform",
        ),
    ],
)
def test_space_file_that_is_none_is_refused_with_the_place(
    text: str, word: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_space(path)
    assert word in str(caught.value) and "mine.py" in str(caught.value)


@pytest.mark.parametrize("name", ["missing.py", "notes.txt", "two words.py"])
def test_space_file_with_a_wrong_name_is_refused(name: str, tmp_path: Path) -> None:
    if name != "missing.py":
        (tmp_path / name).write_text('"""Is it a space?"""\n')
    with pytest.raises(ConfigError, match=name):
        load_space(tmp_path / name)


def test_grid_is_the_product_in_order_and_ranges_are_refused(tmp_path: Path) -> None:
    samplers = '{"a.x": tune.choice([1, 2]), "b.y": tune.randint(3, 5), "c.z": %s}'
    path = write_space(tmp_path, samplers % "tune.quniform(0.1, 0.3, 0.1)")
    grid = list_grid(load_space(path))
    assert len(grid) == 12
    assert grid[0] == {"a.x": 1, "b.y": 3, "c.z": 0.1}
    assert [row["c.z"] for row in grid[:3]] == pytest.approx([0.1, 0.2, 0.3])
    assert {row["b.y"] for row in grid} == {3, 4}
    path = write_space(tmp_path, samplers % "tune.uniform(0.1, 0.3)", name="other")
    with pytest.raises(ConfigError, match=r"c\.z"):
        list_grid(load_space(path))
