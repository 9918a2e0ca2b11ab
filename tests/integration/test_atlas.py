"""`lssl-ray atlas` from the command to the page: tiny videos, a tiny run, no Ray."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from evaluate_command import execute, refuse
from mlflow import MlflowClient

from lssl_ray.inference import load_model
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import save_manifest


@dataclass(frozen=True)
class Tracked:
    """A finished run that MLflow knows, and its labelled videos."""

    run: Path
    videos: tiny.VideoSet
    uri: str


@pytest.fixture(scope="module")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Tracked:
    folder = tmp_path_factory.mktemp("tracked")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=folder / "runs")
    values["tracking"] = {"uri": uri}
    return Tracked(tiny.train_run(values, folder), videos, uri)


def read(page: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(page.with_suffix(".json").read_text())
    return facts


def test_atlas_agrees_with_the_model_and_reaches_mlflow(tracked: Tracked) -> None:
    output = execute("atlas", tracked.run, tracked.videos.manifest, "--local")
    page = tracked.run / "atlas" / "atlas.html"
    assert str(page) in output and page.stat().st_size < 2**20
    facts = read(page)
    assert facts["thumbnails"]["count"] == len(facts["clips"]) == 8
    assert [space["kind"] for space in facts["spaces"]] == ["category", "description"]
    # The public interface, which decodes and encodes on its own, gives the same ranking.
    with load_model(tracked.run, device="cpu") as model:
        features = model.encode_video([str(path) for path in tracked.videos.paths]).require_all()
        texts = model.encode_text(tiny.ACTIONS, templates=model.parts.templates)
    scores = features @ texts.T
    ids = [str(path.relative_to(tracked.videos.folder)) for path in tracked.videos.paths]
    for concept in facts["spaces"][0]["concepts"]:
        column = scores[:, tiny.ACTIONS.index(concept["name"])]
        best = torch.argsort(column, descending=True)[:6].tolist()
        listed = [facts["clips"][entry["clip"]]["id"] for entry in concept["after"]]
        assert listed == [ids[row] for row in best]
        cosines = [entry["cosine"] for entry in concept["after"]]
        np.testing.assert_allclose(cosines, column[best], atol=1e-3)
        owners = [Path(video).parent.name == concept["name"] for video in listed]
        assert [entry["hit"] for entry in concept["after"]] == owners
    right = sum(
        tiny.ACTIONS[int(row)] == Path(video).parent.name
        for row, video in zip(scores.argmax(1), ids, strict=True)
    )
    assert facts["accuracy"]["right_after"] == right

    client = MlflowClient(tracking_uri=tracked.uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "lssl_ray"]
    (run,) = client.search_runs([experiment.experiment_id])
    files = {one.path for one in client.list_artifacts(run.info.run_id, "atlas")}
    assert files == {"atlas/atlas.html", "atlas/atlas.json"} and run.info.status == "FINISHED"


def test_atlas_after_an_evaluation_makes_no_features_again(
    tracked: Tracked, tmp_path: Path
) -> None:
    execute("evaluate", tracked.run, tracked.videos.manifest, "--local", "--out", tmp_path / "e")
    execute("atlas", tracked.run, tracked.videos.manifest, "--local", "-o", tmp_path / "a.html")
    assert read(tmp_path / "a.html")["features"] == {"from_cache": 2, "made": 0}


def test_atlas_of_unlabelled_videos_counts_and_lists_bad_ones(
    tracked: Tracked, tmp_path: Path
) -> None:
    shutil.copytree(tracked.videos.folder, tmp_path / "v")
    paths = sorted((tmp_path / "v").glob("*/*.mp4"))
    tiny.truncate_video(paths[0])  # found bad by the index
    manifest, _ = index_videos([str(tmp_path / "v")], labels="none", deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "v.parquet"))
    paths[5].unlink()  # gone after the index
    command = (
        "atlas", tracked.run, tmp_path / "v.parquet", "--local", "--concepts", 2,
        "--clips-per-concept", 3, "-o", tmp_path / "a.html",
    )  # fmt: skip
    output = execute(*command)
    facts = read(tmp_path / "a.html")
    assert facts["excluded_undecodable"]["count"] == 2 and "excluded_undecodable: 2" in output
    listed = [video["path"] for video in facts["excluded_undecodable"]["videos"]]
    assert listed == [str(paths[0]), str(paths[5])]
    assert facts["videos"]["decoded"] == len(facts["map"]["clips"]) == 6
    assert facts["accuracy"] is None and facts["confusions"] == []
    assert [len(space["concepts"]) for space in facts["spaces"]] == [2, 2]
    assert {len(one["after"]) for one in facts["spaces"][0]["concepts"]} == {3}

    paths[2].unlink()  # gone after its features were kept
    execute(*command)
    facts = read(tmp_path / "a.html")
    assert facts["features"]["made"] == 0
    assert [one["path"] for one in facts["thumbnails"]["failed"]] == [str(paths[2])]
    assert facts["thumbnails"]["count"] == 5


def test_atlas_looks_at_no_more_videos_than_asked(tracked: Tracked, tmp_path: Path) -> None:
    command = ("atlas", tracked.run, tracked.videos.manifest, "--local", "--max-videos", 3)
    execute(*command, "-o", tmp_path / "a.html")
    videos = read(tmp_path / "a.html")["videos"]
    assert (videos["usable"], videos["looked_at"], videos["decoded"]) == (8, 3, 3)


def test_atlas_of_what_has_no_before_and_after_is_refused(
    tracked: Tracked, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    manifest = tracked.videos.manifest
    plain = f"local-dir:{tiny_clip_dir}"
    assert "checkpoint" in refuse("atlas", plain, manifest, "-o", tmp_path / "a.html")
    assert ".html" in refuse("atlas", tracked.run, manifest, "-o", tmp_path / "a.json")
    assert "--concepts 0" in refuse("atlas", tracked.run, manifest, "--concepts", 0)
    (tmp_path / "v").mkdir()
    path = tiny.write_video(tmp_path / "v" / "0.mp4", tiny.paint_frames("darkening"))
    listed, _ = index_videos([str(tmp_path / "v")], labels="none", deadline_seconds=60.0)
    save_manifest(listed, str(tmp_path / "v.parquet"))
    path.unlink()
    message = refuse("atlas", tracked.run, tmp_path / "v.parquet", "--local")
    assert "None of 1" in message and "missing" in message
