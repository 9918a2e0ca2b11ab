"""The command line: help, refusals as messages, configurations that can be fed back."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import typer.main
import yaml
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.config import flatten_config, load_config
from lssl_ray.folder import create_run_folder
from lssl_ray.video.manifest import load_manifest

EXIT_REFUSED = 2


def invoke(*arguments: object) -> Result:
    """Run the command in this process, on a wide and colourless terminal."""
    environment = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(item) for item in arguments], env=environment)


def refuse(*arguments: object) -> str:
    """The message of a refusal: on stderr, without traceback, exit code 2."""
    result = invoke(*arguments)
    assert result.exit_code == EXIT_REFUSED, result.output
    assert "Traceback" not in result.output
    assert result.stderr.strip()
    return result.stderr


def list_verbs() -> Iterator[tuple[tuple[str, ...], Any]]:
    def walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk((*path, name), child)

    return walk((), typer.main.get_command(app))


VERBS = list(list_verbs())


def test_cli_has_the_promised_verbs() -> None:
    names = {" ".join(path) for path, _ in VERBS}
    assert {"train", "evaluate", "demo", "data index", "config show", "config fields"} <= names


@pytest.mark.parametrize(
    ("path", "command"),
    VERBS,
    ids=lambda value: "-".join(value or ["all"]) if isinstance(value, tuple) else "",
)
def test_cli_help_names_every_option_with_a_meaning(path: tuple[str, ...], command: Any) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert command.help.splitlines()[0] in result.stdout
    for parameter in command.params:
        if parameter.name != "help":
            assert parameter.help, f"{path} {parameter.name} has no help"
            assert parameter.opts[0].strip("-").lower() in result.stdout.lower()
    for name in getattr(command, "commands", {}):
        assert name in result.stdout


def test_train_without_recipe_names_all_that_is_missing() -> None:
    message = refuse("train", "--local")
    for key in ("clip.model", "data.manifest", "concepts.labels"):
        assert key in message


def test_train_absent_recipe_is_refused_by_name(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refuse("train", "--local", "--config", tmp_path / "nowhere.yaml")


def test_train_typo_is_refused_with_a_suggestion_and_makes_nothing(
    recipe_file: Path, tmp_path: Path
) -> None:
    message = refuse("train", "--local", "--config", recipe_file, "--set", "optim.epoch=3")
    assert "did you mean epochs?" in message
    assert not (tmp_path / "runs").exists()


def test_train_name_is_a_text_even_when_it_looks_like_a_number(
    recipe_file: Path, tmp_path: Path
) -> None:
    folder, _ = create_run_folder(load_config(recipe_file, ["run.name='1e3'"]), overwrite=False)
    folder.metrics.write_text('{"step": 1}\n')
    message = refuse("train", "--local", "--config", recipe_file, "--run-name", "1e3")
    assert str(tmp_path / "runs" / "1e3") in message
    for way_out in ("--resume", "--run-name", "--overwrite"):
        assert way_out in message


@pytest.mark.parametrize("name", ["../up", "", "a/b", "-x y"])
def test_train_impossible_name_is_refused(recipe_file: Path, tmp_path: Path, name: str) -> None:
    assert "run.name" in refuse("train", "--local", "--config", recipe_file, f"--run-name={name}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "extra", [["--config", "r.yaml"], ["--run-name", "other"], ["--overwrite"]], ids=lambda e: e[0]
)
def test_train_resume_with_what_starts_a_run_is_refused(extra: list[str]) -> None:
    assert "--resume" in refuse("train", "--local", "--resume", "run", *extra)


def test_train_resume_of_unknown_run_lists_the_known(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create_run_folder(load_config(recipe_file, ["run.name=alpha"]), overwrite=False)
    assert "alpha" in refuse("train", "--local", "--resume", "omega")
    assert "alpha" in refuse("train", "--local", "--resume", tmp_path / "runs" / "omega")


def test_train_resume_by_name_and_by_folder_find_the_same_run(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, _ = create_run_folder(load_config(recipe_file, ["run.name=known"]), overwrite=False)
    for name in ("known", "runs/known", folder.path):
        # The override is refused only after the run was found.
        message = refuse("train", "--local", "--resume", name, "--set", "run.seed=3")
        assert "run.seed=3" in message


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.manifest=nowhere.parquet", "nowhere.parquet"),
        ("concepts.labels=nowhere.yaml", "nowhere.yaml"),
        ("clip.model='local-dir:nowhere'", "nowhere"),
        ("views.local.size=17", "views.local.size=17"),
        ("evaluation.manifests={a: nowhere.parquet}", "nowhere.parquet"),
        ("tracking.uri='sqlite:////proc/none/mlflow.db'", "/proc/none/mlflow.db"),
    ],
)
def test_train_input_that_cant_be_used_is_refused(
    recipe_file: Path, override: str, named: str
) -> None:
    assert named in refuse("train", "--local", "--config", recipe_file, "--set", override)


def test_evaluate_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "No run" in refuse("evaluate", tmp_path, tmp_path / "clips.parquet", "--local")


def test_evaluate_impossible_name_or_untrained_run_is_refused(
    recipe_file: Path, videos: tiny.VideoSet
) -> None:
    folder, _ = create_run_folder(load_config(recipe_file), overwrite=False)
    arguments = ("evaluate", folder.path, videos.manifest, "--local")
    assert "a/b" in refuse(*arguments, "--name", "a/b")
    assert "checkpoint" in refuse(*arguments, "--name", "test")


def test_data_index_absent_folder_or_labels_are_refused(
    videos: tiny.VideoSet, tmp_path: Path
) -> None:
    out = tmp_path / "m.parquet"
    assert "nowhere" in refuse("data", "index", tmp_path / "nowhere", "-o", out)
    message = refuse("data", "index", videos.folder, "-o", out, "--labels", tmp_path / "no.csv")
    assert "no.csv" in message
    assert not out.exists()


def test_data_index_again_probes_nothing_anew(videos: tiny.VideoSet, tmp_path: Path) -> None:
    out = tmp_path / "made" / "m.parquet"
    arguments = ("data", "index", videos.folder, "-o", out, "--labels", "folders", "--split", "x")
    first, second = invoke(*arguments), invoke(*arguments)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "8 usable and 0 bad of 8 videos" in first.stdout
    assert "(8 known from before)" in second.stdout
    manifest = load_manifest(str(out))
    assert manifest.labels() == sorted(tiny.ACTIONS)
    assert len(manifest.where(split="x")) == 8


def test_config_show_is_valid_input_and_stays_the_same(recipe_file: Path, tmp_path: Path) -> None:
    changes = ["--set", "optim.learning_rate=1e-3", "--set", "run.name='1e3'"]
    first = invoke("config", "show", "--config", recipe_file, *changes)
    assert first.exit_code == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(first.stdout)
    assert load_config(shown) == load_config(recipe_file, [changes[1], changes[3]])
    second = invoke("config", "show", "--config", shown)
    assert second.stdout == first.stdout


def test_config_show_wrong_recipe_prints_nothing_on_stdout(recipe_file: Path) -> None:
    result = invoke("config", "show", "--config", recipe_file, "--set", "x=1")
    assert (result.exit_code, result.stdout) == (EXIT_REFUSED, "")


def test_config_fields_lists_every_leaf_once(recipe_file: Path) -> None:
    result = invoke("config", "fields")
    keys = [line.split()[0] for line in result.stdout.splitlines()]
    values = yaml.safe_load(recipe_file.read_text()) | {"evaluation": {}}
    bare = recipe_file.with_name("bare.yaml")
    bare.write_text(yaml.safe_dump(values))
    assert result.exit_code == 0
    assert sorted(keys) == sorted(flatten_config(load_config(bare)))


def test_command_refusal_in_a_process_of_its_own_is_a_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lssl_ray.cli", "config", "show", "--config", "[red]nowhere.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
    )
    assert done.returncode == EXIT_REFUSED
    assert done.stdout == ""
    assert "[red]nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stderr
