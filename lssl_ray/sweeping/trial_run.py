"""One trial of a sweep: the run that `lssl-ray train` would do, on the Ray that is there.

Started by `cluster/trial.py` as `python -m lssl_ray.sweeping.trial_run RECIPE`. It ends as a
refused or broken `lssl-ray train` does, and when its standard input ends: then who started it is
gone, or wants it stopped.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from lssl_ray import commands
from lssl_ray.config import RunConfig, load_config
from lssl_ray.display import open_display
from lssl_ray.engine import Engine
from lssl_ray.folder import RunFolder, create_run_folder, open_run_folder
from lssl_ray.locking import find_lock, holding
from lssl_ray.run import execute_run

# After a kill, what ran before may still be leaving.
LOCK_SECONDS = 90.0
# Long enough for Ray Train to end its workers and for MLflow to hear of it.
LEAVE_SECONDS = 40.0
STDIN = 0


def main() -> None:
    """Run or go on with the trial of a recipe."""
    (recipe,) = sys.argv[1:]
    _leave_with_input()
    with open_display() as display:
        config = load_config(Path(recipe))
        path = Path(config.run.folder) / config.run.name
        with holding(find_lock(path), what=str(path), seconds=LOCK_SECONDS):
            folder, resolved = open_trial_folder(path, config)
            with commands.logging_to(folder.log), commands.sigterm_as_exit():
                summary = execute_run(resolved, folder, open_engine=join_ray, display=display)
        display.show_results(summary)


def open_trial_folder(path: Path, config: RunConfig) -> tuple[RunFolder, RunConfig]:
    """The trial's run folder: as it was left, or a new one."""
    if (path / "run_config.yaml").is_file():
        return open_run_folder(path, [])
    if path.exists():
        shutil.rmtree(path)  # of a trial that was killed before its configuration was filed
    return create_run_folder(config, overwrite=False)


def join_ray(config: RunConfig) -> Engine:
    """The engine on the sweep's Ray; the filed configuration keeps the user's own address."""
    from lssl_ray.cluster.engine import RayEngine

    data = config.model_dump(mode="json", by_alias=True)
    data["cluster"]["address"] = "auto"
    return RayEngine(RunConfig.model_validate_json(json.dumps(data)))


def _leave_with_input() -> None:
    """Leave as with Ctrl-C when standard input ends: Ray Train then gives back what it holds."""

    def watch() -> None:
        # Not sys.stdin: Python ends badly while a thread waits in it.
        while os.read(STDIN, 1):
            pass
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(LEAVE_SECONDS)
        os._exit(1)

    # A shell's background jobs have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=watch, name="leave-with-input", daemon=True).start()


if __name__ == "__main__":
    main()
