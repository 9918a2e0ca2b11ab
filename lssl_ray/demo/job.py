"""The demo: render a world, lay out its CLIP, index, then train as `lssl-ray train` does."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssl_ray import commands, indexing
from lssl_ray.demo.packed_clip import unpack_tiny_clip
from lssl_ray.demo.world import SPLITS, render_world
from lssl_ray.display import RunDisplay

RECIPE = Path(__file__).parent / "recipe.yaml"
LABELS = Path(__file__).parent / "labels.yaml"
NUM_PROCESSES = 2


@dataclass(frozen=True)
class DemoSize:
    """How many videos are rendered, and what else makes a demo shorter."""

    num_train: int
    num_selection: int
    num_validation: int
    overrides: tuple[str, ...] = ()


FULL = DemoSize(num_train=960, num_selection=240, num_validation=400)
SMALL = DemoSize(
    num_train=160,
    num_selection=16,
    num_validation=80,
    overrides=("optim.max_steps=12", "run.log_every=2", "run.checkpoint_every=6"),
)


@dataclass(frozen=True)
class DemoInputs:
    """What a training run on the demo world needs."""

    clip: Path
    manifests: dict[str, Path]

    def build_overrides(self, *, evaluate_on: str) -> list[str]:
        """Settings that point the recipe at these inputs."""
        return [
            f"clip.model={json.dumps(f'local-dir:{self.clip}')}",
            f"data.manifest={json.dumps(str(self.manifests['train']))}",
            f"concepts.labels={json.dumps(str(LABELS))}",
            f"evaluation.manifests.{evaluate_on}={json.dumps(str(self.manifests[evaluate_on]))}",
        ]


def run_demo(
    folder: Path, *, small: bool, seed: int, local: bool, display: RunDisplay
) -> dict[str, Any]:
    """The whole demo; returns the run's summary. What was made before is used again."""
    folder = folder.absolute()
    size = SMALL if small else FULL
    inputs = prepare_demo(folder, size=size, seed=seed, display=display)
    overrides = [
        *inputs.build_overrides(evaluate_on="validation"),
        f"run.folder={json.dumps(str(folder / 'runs'))}",
        f"run.seed={seed}",
        f"tracking.uri={json.dumps(f'sqlite:///{folder}/mlflow.db')}",
        *size.overrides,
    ]
    return commands.train(
        config=RECIPE,
        overrides=overrides,
        run_name=_free_name(folder / "runs"),
        resume=None,
        overwrite=False,
        local=local,
        display=display,
    )


def prepare_demo(folder: Path, *, size: DemoSize, seed: int, display: RunDisplay) -> DemoInputs:
    """World, manifests and CLIP of a seed, made where they are missing."""
    total = size.num_train + size.num_selection + size.num_validation
    world = folder / f"world-{seed}-{total}"
    done = world / "world.json"
    if not done.exists():
        display.show_phase(f"Rendering a small world: {total} videos of stick figures")
        report = render_world(
            world,
            seed=seed,
            num_train=size.num_train,
            num_selection=size.num_selection,
            num_validation=size.num_validation,
            num_workers=NUM_PROCESSES,
            on_progress=lambda count, all_videos: display.show_count(count, all_videos, "videos"),
        )
        done.write_text(json.dumps({"num_per_action": report.num_per_action}, indent=2))
    manifests = {}
    for split in SPLITS:
        manifests[split] = world / f"{split}.parquet"
        if not manifests[split].exists():
            indexing.index(
                [str(world / split)],
                manifests[split],
                labels="none" if split == "train" else "folders",
                split=split,
                num_workers=NUM_PROCESSES,
                deadline_seconds=20.0,
                display=display,
            )
    clip = unpack_tiny_clip(folder / "clip")
    return DemoInputs(clip=clip, manifests=manifests)


def _free_name(runs: Path) -> str:
    """demo, demo-2, demo-3, ...: each run of the demo stays for comparison."""
    taken = {path.name for path in runs.glob("*")}
    names = ("demo" if number == 1 else f"demo-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
