"""Files as they lie in real folders, broken in every way, and runs whose every clip is watched."""

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tiny
from rich.console import Console

import lssl_ray.engine
from lssl_ray import commands
from lssl_ray.display import RunDisplay
from lssl_ray.tracking.journal import read_rows
from lssl_ray.types import ClipBatch
from lssl_ray.video.manifest import Manifest, save_manifest

SABOTAGE = Path(__file__).parent / "sabotage"  # on the path, it makes `segfault*` and `hang*` real
Visit = tuple[int, str]  # epoch and video_id


def write_good_videos(folder: Path, names: list[str]) -> list[Path]:
    """One small video under many names."""
    first = tiny.write_video(folder / names[0], tiny.paint_frames("moving left"))
    return [first, *(Path(shutil.copy(first, folder / name)) for name in names[1:])]


def write_bad_folder(folder: Path) -> dict[str, str | None]:
    """Everything a folder may hold; returns video_id to reason, None for what is usable."""
    return _write_usable(folder) | _write_unusable(folder)


def _write_usable(folder: Path) -> dict[str, str | None]:
    long_name = "l" * 251 + ".mp4"  # as long as a name may be
    names = ["good 0.mp4", "good 1.mp4", "na\u00efve \u65e5\u672c \U0001f3ac.mp4", long_name]
    (good, *_) = write_good_videos(folder, names)
    write_good_videos(folder / ".hidden", ["good.mp4"])
    write_good_videos(folder / "folder.mp4", ["inside.mp4"])
    (folder / "again.mp4").symlink_to(good)  # met before, under its link's name: sorted first
    for count in (1, 2):
        tiny.write_video(folder / f"frames_{count}.mp4", tiny.paint_frames("darkening")[:count])
    tiny.write_video(folder / "frames_8k.mp4", np.full((2, 4320, 7680, 3), 90, dtype=np.uint8))
    write_shortened(folder / "shortened.mp4")
    usable = ["again.mp4", *names[1:], "folder.mp4/inside.mp4"]
    usable += ["frames_1.mp4", "frames_2.mp4", "frames_8k.mp4", "shortened.mp4"]
    return dict.fromkeys(usable)


def _write_unusable(folder: Path) -> dict[str, str | None]:
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")
    write_sound(folder / "sound.mp4")
    tiny.truncate_video(write_good_videos(folder, ["no_index.mp4"])[0])
    (folder / "broken_link.mp4").symlink_to("nowhere.mp4")
    (folder / "link_to_itself.mp4").symlink_to("link_to_itself.mp4")
    with open(os.fsencode(folder) + b"/caf\xe9.mp4", "wb") as file:  # no UTF-8
        file.write(b"x")
    reasons: dict[str, str | None] = {
        "zero.mp4": "not_a_video",
        "text.mp4": "not_a_video",
        "sound.mp4": "not_a_video",
        "no_index.mp4": "not_a_video",
        "broken_link.mp4": "missing",
        "link_to_itself.mp4": "unreadable",
        "caf\\xe9.mp4": "unreadable",
    }
    if os.geteuid():  # root may read everything
        write_good_videos(folder, ["forbidden.mp4"])[0].chmod(0)
        reasons["forbidden.mp4"] = "unreadable"
    return reasons


def write_shortened(path: Path) -> None:
    """A video whose container promises 64 frames, cut so that about half of them are there."""
    frames = np.random.default_rng(0).integers(0, 255, (64, 64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.gop_size = 4
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    os.truncate(path, path.stat().st_size // 2)


def write_sound(path: Path) -> None:
    """An MP4 with sound only."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        samples = np.zeros((1, 1024), dtype=np.float32)
        for number in range(16):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@dataclass
class Audit:
    """What a local run's training loop was given, clip by clip.

    Attributes:
        trained: How often each visit was trained on.
        lost: How often each visit was reported as lost.
        after_step: Called with the number of each step, when its batch is handed over.
    """

    num_videos: int
    trained: Counter[Visit] = field(default_factory=Counter)
    lost: Counter[Visit] = field(default_factory=Counter)
    after_step: Callable[[int], None] = lambda step: None

    def watch(
        self, iterate: Callable[..., Iterator[ClipBatch]]
    ) -> Callable[..., Iterator[ClipBatch]]:
        """The same iterator, noting what comes through."""

        def watched(*arguments: Any, **options: Any) -> Iterator[ClipBatch]:
            for step, batch in enumerate(iterate(*arguments, **options), start=1):
                for position, name in zip(batch.positions, batch.video_ids, strict=True):
                    self.trained[position // self.num_videos, name] += 1
                self.lost.update((failure.epoch, failure.video_id) for failure in batch.failures)
                self.after_step(step)
                yield batch

        return watched


def visits(names: list[str], *, epochs: int) -> Counter[Visit]:
    """Every video once in every epoch."""
    return Counter((epoch, name) for epoch in range(epochs) for name in names)


def read_quarantine(run: Path, stage: str) -> list[dict[str, Any]]:
    """Rows of a run's quarantine list that one stage wrote."""
    return [row for row in read_rows(run / "quarantine.jsonl") if row["stage"] == stage]


def count_lost(run: Path) -> Counter[Visit]:
    """Visits that a run's quarantine list names, as often as it names them."""
    return Counter((row["epoch"], row["video_id"]) for row in read_quarantine(run, "train"))


class Trainer:
    """Trains on manifests as `lssl-ray train --local` does, with every clip watched."""

    def __init__(self, folder: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = folder / "runs" / "run"
        self.audit = Audit(num_videos=0)
        self._manifest = folder / "own.parquet"
        self._recipe = recipe
        self._monkeypatch = monkeypatch

    def train(self, manifest: Manifest, *overrides: str) -> None:
        """A run from its start, on a manifest of its own."""
        save_manifest(manifest, str(self._manifest))
        self.audit.num_videos = len(manifest.usable())
        with self._monkeypatch.context() as patch:
            watched = self.audit.watch(lssl_ray.engine.iterate_batches)
            patch.setattr(lssl_ray.engine, "iterate_batches", watched)
            self.start(f"data.manifest={self._manifest}", *overrides)

    def start(self, *overrides: str) -> None:
        """A run from its start, on the recipe's manifest unless told otherwise."""
        with RunDisplay(Console(file=io.StringIO())) as display:
            commands.train(
                config=self._recipe,
                overrides=["evaluation.manifests={}", *overrides],
                run_name="run",
                resume=None,
                overwrite=False,
                local=True,
                display=display,
            )

    def check(self, *, epochs: int, lost: Counter[Visit], names: list[str]) -> None:
        """Every visit was trained on once or is lost, in all records alike."""
        expected = visits(names, epochs=epochs)
        assert self.audit.trained == expected - lost
        assert self.audit.lost == count_lost(self.run) == lost
        summary: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        assert summary["finished"]
        assert summary["clips_trained"] == sum((expected - lost).values())
        assert summary["clips_failed"] == sum(lost.values())
