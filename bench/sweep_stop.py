"""How long a trial that is stopped early keeps the cluster's cores.

A sweep of two configurations on the demo's world, one after the other: the second one's loss
weighs a thousandfold, so that it is stopped at a quarter of its steps. Meanwhile Ray is asked every
tenth of a second how many logical cores are free.

    python bench/sweep_stop.py --folder demo
"""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Annotated

import ray
import typer

from lssl_ray.demo.job import RECIPE, SMALL, prepare_demo
from lssl_ray.display import open_display
from lssl_ray.sweeping.job import sweep
from lssl_ray.sweeping.record import RECORD_FILE, open_record
from lssl_ray.sweeping.request import SweepRequest

POLL_SECONDS = 0.1
SPACE = '''"""How soon are a stopped trial's cores back?"""

from ray import tune


def build_space():
    return {"objective.weight_distill_category": tune.choice([1.0, 1000.0])}
'''


class CoreWatch(threading.Thread):
    """Notes free cores and the trials' statuses while a sweep goes on."""

    def __init__(self, record: Path) -> None:
        super().__init__(daemon=True)
        self.rows: list[tuple[float, float, str]] = []
        self.total = 0.0
        self._record = record
        self._done = threading.Event()

    def run(self) -> None:
        """Look until stopped."""
        while not self._done.wait(POLL_SECONDS):
            if not ray.is_initialized() or not self._record.exists():
                continue
            statuses = [trial.status for trial in open_record(self._record.parent).trials]
            self.total = max(self.total, ray.cluster_resources().get("CPU", 0.0))
            free = ray.available_resources().get("CPU", 0.0)
            self.rows.append((time.monotonic(), free, statuses[-1]))

    def stop(self) -> None:
        """End looking."""
        self._done.set()
        self.join()


def main(
    folder: Annotated[Path, typer.Option(help="Where the demo's world is or goes.")] = Path("demo"),
) -> None:
    folder = folder.absolute()
    path = folder / "runs" / "sweep-stop"
    shutil.rmtree(path, ignore_errors=True)
    space = folder / "sweep_stop_space.py"
    with open_display() as display:
        inputs = prepare_demo(folder, size=SMALL, seed=0, display=display)
        space.write_text(SPACE, encoding="utf-8")
        request = SweepRequest(
            space=space,
            config=RECIPE,
            overrides=(
                *inputs.build_overrides(evaluate_on="validation"),
                "evaluation.manifests={}",
                f"run.folder={json.dumps(str(folder / 'runs'))}",
                "tracking.uri=null",
                "optim.max_steps=24",
                "optim.epochs=100",
                "run.log_every=1",
                "run.checkpoint_every=6",
            ),
            search="grid",
            metric="-loss/total",
            name=path.name,
        )
        watch = CoreWatch(path / RECORD_FILE)
        watch.start()
        sweep(request, resume=None, max_concurrent=1, display=display)
        watch.stop()
    stopped = next((at for at, _, status in watch.rows if status == "stopped_early"), None)
    if stopped is None:
        raise SystemExit("The second trial was not stopped; nothing to measure.")
    back = next((at for at, free, _ in watch.rows if at >= stopped and free >= watch.total), None)
    print(f"logical cores: {watch.total:.0f}")
    if back is None:
        raise SystemExit("The cores did not come back while the sweep ran.")
    print(f"from the decision to stop until all of them are free: {back - stopped:.1f} s")


if __name__ == "__main__":
    typer.run(main)
