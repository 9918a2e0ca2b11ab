"""The demo's sweep: six short trainings on the demo's world, compared without and with labels."""

import json
from pathlib import Path
from typing import Any

from lssl_ray.demo.job import RECIPE, DemoSize, prepare_demo
from lssl_ray.display import RunDisplay
from lssl_ray.sweeping.job import sweep
from lssl_ray.sweeping.request import SweepRequest, find_free_name

# Six trainings in a quarter of an hour on 2 cores: a third of the demo's steps.
SIZE = DemoSize(num_train=512, num_selection=16, num_validation=96)
HOLD_BACK = 64
NAME = "sweep"  # runs of `lssl-ray demo` beside it are called demo, demo-2, ...
OVERRIDES = ("optim.max_steps=48", "run.log_every=4", "run.checkpoint_every=12")


def run_demo_sweep(
    folder: Path, *, space: Path, seed: int, resume: str | None, display: RunDisplay
) -> dict[str, Any]:
    """Sweep a space over the demo's recipe; what was rendered before is used again."""
    folder = folder.absolute()
    request = None
    if resume is None:
        inputs = prepare_demo(folder, size=SIZE, seed=seed, display=display)
        request = SweepRequest(
            space=space,
            config=RECIPE,
            overrides=(
                *inputs.build_overrides(evaluate_on="validation"),
                f"run.folder={json.dumps(str(folder / 'runs'))}",
                f"run.seed={seed}",
                f"tracking.uri={json.dumps(f'sqlite:///{folder}/mlflow.db')}",
                *OVERRIDES,
            ),
            search="grid",
            # One trial after the other: early stopping would leave one of six to compare.
            scheduler="none",
            name=find_free_name(folder / "runs", NAME),
            hold_back=HOLD_BACK,
        )
    elif not Path(resume).is_dir():
        resume = str(folder / "runs" / resume)
    return sweep(request, resume=resume, max_concurrent=1, display=display)
