"""What a sweep refuses before anything starts, and what its trials share."""

from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
import yaml
from typer.testing import CliRunner

from lssl_ray.cli import app
from lssl_ray.config import load_config
from lssl_ray.errors import CheckpointError, ConfigError, DataError
from lssl_ray.sweeping.request import (
    SweepRequest,
    create_sweep,
    find_key,
    list_remarks,
    open_sweep,
)

SPACE = '''"""Which rate is best?"""

from ray import tune


def build_space():
    return {"optim.learning_rate": tune.choice([1.0e-3, 1.0e-2]), "KEY": tune.choice([VALUES])}
'''


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "rates.py"
    path.write_text(SPACE.replace("KEY", "optim.epochs").replace("VALUES", "2, 3"))
    return path


def ask(space: Path, recipe: Path, **changes: Any) -> SweepRequest:
    return SweepRequest(
        **{"space": space, "config": recipe, "num_trials": 2, "metric": "-loss/total", **changes}
    )


def test_a_bad_space_is_refused_before_ray_starts_and_leaves_nothing(
    tmp_path: Path, recipe_file: Path
) -> None:
    space = tmp_path / "bad.py"
    space.write_text(SPACE.replace("KEY", "optim.epoch").replace("VALUES", "2, 3"))
    options = ["--space", str(space), "--config", str(recipe_file), "--trials", "2"]
    result = CliRunner().invoke(
        app, ["sweep", *options, "--select", "zero_shot:test", "--name", "bad"]
    )
    assert result.exit_code == 2
    assert "optim.epoch" in result.output
    assert not ray.is_initialized()
    assert not (tmp_path / "runs" / "bad").exists()


def test_a_value_that_would_fail_in_some_trial_is_refused(
    tmp_path: Path, recipe_file: Path
) -> None:
    space = tmp_path / "bad.py"
    space.write_text(SPACE.replace("KEY", "optim.clips_per_step").replace("VALUES", "4, 1"))
    overrides = ["cluster.num_workers=2"]
    with pytest.raises(ConfigError, match="clips_per_step"):
        create_sweep(ask(space, recipe_file, overrides=overrides))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"overrides": ["run.stop_at_step=1"]}, "stop_at_step"),
        ({"metric": None, "select": "guessing"}, "mutual_information"),
        ({"metric": None, "select": "zero_shot:train"}, "test"),
        ({"metric": None, "select": "balance", "hold_back": 0}, "--hold-back"),
        ({"metric": None}, "--hold-back"),  # 64 by default, of eight videos
        ({"overrides": ["data.hold_back=8"]}, "--hold-back"),
        ({"num_trials": None}, "--trials"),
        ({"search": "grid"}, "--trials"),
        ({"name": "../elsewhere"}, "--name"),
    ],
)
def test_a_request_that_can_not_work_is_refused(
    space: Path, recipe_file: Path, changes: dict[str, Any], word: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=word):
        create_sweep(ask(space, recipe_file, **changes))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("setting", ["data.manifest", "evaluation.manifests.test"])
def test_a_manifest_that_is_not_there_is_refused_before_any_trial(
    space: Path, recipe_file: Path, setting: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"absent\.parquet"):
        create_sweep(ask(space, recipe_file, overrides=[f"{setting}=absent.parquet"]))
    assert not (tmp_path / "runs").exists()


def test_resume_with_other_settings_is_refused(space: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["sweep", "--resume", "some", "--seeds", "3"])
    assert result.exit_code == 2
    assert "--max-concurrent" in result.output


def test_label_free_scores_get_held_back_videos_and_evaluation(
    space: Path, recipe_file: Path
) -> None:
    opened = create_sweep(ask(space, recipe_file, metric=None, select="balance", hold_back=3))
    assert opened.record.settings.select == "held_back/balance"
    assert opened.base.data.hold_back == 3
    assert opened.base.evaluation.every_checkpoints == 1


def test_gpus_of_a_trial_are_its_workers(space: Path, recipe_file: Path) -> None:
    opened = create_sweep(ask(space, recipe_file, gpus_per_trial=2))
    assert (opened.base.cluster.use_gpu, opened.base.cluster.num_workers) == (True, 2)


def test_select_names_the_metric() -> None:
    assert find_key("zero_shot:val") == "validation/val/zero_shot"
    assert find_key(None).startswith("held_back/")


def test_a_resumed_sweep_is_as_it_was_begun(
    space: Path,
    recipe_file: Path,
    videos: tiny.VideoSet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Relative paths, unset settings and the space itself, whatever happened to the files since."""
    values = yaml.safe_load(recipe_file.read_text())
    monkeypatch.chdir(videos.manifest.parent)
    values["data"]["manifest"] = videos.manifest.name
    recipe_file.write_text(yaml.safe_dump(values))
    begun = create_sweep(ask(space, recipe_file, name="mine"))
    space.write_text("raise SystemExit")
    recipe_file.unlink()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    begun.record.save()
    again = open_sweep(str(begun.record.folder.path))
    assert again.base == begun.base == load_config(begun.record.folder.base)
    assert again.base.model_fields_set == begun.base.model_fields_set
    assert again.base.data.manifest == str(videos.manifest)
    assert again.space.name == "rates"
    assert set(again.space.samplers) == {"optim.learning_rate", "optim.epochs"}


@pytest.mark.parametrize(
    ("select", "labels", "num_doubts"),
    [
        ("balance", ["lss-a", "lss-b"], 1),
        ("balance", ["lss-a", "lss-a"], 0),
        ("lidar", ["lss-a", "lss-b"], 0),
        ("zero_shot:test", ["lss-a", "lss-b"], 1),
        ("zero_shot:test same answers", ["lss-a", "lss-b"], 0),
    ],
)
def test_scores_that_are_about_different_labels_are_doubted(
    space: Path, recipe_file: Path, select: str, labels: list[str], num_doubts: int
) -> None:
    select, _, same_answers = select.partition(" ")
    overrides = ["evaluation.labels=bank:lss-c"] if same_answers else []
    changes: dict[str, Any] = {"metric": None, "select": select, "hold_back": 3}
    opened = create_sweep(ask(space, recipe_file, overrides=overrides, **changes))
    for number, name in enumerate(labels):
        opened.record.plan({"number": number}, {"concepts.labels": f"bank:{name}"})
    question, *doubts = list_remarks(opened, num_undrawn=0)
    assert question == "Which rate is best?"
    assert len(doubts) == num_doubts


def test_fewer_configurations_than_asked_for_are_told(space: Path, recipe_file: Path) -> None:
    opened = create_sweep(ask(space, recipe_file, num_trials=20))
    assert len(list_remarks(opened, num_undrawn=20)) == 1
    assert "20" in list_remarks(opened, num_undrawn=4)[1]


def test_a_second_sweep_of_a_name_is_refused_and_of_a_space_gets_a_number(
    space: Path, recipe_file: Path
) -> None:
    first = create_sweep(ask(space, recipe_file))
    first.record.plan({"optim.epochs": 2}, {})
    first.record.change("c001-s0", status="running")
    with pytest.raises(CheckpointError):
        create_sweep(ask(space, recipe_file, name=first.record.settings.name))
    second = create_sweep(ask(space, recipe_file))
    assert (first.record.settings.name, second.record.settings.name) == ("rates", "rates-2")
