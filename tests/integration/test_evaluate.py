"""`lssl-ray evaluate` from the command to the report: tiny videos, a tiny run, no Ray."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml
from evaluate_command import execute, read, refuse
from mlflow import MlflowClient

from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import save_manifest

pytestmark = pytest.mark.timeout(240)

PER_LABEL = {"train": 3, "val": 2}


@dataclass(frozen=True)
class Trained:
    """A finished run and labelled videos in two splits."""

    folder: Path
    run: Path
    clip: Path
    labels: Path
    manifests: dict[str, Path]
    uri: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    clip = tiny.write_tiny_clip(folder / "clip")
    seed, manifests = 0, {}
    for split, number in PER_LABEL.items():
        for label in tiny.ACTIONS:
            for index in range(number):
                seed += 1
                frames = tiny.paint_frames(label, seed=seed)
                tiny.write_video(folder / split / label / f"{index}.mp4", frames)
        manifest, _ = index_videos(
            [str(folder / split)], labels="folders", split=split, deadline_seconds=60.0
        )
        manifests[split] = folder / f"{split}.parquet"
        save_manifest(manifest, str(manifests[split]))
    labels = folder / "labels.yaml"
    described = {label: [f"a picture {label}", f"{label} slowly"] for label in tiny.ACTIONS}
    labels.write_text(yaml.safe_dump({"labels": described}))
    videos = tiny.VideoSet(folder / "train", manifests["train"], labels)
    values = tiny.build_recipe_values(clip, videos, run_folder=folder / "runs")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    values["tracking"] = {"uri": uri}
    values["evaluation"] = {"num_frames": 2}
    values["optim"]["teacher_momentum"] = [0.5, 0.5]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    execute("train", "--local", "--config", folder / "recipe.yaml")
    return Trained(folder, folder / "runs" / "run", clip, labels, manifests, uri)


def test_evaluate_several_protocols_share_features_and_reach_report_and_mlflow(
    trained: Trained,
) -> None:
    protocols = ("zero_shot", "linear_probe", "knn")
    flags = [flag for name in protocols for flag in ("--protocol", name)]
    command = (
        "evaluate", trained.run, trained.manifests["train"], trained.manifests["val"], "--local",
        *flags, "--sweep-interpolation", "--name", "all",
    )  # fmt: skip
    output = execute(*command)
    out = trained.run / "evaluation" / "all"
    assert str(out / "report.html") in output
    first = read(out)
    titles = [outcome["title"] for outcome in first["outcomes"]]
    assert titles == [
        "zero shot",
        "linear probe, sgd",
        "linear probe, convex",
        "k-NN, k = 5",
        "k-NN, k = 10",
    ]
    for outcome in first["outcomes"]:
        for part in outcome["parts"]:
            scored = [first["videos"][row] for row in part["rows"]]
            assert len(scored) == 8 and all("/val/" in video for video in scored)
            for result in part["results"].values():
                right = [
                    result["labels"][truth] == first["truth"][row]
                    for truth, row in zip(result["truth"], part["rows"], strict=True)
                ]
                assert all(right)
        assert outcome["comparison"]["first"] == "clip"
    assert first["features"] == {
        "folder": str(trained.run / "features"),
        "from_cache": 0,
        "made": 4,
        "damaged_made_again": 0,
    }
    points = first["sweep"]["points"]
    assert [point["alpha"] for point in points] == [step / 10 for step in range(11)]
    figures = first["outcomes"][0]["models"]
    assert points[0]["top1_percent"] == figures["clip"]["top1_percent"]
    assert points[-1]["top1_percent"] == figures["adapted"]["top1_percent"]
    assert first["transductive"]["transductive"] == "both"  # these names, and its train videos

    execute(*command)
    second = read(out)
    assert second["features"]["from_cache"] == 4 and second["features"]["made"] == 0
    assert second["outcomes"] == first["outcomes"]

    client = MlflowClient(tracking_uri=trained.uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "lssl_ray"]
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    value = tracked.data.metrics["evaluation/all/zero_shot/adapted"]
    assert value == pytest.approx(figures["adapted"]["top1_percent"] / 100)
    assert "evaluation/all/knn_k5/clip" in tracked.data.metrics
    files = {one.path for one in client.list_artifacts(tracked.info.run_id, "evaluation/all")}
    assert {f"evaluation/all/report.{kind}" for kind in ("html", "md", "json")} <= files


def test_evaluate_plain_call_scores_every_video_of_the_manifest(trained: Trained) -> None:
    execute("evaluate", trained.run, trained.manifests["val"], "--local")
    report = read(trained.run / "evaluation" / "evaluation")
    assert [outcome["protocol"] for outcome in report["outcomes"]] == ["zero_shot"]
    assert len(report["videos"]) == 8 and report["benchmark"] == "own"
    assert report["transductive"]["transductive"] == "vocabulary"
    models = report["outcomes"][0]["models"]
    assert models["clip"]["transductive"] == "none"
    assert models["adapted"]["transductive"] == "vocabulary"


def test_evaluate_undecodable_videos_are_excluded_listed_and_counted_wrong_beside(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.folder / "val", tmp_path / "val")
    paths = sorted((tmp_path / "val").glob("*/*.mp4"))
    tiny.truncate_video(paths[0])  # found bad by the index
    manifest, _ = index_videos([str(tmp_path / "val")], labels="folders", deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "val.parquet"))
    paths[5].unlink()  # gone after the index
    execute(
        "evaluate", trained.run, tmp_path / "val.parquet", "--local", "--out", tmp_path / "out"
    )  # fmt: skip
    report = read(tmp_path / "out")
    excluded = report["excluded_undecodable"]
    assert excluded["count"] == 2 and sum(excluded["by_reason"].values()) == 2
    assert [video["path"] for video in excluded["videos"]] == [str(paths[0]), str(paths[5])]
    figures = report["outcomes"][0]["models"]["adapted"]
    part = report["outcomes"][0]["parts"][0]
    assert (figures["set_videos"], figures["set_excluded_undecodable"]) == (6, 2)
    assert {report["videos"][row] for row in part["rows"]}.isdisjoint(
        str(path.relative_to(tmp_path / "val")) for path in (paths[0], paths[5])
    )
    right = round(figures["top1_percent"] * 6 / 100)
    assert figures["set_top1_excluded_counted_wrong_percent"] == pytest.approx(100 * right / 8)


def test_evaluate_alpha_ends_are_the_models_themselves(trained: Trained, tmp_path: Path) -> None:
    digests, figures = {}, {}
    for alpha in ("0", "0.5", "1"):
        execute(
            "evaluate", trained.run, trained.manifests["val"], "--local",
            "--interpolate", alpha, "--out", tmp_path / alpha,
        )  # fmt: skip
        report = read(tmp_path / alpha)
        digests[alpha] = report["model"]["digests"]
        figures[alpha] = report["outcomes"][0]["models"]
    assert digests["0"]["adapted"] == digests["0"]["clip"]
    assert figures["0"]["adapted"]["top1_percent"] == figures["0"]["clip"]["top1_percent"]
    assert len({digests[alpha]["adapted"] for alpha in digests}) == 3


def test_evaluate_ucf101_splits_by_file_name_report_mean_and_full_set(
    trained: Trained, tmp_path: Path
) -> None:
    groups = {"Archery": (1, 8, 15), "Bowling": (2, 9, 16)}  # in test of split 1, 2 and 3
    names = [f"v_{label}_g{number:02}_c01.mp4" for label in groups for number in groups[label]]
    for seed, name in enumerate([*names, "holiday.mp4"]):
        tiny.write_video(tmp_path / "v" / name, tiny.paint_frames("moving left", seed=seed))
    manifest, _ = index_videos([str(tmp_path / "v")], labels="none", deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "v.parquet"))
    execute(
        "evaluate", trained.run, tmp_path / "v.parquet", "--local",
        "--benchmark", "ucf101", "--out", tmp_path / "out",
    )  # fmt: skip
    report = read(tmp_path / "out")
    (outcome,) = report["outcomes"]
    assert [part["set"] for part in outcome["parts"]] == ["split 1", "split 2", "split 3"]
    assert [len(part["rows"]) for part in outcome["parts"]] == [2, 2, 2]
    assert len(outcome["full"]["rows"]) == 6
    assert report["coverage"]["videos"] == 6 and report["coverage"]["extra"] == ["holiday.mp4"]
    values = outcome["models"]["adapted"]["values_percent"]
    assert outcome["models"]["adapted"]["top1_percent"] == pytest.approx(np.mean(values), abs=1e-3)
    assert outcome["models"]["adapted"]["std_points"] == pytest.approx(
        np.std(values, ddof=1), abs=1e-3
    )
    assert len(report["labels"]["names"]) == 101
    assert report["transductive"]["transductive"] == "none"


def test_evaluate_input_that_cant_be_scored_is_refused(trained: Trained, tmp_path: Path) -> None:
    val = trained.manifests["val"]
    manifest, _ = index_videos([str(trained.folder / "val")], labels="none", deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "unlabelled.parquet"))
    (tmp_path / "other.txt").write_text("juggling\nwalking")
    local = ("--local", "--out", tmp_path / "out")
    assert "8 of 8 videos" in refuse(
        "evaluate", trained.run, tmp_path / "unlabelled.parquet", *local
    )
    message = refuse("evaluate", trained.run, val, "--labels", tmp_path / "other.txt", *local)
    assert "brightening" in message and "juggling" in message
    assert "train" in refuse("evaluate", trained.run, val, "--protocol", "knn", *local)
    assert "nothing" in refuse("evaluate", trained.run, val, "--split", "nothing", *local)
    assert "None of 8" in refuse("evaluate", trained.run, val, "--benchmark", "hmdb51", *local)
    plain = f"local-dir:{trained.clip}"
    assert "--labels" in refuse("evaluate", plain, val, *local)
    labelled = (plain, val, "--labels", trained.labels, *local)
    assert "adapted" in refuse("evaluate", *labelled, "--interpolate", "0.5")
    assert "zero_shot" in refuse("evaluate", *labelled, "--protocol", "transductive")
    assert "8 px" in refuse("evaluate", trained.run, val, "--size", 30, *local)
    assert "optim.epochs" in refuse("evaluate", trained.run, val, "--set", "optim.epochs=9", *local)
    assert not (tmp_path / "out" / "report.json").exists()


def test_evaluate_one_class_is_scored_but_no_probe_learns_from_it(
    trained: Trained, tmp_path: Path
) -> None:
    manifests = []
    for split in ("train", "val"):
        folder = trained.folder / split / "brightening"
        manifest, _ = index_videos(
            [str(folder)], labels="folders", split=split, deadline_seconds=60.0
        )
        manifests.append(tmp_path / f"{split}.parquet")
        save_manifest(manifest, str(manifests[-1]))
    command = ("evaluate", trained.run, *manifests, "--local", "--out", tmp_path / "out")
    execute(*command, "--split", "val")
    assert len(read(tmp_path / "out")["outcomes"][0]["models"]) == 2
    assert "brightening" in refuse(*command, "--protocol", "linear_probe")


def test_evaluate_damaged_or_foreign_checkpoint_is_refused(
    trained: Trained, tmp_path: Path
) -> None:
    val = trained.manifests["val"]
    checkpoint = sorted((trained.run / "checkpoints").iterdir())[-1]
    half = tmp_path / "half"
    shutil.copytree(checkpoint, half)
    teacher = half / "teacher.safetensors"
    teacher.write_bytes(teacher.read_bytes()[:-100])
    assert "teacher.safetensors" in refuse("evaluate", half, val, "--local", "--out", tmp_path)

    other = tmp_path / "run"
    shutil.copytree(trained.run, other)
    config = yaml.safe_load((other / "run_config.yaml").read_text())
    config["model"]["cls"] = "shared"
    config["views"]["global"]["num_frames"] = 4
    for path in (other / "checkpoints").glob("*/run_config.yaml"):
        path.write_text(yaml.safe_dump(config))
        index = path.with_name("checkpoint.json")
        files = json.loads(index.read_text())
        del files["files"]["run_config.yaml"]
        index.write_text(json.dumps(files))
    message = refuse("evaluate", other, val, "--local", "--out", tmp_path)
    assert "architecture" in message

    clip = tiny.write_tiny_clip(tmp_path / "clip", seed=7)
    weights = clip / "open_clip_model.safetensors"
    message = refuse(
        "evaluate", trained.run, val, "--weights", weights, "--local", "--out", tmp_path
    )
    assert "another" in message or "not by the weights in use" in message


def test_evaluate_checkpoint_folder_equals_its_run(trained: Trained, tmp_path: Path) -> None:
    checkpoint = sorted((trained.run / "checkpoints").iterdir())[-1]
    reports = []
    for number, model in enumerate((trained.run, checkpoint)):
        out = tmp_path / str(number)
        execute("evaluate", model, trained.manifests["val"], "--local", "--out", out)
        reports.append(read(out))
    assert reports[0]["outcomes"] == reports[1]["outcomes"]
    assert reports[0]["model"]["checkpoint"] == str(checkpoint)
