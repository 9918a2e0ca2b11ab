"""Zero-shot on rendered demo videos against a script that uses nothing of ours."""

from pathlib import Path
from typing import Any

import numpy as np
import plain_zero_shot
import pytest
from evaluate_command import execute, read

from lssl_ray.demo.packed_clip import unpack_tiny_clip
from lssl_ray.demo.world import render_video
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import save_manifest

pytestmark = pytest.mark.timeout(240)


def predict(report: dict[str, Any], model: str) -> list[str]:
    """Predicted names of the first outcome's first part."""
    result = report["outcomes"][0]["parts"][0]["results"][model]
    return [result["labels"][ranked[0]] for ranked in result["ranking"]]


def test_evaluate_demo_videos_agrees_with_an_independent_script(tmp_path: Path) -> None:
    clip = unpack_tiny_clip(tmp_path / "clip")
    facts = [
        render_video(tmp_path / "world", seed=5, split="validation", index=index)
        for index in range(32)
    ]
    manifest, _ = index_videos([str(tmp_path / "world")], labels="folders", deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "world.parquet"))
    labels = sorted({fact.label for fact in facts})
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    execute(
        "evaluate", f"local-dir:{clip}", tmp_path / "world.parquet", "--local",
        "--labels", tmp_path / "labels.txt", "--out", tmp_path / "out",
    )  # fmt: skip
    report = read(tmp_path / "out")
    records = {record.video_id: record for record in manifest.records()}
    paths = [records[video].path for video in report["videos"]]
    theirs = plain_zero_shot.classify(f"local-dir:{clip}", paths, labels, report["templates"])
    assert predict(report, "clip") == theirs
    truth = [records[video].label for video in report["videos"]]
    top1 = 100 * np.mean([a == b for a, b in zip(theirs, truth, strict=True)])
    assert report["outcomes"][0]["models"]["clip"]["top1_percent"] == pytest.approx(top1, abs=1e-3)
    assert len(set(theirs)) > 4  # a script that says one thing would agree too easily
    assert (tmp_path / "out" / "report.html").is_file()
