"""`lssl-ray concepts generate --videos`: what a multimodal model is shown of one's own videos."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from chat_stub import (
    Body,
    name_or_describe,
    read_prompt,
    serve,
)
from PIL import Image
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.generation.frames import Clip, FrameReader


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and no key of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def generate(url: str, *arguments: object) -> Result:
    fixed = ["concepts", "generate", "--base-url", url, "--model", "stub", "--max-retries", "0"]
    environment = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [*fixed, *map(str, arguments)], env=environment)


def load_output(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def list_missing(path: Path) -> list[str]:
    return [row["name"] for row in json.loads(path.read_text(encoding="utf-8"))]


def decode_images(body: Body) -> list[Image.Image]:
    """The pictures of a request."""
    images = []
    for part in body["messages"][1]["content"][1:]:
        head, _, data = part["image_url"]["url"].partition(",")
        assert (part["type"], head) == ("image_url", "data:image/jpeg;base64")
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        image.load()
        images.append(image)
    return images


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_generate_videos_shows_whole_frames_in_order_and_merges_labels(
    workplace: Path, videos: tiny.VideoSet, kind: str
) -> None:
    source = videos.folder if kind == "folder" else videos.manifest
    with serve(name_or_describe) as stub:
        result = generate(stub.url, "--videos", source, "--frames", 3, "--sample", 4)
    assert result.exit_code == 0, result.output
    shown = [body for body in stub.bodies if "Actions:\n" not in read_prompt(body)]
    assert len(shown) == 4
    assert len(stub.bodies) == 5
    levels = []
    for body in shown:
        images = decode_images(body)
        assert [image.format for image in images] == ["JPEG"] * 3
        size = (tiny.VIDEO_WIDTH, tiny.VIDEO_HEIGHT)
        assert [image.size for image in images] == [size] * 3
        levels.append([image.convert("L").resize((1, 1)).getpixel((0, 0)) for image in images])
    # Sampling is even over the folders: one video brightens, one darkens.
    assert sum(first < middle < last for first, middle, last in levels) == 1
    assert sum(first > middle > last for first, middle, last in levels) == 1
    data = load_output(Path("vocabulary.yaml"))
    assert list(data["labels"]) == ["Moving Left"]
    assert data["provenance"]["source"] == {"videos": 8, "clips_shown": 4, "frames_per_clip": 3}


def test_generate_videos_damaged_clip_is_listed_and_not_replaced(workplace: Path) -> None:
    tiny.write_video(Path("v/a.mp4"), tiny.paint_frames("moving left"))
    tiny.truncate_video(tiny.write_video(Path("v/b.mp4"), tiny.paint_frames("moving right")))
    with serve(name_or_describe) as stub:
        result = generate(stub.url, "--videos", "v", "--sample", 2)
    assert result.exit_code == 1, result.output
    assert len(stub.bodies) == 2
    assert list_missing(Path("vocabulary.yaml.failed.json")) == ["b.mp4"]


def test_frames_of_large_video_are_made_smaller_and_of_short_one_not_repeated(
    tmp_path: Path,
) -> None:
    frames = tiny.paint_frames("brightening", num_frames=2).repeat(10, axis=1).repeat(10, axis=2)
    path = tiny.write_video(tmp_path / "a.mp4", frames)
    with FrameReader() as reader:
        jpegs = reader.read(Clip("a", str(path)), num_frames=4)
    assert [Image.open(io.BytesIO(jpeg)).size for jpeg in jpegs] == [(504, 336)] * 2
