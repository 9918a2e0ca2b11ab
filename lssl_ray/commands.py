"""What the verbs do: shared by the command line, `jobs/` and the demo."""

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lssl_ray.config import RunConfig, load_config
from lssl_ray.display import RunDisplay
from lssl_ray.engine import Engine, LocalEngine
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.folder import (
    RunFolder,
    create_run_folder,
    find_store,
    open_run_folder,
    open_stored_run,
)
from lssl_ray.full_disk import is_disk_full
from lssl_ray.run import execute_run
from lssl_ray.storage.mirror import mirroring
from lssl_ray.training.disk_room import describe_full_run
from lssl_ray.video.remote import has_scheme

DEFAULT_FOLDER = "runs"


def train(
    *,
    config: Path | None,
    overrides: Sequence[str],
    run_name: str | None,
    resume: str | None,
    overwrite: bool,
    local: bool,
    display: RunDisplay,
) -> dict[str, Any]:
    """Start or resume a run; returns its summary.

    Raises:
        LsslError: What is wrong and what to do.
    """
    overrides = list(overrides)
    if resume is not None:
        if config is not None or run_name is not None or overwrite:
            raise ConfigError(
                "--resume goes on with a run as it was configured; leave out --config, --run-name "
                "and --overwrite (use --set for what may change)."
            )
        if has_scheme(resume):
            folder, resolved = open_stored_run(resume, overrides, parent=Path(DEFAULT_FOLDER))
        else:
            folder, resolved = open_run_folder(_find_run(resume), overrides)
    else:
        if run_name is not None:
            overrides.append(f"run.name={json.dumps(run_name)}")
        folder, resolved = create_run_folder(load_config(config, overrides), overwrite=overwrite)
    kept = mirroring(find_store(resolved), folder.path)
    with logging_to(folder.log), sigterm_as_exit(), _telling_full_disk(folder), kept:
        summary = execute_run(
            resolved, folder, open_engine=pick_engine(local=local), display=display
        )
    display.show_results(summary)
    display.show_lines(*_describe_end(summary, folder, resolved))
    return summary


def pick_engine(*, local: bool) -> Callable[[RunConfig], Engine]:
    """Ray, or this process."""
    if local:
        return lambda config: LocalEngine()
    from lssl_ray.cluster.engine import RayEngine

    return RayEngine


def _find_run(name: str) -> Path:
    """A run by folder, or by name below `runs/`."""
    if (Path(name) / "run_config.yaml").is_file():
        return Path(name).absolute()
    return Path(DEFAULT_FOLDER, name).absolute()


def _describe_end(summary: dict[str, Any], folder: RunFolder, config: RunConfig) -> list[str]:
    quarantined = summary["quarantined"]["total"]
    lines = [
        f"{summary['steps']} of {summary['num_steps']} steps, {summary['clips_trained']} clips in "
        f"{summary['train_seconds']:.0f} s ({summary['clips_per_second']:.1f} clips/s, "
        f"{100 * summary['data_wait_share']:.0f} % of it waiting for data)",
        f"Run folder: {folder.path}",
    ]
    store = find_store(config)
    if store is not None:
        lines.append(f"Kept at: {store.uri}")
    validation = summary["validation"]
    if validation["best"] is not None:
        best = validation["best"]
        lines.append(
            f"Best checkpoint: step {best['step']}, {best['metric']} {best['value']:.4f} "
            f"({folder.best})"
        )
    if validation["not_evaluated"]:
        lines.append(
            f"Not evaluated: {len(validation['not_evaluated'])} checkpoints (reasons in "
            f"{folder.summary})"
        )
    if quarantined:
        lines.append(f"Quarantined: {quarantined} (reasons in {folder.quarantine})")
    if not summary["finished"]:
        # The saved configuration would end the next session where this one ended.
        further = " --set run.stop_at_step=null" if config.run.stop_at_step else ""
        place = folder.path if store is None else store.uri
        lines.append(f"To go on: lssl-ray train --resume {place}{further}")
    if config.tracking.uri is not None:
        is_server = config.tracking.uri.startswith("http")
        place = "" if is_server else "mlflow ui --backend-store-uri "
        lines.append(f"Compare runs: {place}{config.tracking.uri}")
    return lines


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Library talk goes to the run's log, warnings of ours to the person as well.

    Ray's native code writes to the process' standard error, past Python: that, too, is moved to
    the log, while our own warnings keep the person's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    persons_stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)
    log = path.open("a", encoding="utf-8")
    file = logging.StreamHandler(log)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    shown = logging.StreamHandler(persons_stderr)
    shown.setLevel(logging.WARNING)
    root, ours = logging.getLogger(), logging.getLogger("lssl_ray")
    root.addHandler(file)
    ours.addHandler(shown)
    os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(persons_stderr.fileno(), 2)
        root.removeHandler(file)
        ours.removeHandler(shown)
        try:
            log.close()
        except OSError as error:  # a full disk; it must not hide why the run ended
            persons_stderr.write(f"{path} lacks its last lines: {error}\n")
        persons_stderr.close()


@contextmanager
def _telling_full_disk(folder: RunFolder) -> Iterator[None]:
    """Whatever was being written: a row, a picture, a checkpoint."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise CheckpointError(describe_full_run(folder.path)) from error


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """A terminated job unwinds like Ctrl-C, so that the tracked run ends as KILLED."""

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
