"""Exports: read back equal to the bit, loadable by open_clip, honest about what is lost."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.export import export_folder, export_open_clip, is_frame_average
from lssl_ray.inference import VideoModel, load_model

COMMAND = "lssl-ray export runs/trained --out exported"


@pytest.fixture(scope="module")
def run_model(trained_run: Path) -> VideoModel:
    return load_model(trained_run, device="cpu")


@pytest.fixture(scope="module")
def exported(run_model: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a folder of its own; read only."""
    out = tmp_path_factory.mktemp("export") / "exported"
    export_folder(run_model, out, labels=None, command=COMMAND)
    return out


def draw_pixels(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, 3, size, size, generator=torch.Generator().manual_seed(0))


def average_frames(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    """Frame-averaged features by open_clip alone, of a local folder."""
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        each = model.eval().encode_image(pixels.flatten(0, 1), normalize=True)
    mean: torch.Tensor = F.normalize(each.unflatten(0, pixels.shape[:2]).mean(dim=1), dim=-1)
    return mean


def test_export_folder_reads_back_equal_to_the_bit(
    run_model: VideoModel, exported: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    # Away from its place, and from run and CLIP, which it must not need.
    moved = Path(shutil.copytree(exported, tmp_path / "moved"))
    model = load_model(moved, device="cpu")
    assert model.digest == run_model.digest
    for size in (32, 48):
        pixels = draw_pixels(size)
        assert torch.equal(model.encode_clip(pixels), run_model.encode_clip(pixels))
    assert torch.equal(model.encode_text(["x", "y"]), run_model.encode_text(["x", "y"]))
    assert model.logit_scale == run_model.logit_scale
    paths = videos.paths[:2]
    assert model.classify(paths, tiny.ACTIONS) == run_model.classify(paths, tiny.ACTIONS)
    for name in ("name", "mean", "std", "view", "templates", "labels"):
        assert getattr(model.parts, name) == getattr(run_model.parts, name)
    assert model.parts.decoding.short_side == run_model.parts.decoding.short_side


def test_export_folder_holds_safe_files_and_no_paths_of_this_machine(
    exported: Path, trained_run: Path, tiny_clip_dir: Path
) -> None:
    files = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "lssl_model.json",
        "temporal.safetensors",
        "clip/open_clip_config.json",
        "clip/open_clip_model.safetensors",
    }
    assert [path.name for path in exported.parent.iterdir()] == ["exported"]
    card = json.loads((exported / "lssl_model.json").read_text())
    assert card["view"]["num_frames"] == 2 and card["view"]["size"] == 32
    assert tuple(card["labels"]) == tiny.ACTIONS
    assert card["command"] == COMMAND
    for text in (exported / "README.md", exported / "lssl_model.json"):
        for place in (trained_run, tiny_clip_dir):
            assert str(place) not in text.read_text()


def test_export_model_card_has_the_numbers_of_the_summary(
    exported: Path, trained_run: Path
) -> None:
    text = (exported / "README.md").read_text()
    summary = json.loads((trained_run / "summary.json").read_text())
    result = summary["zero_shot"]["test"]
    row = (
        f"| test | {result['videos']} | {result['clip_top1']:.1f} | {result['adapted_top1']:.1f} |"
    )
    assert row in text
    assert COMMAND in text and 'load_model("exported")' in text


def test_export_of_plain_clip_with_own_labels_reads_back(
    tiny_clip_dir: Path, tmp_path: Path
) -> None:
    model = load_model(f"local-dir:{tiny_clip_dir}", device="cpu")
    export_folder(model, tmp_path / "out", labels=["a", "b"], command=COMMAND)
    again = load_model(tmp_path / "out", device="cpu")
    assert again.labels == ("a", "b")
    assert torch.equal(again.encode_clip(draw_pixels()), model.encode_clip(draw_pixels()))


def test_export_keeps_the_activation_that_the_weights_were_trained_with(tmp_path: Path) -> None:
    clip = tiny.write_tiny_clip(tmp_path / "clip", quick_gelu=True)
    model = load_model(f"local-dir:{clip}", device="cpu")
    export_folder(model, tmp_path / "out", labels=None, command=COMMAND)
    again = load_model(tmp_path / "out", device="cpu")
    assert torch.equal(again.encode_clip(draw_pixels()), model.encode_clip(draw_pixels()))
    assert torch.equal(again.encode_text("x"), model.encode_text("x"))


def test_export_into_what_is_there_is_refused(run_model: VideoModel, exported: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    with pytest.raises(ConfigError, match="exported"):
        export_folder(run_model, exported, labels=None, command=COMMAND)
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before


@pytest.mark.parametrize("name", ["temporal.safetensors", "clip/open_clip_model.safetensors"])
def test_load_model_export_with_other_weights_is_refused(
    exported: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "changed"))
    weights = load_file(folder / name)
    changed = next(key for key in weights if "temporal_out" in key or "visual.proj" in key)
    weights[changed] = weights[changed] + 1e-3
    save_file(weights, folder / name)
    with pytest.raises(CheckpointError, match="not those"):
        load_model(folder)


def test_load_model_damaged_export_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "changed"))
    card = json.loads((folder / "lssl_model.json").read_text())
    for change, named in (
        ({"version": 99}, "99"),
        ({"view": {}}, "num_frames"),
        ({"format": "other"}, "other"),
    ):
        (folder / "lssl_model.json").write_text(json.dumps(card | change))
        with pytest.raises(CheckpointError, match=named):
            load_model(folder)
    (folder / "lssl_model.json").write_text(json.dumps(card))
    (folder / "temporal.safetensors").unlink()
    with pytest.raises(CheckpointError, match="temporal"):
        load_model(folder)
    with pytest.raises(ConfigError, match="own weights"):
        load_model(exported, weights="openai")


