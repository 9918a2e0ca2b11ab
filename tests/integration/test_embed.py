"""`lssl-ray embed` on a real Ray: the rows of the local way, gone on with after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest
import tiny
from typer.testing import CliRunner

from lssl_ray.cli import app
from lssl_ray.embedding_files import list_parts
from lssl_ray.video.manifest import VideoRecord, build_manifest, load_manifest, save_manifest

WAIT_SECONDS = 350


@pytest.fixture(scope="module")
def manifest(videos: tiny.VideoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight videos six times over, one that was cut since, one that the index found bad."""
    folder = tmp_path_factory.mktemp("embed")
    records = load_manifest(str(videos.manifest)).records()
    cut = folder / "cut.mp4"
    cut.write_bytes(Path(records[0].path).read_bytes())
    tiny.truncate_video(cut)
    rows: list[VideoRecord] = [
        replace(record, video_id=f"{copy}/{record.video_id}")
        for copy in range(6)
        for record in records
    ]
    rows += [
        replace(records[0], video_id="cut.mp4", path=str(cut)),
        replace(records[0], video_id="empty.mp4", status="bad", reason="not_a_video"),
    ]
    path = folder / "many.parquet"
    save_manifest(build_manifest(rows, root=str(folder)), str(path))
    return path


def read_rows(out: Path) -> dict[str, dict[str, object]]:
    rows = pyarrow.dataset.dataset(out, format="parquet").to_table().to_pylist()
    found = {row["video_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def check_same_rows(out: Path, reference: Path) -> None:
    rows, expected = read_rows(out), read_rows(reference)
    assert rows.keys() == expected.keys()
    for video_id, row in rows.items():
        other = expected[video_id]
        assert (row["path"], row["label"]) == (other["path"], other["label"])
        assert row["reason"] == other["reason"]
        if row["reason"] is None:
            # Batches of another size add up in another order.
            np.testing.assert_allclose(row["embedding"], other["embedding"], atol=1e-5)
        else:
            assert row["embedding"] is None


def build_command(manifest: Path, model: Path, out: Path) -> list[str]:
    return ["embed", str(manifest), "--model", str(model), "--out", str(out)]


@pytest.fixture(scope="module")
def local_rows(manifest: Path, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference: the same rows without Ray."""
    out = tmp_path_factory.mktemp("local") / "embeddings"
    command = build_command(manifest, trained_run, out)
    done = CliRunner().invoke(app, [*command, "--local", "--rows-per-part", "8"])
    assert done.exit_code == 0, done.output
    return out


def test_embed_locally_has_a_row_for_every_video(local_rows: Path, manifest: Path) -> None:
    rows = read_rows(local_rows)
    assert len(rows) == 50
    reasons = {video_id: row["reason"] for video_id, row in rows.items() if row["reason"]}
    assert reasons.keys() == {"cut.mp4", "empty.mp4"}
    for video_id, row in rows.items():
        if video_id not in reasons:
            assert np.linalg.norm(np.array(row["embedding"])) == pytest.approx(1.0, abs=1e-5)


@contextmanager
def running(command: list[str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command in a process group of its own, as a shell would start it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lssl_ray.cli", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_embed_killed_half_way_goes_on_with_what_is_missing(
    manifest: Path, trained_run: Path, local_rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "embeddings"
    command = [*build_command(manifest, trained_run, out), "--local", "--rows-per-part", "1"]
    with running(command, tmp_path) as process:
        while process.poll() is None and len(list_parts(out)) < 5:
            time.sleep(0.005)
        process.kill()
        text, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, text
    num_before = len(read_rows(out))
    assert 5 <= num_before < 50
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"{num_before} of 50 were there already" in done.stdout
    check_same_rows(out, local_rows)


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_embed_on_ray_fills_what_is_missing_like_the_local_way(
    manifest: Path, trained_run: Path, local_rows: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(local_rows, tmp_path / "embeddings"))
    parts = list_parts(out)
    for part in (parts[0], *parts[2:]):
        part.unlink()
    num_before = len(read_rows(out))
    command = build_command(manifest, trained_run, out)
    with running([*command, "--set", "cluster.num_workers=2"], tmp_path) as process:
        text, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, text
    assert f"{num_before} of 50 were there already" in text
    check_same_rows(out, local_rows)
    assert "cut.mp4" in read_rows(out)
