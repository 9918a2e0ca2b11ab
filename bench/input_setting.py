"""What `input.py` and `soak.py` measure under: views, batches, cores; and the machine in words.

A setting becomes a run's configuration, so that every way of reading gets its views and its decode
settings from the code that a training run gets them from.
"""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml
from input_paths import Work

from lssl_ray import build
from lssl_ray.config import RunConfig, load_config_text
from lssl_ray.video.manifest import load_manifest

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "global": {"count": 2, "num_frames": 8, "size": 224},
        "local": {"count": 8, "num_frames": 8, "size": 96},
    },
    "light": {
        "global": {"count": 2, "num_frames": 8, "size": 112},
        "local": {"count": 0},
    },
    "soak": {
        "global": {"count": 2, "num_frames": 4, "size": 64},
        "local": {"count": 0},
        "window_seconds": 1.0,
    },
}
PACKAGES = ("torch", "torchvision", "numpy", "decord", "av", "pyarrow", "ray")


@dataclass(frozen=True)
class Setting:
    """One measurement's circumstances.

    Attributes:
        manifest: Path of the videos' manifest.
        folder: Where run folders and the small CLIP go.
        recipe: A key of `RECIPES`.
        clips_per_batch: Clips of one step over all workers.
        num_batches: Steps of one pass.
        num_decoders: Processes that decode.
        num_workers: Processes that consume.
        recycle_after: Videos after which a decode child is replaced.
    """

    manifest: Path
    folder: Path
    recipe: str
    clips_per_batch: int
    num_batches: int
    num_decoders: int
    num_workers: int = 1
    recycle_after: int = 500


def build_config(setting: Setting, **sections: dict[str, Any]) -> RunConfig:
    """The setting as a run's configuration; `sections` are added to it, or replace fields."""
    values: dict[str, Any] = {
        "run": {"folder": str(setting.folder), "name": "bench", "checkpoint_every": 10**9},
        "clip": {"model": f"local-dir:{setting.folder / 'clip'}"},
        "data": {
            "manifest": str(setting.manifest),
            "recycle_decoder_after": setting.recycle_after,
        },
        "views": RECIPES[setting.recipe],
        "concepts": {"labels": "bank:ucf101", "spaces": "category"},
        "optim": {
            "clips_per_step": setting.clips_per_batch,
            "max_steps": setting.num_batches,
            "epochs": 10**6,
        },
        "cluster": {
            "num_decoders": setting.num_decoders,
            "num_workers": setting.num_workers,
            "cpus_per_worker": 1,
        },
        "tracking": {"uri": None},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return load_config_text(yaml.safe_dump(values))


def build_work(setting: Setting) -> Work:
    """What the ways of reading without Ray take."""
    config = build_config(setting)
    manifest = load_manifest(str(setting.manifest)).usable()
    return Work(
        manifest=manifest,
        plan=build.build_plan(config, num_videos=len(manifest)),
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        clips_per_batch=setting.clips_per_batch,
        num_decoders=setting.num_decoders,
    )


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> dict[str, str]:
    """The machine, its load before the start, versions and the command, for a table's caption."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return {
        "machine": f"{count_cores()} cores of {', '.join(sorted(models)) or platform.machine()}, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load average before the start": f"{os.getloadavg()[0]:.1f}",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "command": f"python {' '.join(sys.argv)}",
    }
