"""`lssl-ray evaluate` of an exported folder: the same model, away from its run and its CLIP."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from evaluate_command import execute, read, refuse

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a folder of its own; read only."""
    out = tmp_path_factory.mktemp("export") / "mine"
    execute("export", trained_run, "--out", out)
    return out


def describe(report: dict[str, Any], model: str) -> list[Any]:
    """Everything that was predicted by a model, protocol by protocol."""
    return [
        (outcome["title"], part["set"], part["results"][model]["ranking"])
        for outcome in report["outcomes"]
        for part in outcome["parts"]
    ]


def test_evaluate_export_predicts_what_its_run_predicts(
    exported: Path, trained_run: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    views = ("--clips", 2, "--local")
    execute("evaluate", trained_run, videos.manifest, *views, "--out", tmp_path / "run")
    output = execute("evaluate", exported, videos.manifest, *views, "--out", tmp_path / "export")
    of_run, of_export = read(tmp_path / "run"), read(tmp_path / "export")
    assert describe(of_export, "adapted") == describe(of_run, "adapted")
    # Temporal attention matters here: CLIP itself predicts otherwise.
    assert describe(of_run, "clip") != describe(of_run, "adapted")
    assert list(of_export["outcomes"][0]["models"]) == ["adapted"]
    assert of_export["outcomes"][0]["comparison"] is None
    assert of_export["labels"]["names"] == of_run["labels"]["names"]
    assert of_export["transductive"] == {"transductive": "not stated"}
    assert of_export["model"]["export"] == str(exported)
    assert "Wilson" in output and "Wilson" in (tmp_path / "export" / "report.md").read_text()


def test_evaluate_export_of_a_plain_clip_is_a_clip(
    tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    execute(
        "export", f"local-dir:{tiny_clip_dir}", "--labels", ", ".join(tiny.ACTIONS),
        "--out", tmp_path / "plain",
    )  # fmt: skip
    execute("evaluate", tmp_path / "plain", videos.manifest, "--local", "--out", tmp_path / "out")
    report = read(tmp_path / "out")
    assert list(report["outcomes"][0]["models"]) == ["clip"]
    assert report["labels"]["names"] == list(tiny.ACTIONS)


def test_evaluate_export_refuses_what_it_lacks(
    exported: Path, tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    command = (videos.manifest, "--local", "--out", tmp_path / "out")
    assert "interpolate" in refuse("evaluate", exported, *command, "--interpolate", 0.5)
    weights = tiny_clip_dir / "open_clip_model.safetensors"
    assert "own weights" in refuse("evaluate", exported, *command, "--weights", weights)
    assert "model.cls" in refuse("evaluate", exported, *command, "--set", "model.cls=shared")
    assert "zero_shot" in refuse("evaluate", exported, *command, "--protocol", "transductive")
    broken = Path(shutil.copytree(exported, tmp_path / "broken"))
    temporal = broken / "temporal.safetensors"
    temporal.write_bytes(temporal.read_bytes()[:-100])
    assert "temporal.safetensors" in refuse("evaluate", broken, *command)
    assert not (tmp_path / "out").exists()