def test_export_open_clip_of_plain_clip_is_exact(tiny_clip_dir: Path, tmp_path: Path) -> None:
    model = load_model(f"local-dir:{tiny_clip_dir}", device="cpu")
    assert is_frame_average(model.parts.encoder)
    export_open_clip(model, tmp_path / "out", drop_temporal=False, command=COMMAND)
    pixels = draw_pixels()
    expected = model.encode_clip(pixels)
    torch.testing.assert_close(
        average_frames(tmp_path / "out", pixels), expected, atol=1e-6, rtol=0
    )
    again = load_model(tmp_path / "out", device="cpu")
    assert torch.equal(again.encode_clip(pixels), expected)


def test_export_open_clip_that_would_lose_time_is_refused_unless_asked(
    run_model: VideoModel, tmp_path: Path
) -> None:
    assert not is_frame_average(run_model.parts.encoder)
    with pytest.raises(ConfigError, match="--drop-temporal"):
        export_open_clip(run_model, tmp_path / "out", drop_temporal=False, command=COMMAND)
    assert list(tmp_path.iterdir()) == []


def test_export_open_clip_keeps_space_loses_time_and_says_how_much(
    run_model: VideoModel, videos: tiny.VideoSet, tmp_path: Path, tiny_clip_dir: Path
) -> None:
    out = tmp_path / "out"
    paths = [str(path) for path in videos.paths[:3]]
    lost = export_open_clip(run_model, out, drop_temporal=True, command=COMMAND, measure_on=paths)
    weights = load_file(out / "open_clip_model.safetensors")
    adapted = run_model.parts.encoder.state_dict()
    clip = load_file(tiny_clip_dir / "open_clip_model.safetensors")
    assert weights.keys() == clip.keys()
    for name, value in weights.items():
        kept = adapted[name.removeprefix("visual.")] if name.startswith("visual.") else clip[name]
        assert torch.equal(value, kept), name
    # The measured cosine, by open_clip and from the decoded frames.
    cosines = []
    for path in paths:
        frames = torch.from_numpy(run_model.decode_video(path)).movedim(-1, 1) / 255
        mean, std = (
            torch.tensor(v).view(3, 1, 1) for v in (run_model.parts.mean, run_model.parts.std)
        )
        flat = average_frames(out, ((frames - mean) / std)[None])
        cosines.append((flat @ run_model.encode_video(path).features.T).item())
    assert lost is not None and lost.num_videos == 3
    assert lost.mean_cosine == pytest.approx(sum(cosines) / 3, abs=1e-5)
    assert lost.min_cosine == pytest.approx(min(cosines), abs=1e-5) and lost.min_cosine < 0.9999
    card = (out / "README.md").read_text()
    assert "left out" in card and f"{lost.mean_cosine:.4f}" in card
