"""summary.json: a run's results and counts in one small file."""

import importlib.metadata
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lssl_ray.config import RunConfig
from lssl_ray.evaluation.report import SplitResult
from lssl_ray.tracking.journal import read_rows
from lssl_ray.types import Progress

FORMAT_VERSION = 1
_PACKAGES = ("lssl_ray", "torch", "ray", "open_clip_torch", "decord", "mlflow")


def build_summary(
    config: RunConfig,
    progress: Progress,
    *,
    num_steps: int,
    num_videos: int,
    manifest_digest: str,
    clip_digest: str,
    results: Mapping[str, SplitResult],
    quarantine: Path,
    metrics: Path,
    num_tracking_failures: int,
    validation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a person or a script wants to know of a run at a glance."""
    stages = Counter(row["stage"] for row in read_rows(quarantine))
    seconds = max(progress.train_seconds, 1e-9)
    return {
        "version": FORMAT_VERSION,
        "run": config.run.name,
        "finished": progress.step == num_steps,
        "zero_shot": {split: result.to_json() for split, result in results.items()},
        "validation": validation,
        "steps": progress.step,
        "num_steps": num_steps,
        "videos": num_videos,
        "videos_held_back": config.data.hold_back,
        "clips_trained": progress.clips_trained,
        "clips_failed": progress.clips_failed,
        "steps_skipped": progress.steps_skipped,
        "train_seconds": round(progress.train_seconds, 2),
        "clips_per_second": round(progress.clips_trained / seconds, 2),
        "data_wait_share": round(progress.data_wait_seconds / seconds, 4),
        "reader_fallbacks": int(
            sum(row.get("data/reader_fallbacks", 0) for row in read_rows(metrics))
        ),
        "quarantined": {"total": sum(stages.values()), **dict(sorted(stages.items()))},
        "tracking_calls_failed": num_tracking_failures,
        "seed": config.run.seed,
        "num_workers": config.cluster.num_workers,
        "num_workers_seen": sorted(
            {
                row["cluster/num_workers"]
                for row in read_rows(metrics)
                if "cluster/num_workers" in row
            }
        ),
        "manifest_digest": manifest_digest,
        "clip_digest": clip_digest,
        "versions": {"python": platform.python_version(), **find_versions()},
        "git_commit": find_git_commit(),
    }


def find_git_commit() -> str | None:
    """Commit of the checkout this package runs from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def find_versions() -> dict[str, str]:
    """Releases of the packages that decide results; what is not installed says so."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
