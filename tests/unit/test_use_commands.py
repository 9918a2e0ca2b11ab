"""`lssl-ray predict`, `search`, `export` as a user calls them; the README's block as it stands."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.inference import VideoModel, load_model

README = Path(__file__).resolve().parents[2] / "README.md"
EXIT_BAD_FILES, EXIT_REFUSED = 1, 2
LABELS = ", ".join(tiny.ACTIONS)


def invoke(*arguments: object) -> Result:
    """Run the command in this process, on a wide and colourless terminal."""
    environment = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(item) for item in arguments], env=environment)


def refuse(*arguments: object) -> str:
    """The message of a refusal, without traceback."""
    result = invoke(*arguments)
    assert result.exit_code == EXIT_REFUSED, result.output
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture(scope="module")
def run_model(trained_run: Path) -> VideoModel:
    return load_model(trained_run, device="cpu")


@pytest.fixture(scope="module")
def embeddings(
    trained_run: Path, videos: tiny.VideoSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("use") / "embeddings"
    result = invoke("embed", videos.manifest, "--model", trained_run, "--out", out, "--local")
    assert result.exit_code == 0, result.output
    assert "8 of 8 new videos" in result.stdout
    return out


def measure_ink(path: Path) -> float:
    with Image.open(path) as image:
        return float((np.asarray(image.convert("RGB")) != 255).any(axis=-1).mean())


def test_readme_block_runs_and_gives_what_it_says(
    trained_run: Path,
    videos: tiny.VideoSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    (block,) = [block for block in blocks if "load_model" in block]
    assert len([line for line in block.splitlines() if line.strip()]) < 10
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/mine").symlink_to(trained_run)
    for name, path in zip(("a.mp4", "b.mp4"), videos.paths, strict=False):
        shutil.copy(path, name)
    names: dict[str, object] = {}
    exec(compile(block, str(README), "exec"), names)
    features, texts = names["features"], names["texts"]
    assert features.shape == (2, tiny.EMBEDDING)  # type: ignore[attr-defined]
    assert texts.shape[1] == tiny.EMBEDDING  # type: ignore[attr-defined]
    assert "a.mp4" in capsys.readouterr().out


def test_predict_shows_writes_and_draws_what_classify_says(
    run_model: VideoModel, trained_run: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    paths = videos.paths[:2]
    result = invoke(
        *("predict", *paths, "--model", trained_run, "--labels", LABELS, "--top-k", 3),
        *("--json", tmp_path / "out" / "p.json", "--picture", tmp_path / "out" / "p.png"),
    )
    assert result.exit_code == 0, result.output
    expected = run_model.classify(paths, tiny.ACTIONS, top_k=3)
    written = json.loads((tmp_path / "out" / "p.json").read_text())
    assert written["digest"] == run_model.digest
    for video, prediction in zip(written["videos"], expected, strict=True):
        assert video["path"] == prediction.path and video["reason"] is None
        assert [item["label"] for item in video["top"]] == list(prediction.labels)
        scores = [item["score"] for item in video["top"]]
        assert scores == pytest.approx(prediction.scores, abs=1e-5)
        assert f"{prediction.scores[0]:.3f}" in result.stdout
    assert 0.05 < measure_ink(tmp_path / "out" / "p.png") < 0.95
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p.json", "p.png"]


def test_predict_bad_file_is_listed_and_the_rest_goes_on(
    trained_run: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    result = invoke(
        *("predict", bad, videos.paths[0], "--model", trained_run),
        *("--json", tmp_path / "p.json", "--picture", tmp_path / "p.png"),
    )
    assert result.exit_code == EXIT_BAD_FILES, result.output
    first, second = json.loads((tmp_path / "p.json").read_text())["videos"]
    assert first["reason"] == "not_a_video" and first["top"] == []
    # Without --labels, those that the run was trained with.
    assert {item["label"] for item in second["top"]} == set(tiny.ACTIONS)
    assert "not_a_video" in result.stdout and "1 of 2" in result.stdout
    assert (tmp_path / "p.png").exists()


def test_predict_takes_labels_from_a_file_and_from_the_bank(
    tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    own = tmp_path / "labels.txt"
    own.write_text("first thing\nsecond, with a comma\n")
    arguments = ("predict", videos.paths[0], "--model", f"local-dir:{tiny_clip_dir}", "--top-k", 2)
    for source, known in ((own, "second, with a comma"), ("bank:hmdb51", "")):
        out = tmp_path / "p.json"
        result = invoke(*arguments, "--labels-file", source, "--json", out)
        assert result.exit_code == 0, result.output
        written = json.loads(out.read_text())
        assert not known or known in written["labels"]
        assert len(written["labels"]) == (2 if known else 51)


def test_predict_without_labels_to_choose_from_is_refused(
    tiny_clip_dir: Path, trained_run: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    video = videos.paths[0]
    assert "--labels" in refuse("predict", video, "--model", f"local-dir:{tiny_clip_dir}")
    for wrong in (
        ("--labels", "a,,b"),
        ("--labels", "a"),
        ("--labels-file", tmp_path / "none.txt"),
    ):
        assert refuse("predict", video, "--model", trained_run, *wrong)
    both = ("--labels", "a,b", "--labels-file", "bank:hmdb51")
    assert "not both" in refuse("predict", video, "--model", trained_run, *both)
    assert "no such folder" in refuse(
        "predict", video, "--model", "runs/nowhere", "--labels", "a,b"
    )


def test_search_ranks_videos_by_their_cosine_with_the_text(
    run_model: VideoModel,
    trained_run: Path,
    videos: tiny.VideoSet,
    embeddings: Path,
    tmp_path: Path,
) -> None:
    out, picture = tmp_path / "hits.json", tmp_path / "hits.png"
    result = invoke(
        *("search", "moving left", "--embeddings", embeddings, "--model", trained_run),
        *("--top-k", 3, "--json", out, "--picture", picture),
    )
    assert result.exit_code == 0, result.output
    features = run_model.encode_video(videos.paths).require_all()
    cosines = (features @ run_model.encode_text("moving left").T)[:, 0]
    hits = json.loads(out.read_text())["hits"]
    best = cosines.topk(3)
    assert [hit["path"] for hit in hits] == [str(videos.paths[i]) for i in best.indices.tolist()]
    np.testing.assert_allclose([hit["score"] for hit in hits], best.values.numpy(), atol=1e-6)
    assert measure_ink(picture) > 0.05


def test_search_like_a_video_finds_others(
    trained_run: Path, videos: tiny.VideoSet, embeddings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "hits.json"
    arguments = ("--embeddings", embeddings, "--model", trained_run, "--top-k", 8)
    result = invoke("search", "--like", videos.paths[0], *arguments, "--json", out)
    assert result.exit_code == 0, result.output
    hits = json.loads(out.read_text())["hits"]
    assert len(hits) == 7 and str(videos.paths[0]) not in [hit["path"] for hit in hits]


def test_search_impossible_requests_are_refused(
    trained_run: Path, tiny_clip_dir: Path, embeddings: Path, tmp_path: Path
) -> None:
    run = ("--embeddings", embeddings, "--model", trained_run)
    assert "--like" in refuse("search", *run)
    assert "--like" in refuse("search", "a", "--like", "b.mp4", *run)
    assert "b.mp4" in refuse("search", "--like", "b.mp4", *run)
    clip = f"local-dir:{tiny_clip_dir}"
    assert "another" in refuse("search", "a", "--embeddings", embeddings, "--model", clip)
    assert "lssl-ray embed" in refuse("search", "a", "--embeddings", tmp_path, "--model", clip)


def test_embed_into_another_models_folder_is_refused(
    tiny_clip_dir: Path, videos: tiny.VideoSet, embeddings: Path
) -> None:
    clip = f"local-dir:{tiny_clip_dir}"
    arguments = ("embed", videos.manifest, "--model", clip, "--out", embeddings)
    assert "not of this model" in refuse(*arguments, "--local")
    assert "cluster" in refuse(*arguments, "--set", "optim.epochs=1")


def test_embed_into_a_jobs_own_copy_is_refused(
    tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    out = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123" / "embeddings"
    clip = f"local-dir:{tiny_clip_dir}"
    assert "absolute path" in refuse("embed", videos.manifest, "--model", clip, "--out", out)
    assert not out.exists()


def test_export_by_command_and_its_refusals(trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    result = invoke("export", trained_run, "--out", out, "--labels", "x, y")
    assert result.exit_code == 0, result.output
    assert load_model(out, device="cpu").labels == ("x", "y")
    other = ("export", trained_run, "--out", tmp_path / "other")
    assert "--drop-temporal" in refuse(*other, "--format", "open_clip")
    for wrong in (("--drop-temporal",), ("--register", "name"), ("--measure", "a.mp4")):
        assert wrong[0] in refuse(*other, *wrong)
    assert not (tmp_path / "other").exists()
