"""The run folder: where each file of a run is, and who may write into it.

::

    runs/NAME/
        run_config.yaml     the resolved configuration, valid as --config
        summary.json        results and counts
        metrics.jsonl       a row per window of steps
        quarantine.jsonl    a row per video or clip that could not be decoded
        events.jsonl        what happened to the run: workers started again, a damaged checkpoint
        checkpoints/        step_########/ (training/checkpoint.py)
        best/               the best checkpoint by evaluation.best, with best.json
        validation/         while it trains: checkpoints that wait to be evaluated, decoded videos
        artifacts/          concept space, evaluation tables, pictures
        logs/               what Ray and the libraries had to say

With `run.storage` it is the working copy of a run that is kept behind a URI (`storage/`).
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssl_ray.concepts.bank import BANK_PREFIX
from lssl_ray.config import RunConfig, dump_config, load_config
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.storage.claims import claim, require_free
from lssl_ray.storage.runs import bring_together, require_copy, require_same_store
from lssl_ray.storage.store import RunStore, find_run_store, open_run_store, split_run_uri
from lssl_ray.tracking.journal import METRICS_FILE, QUARANTINE_FILE
from lssl_ray.training.checkpoint import list_checkpoints
from lssl_ray.training.holding import HELD_FOLDER
from lssl_ray.validation.best import BEST_FOLDER
from lssl_ray.whole_files import write_whole

CONFIG_FILE = "run_config.yaml"
# Overrides that a resumed run may bring: nothing that changes what is computed.
RESUMABLE_SECTIONS = ("cluster.", "tracking.")
RESUMABLE_KEYS = (
    "run.storage",
    "run.stop_at_step",
    "run.log_every",
    "run.checkpoint_every",
    "run.checkpoints_to_keep",
    "data.max_bad_fraction",
    "data.decode_deadline_seconds",
    "data.audit",
    "health.stall_seconds",
    "evaluation.every_checkpoints",
    "evaluation.deadline_seconds",
    "evaluation.gpu_share",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG_FILE

    @property
    def summary(self) -> Path:
        """Results and counts."""
        return self.path / "summary.json"

    @property
    def metrics(self) -> Path:
        """Rows of metrics."""
        return self.path / METRICS_FILE

    @property
    def quarantine(self) -> Path:
        """What could not be decoded."""
        return self.path / QUARANTINE_FILE

    @property
    def artifacts(self) -> Path:
        """Concept space, tables, pictures."""
        return self.path / "artifacts"

    @property
    def space(self) -> Path:
        """The concept space."""
        return self.artifacts / "concept_space.safetensors"

    @property
    def validation(self) -> Path:
        """What evaluation beside training works on."""
        return self.path / HELD_FOLDER

    @property
    def best(self) -> Path:
        """The best checkpoint by `evaluation.best`."""
        return self.path / BEST_FOLDER

    @property
    def log(self) -> Path:
        """What Ray and the libraries had to say."""
        return self.path / "logs" / "run.log"


def find_run_folder(checkpoint: Path) -> Path:
    """Where the run of a checkpoint is: one of its own steps, or the best one."""
    above = checkpoint.parent
    return above if (above / CONFIG_FILE).is_file() else above.parent


def create_run_folder(config: RunConfig, *, overwrite: bool) -> tuple[RunFolder, RunConfig]:
    """Make the folder of a new run and file its configuration, with absolute paths.

    With `run.storage` its place in the store, too.

    Raises:
        CheckpointError: One of them holds a run already, is not ours, or can't be made.
    """
    config = resolve_paths(config)
    folder = RunFolder(Path(config.run.folder) / config.run.name)
    store = find_store(config)
    if store is not None:
        require_free(store, overwrite=overwrite)
    if folder.path.is_dir() and any(folder.path.iterdir()):
        if not overwrite and not _never_trained(folder):
            raise CheckpointError(
                f"{folder.path} holds a run already. Go on with it: --resume {folder.path}; "
                "start another: --run-name OTHER; throw it away: --overwrite."
            )
        if not folder.config.exists():
            raise CheckpointError(
                f"{folder.path} is not empty and holds no run_config.yaml, so it is no run of "
                "ours and is not overwritten; choose another --run-name."
            )
        shutil.rmtree(folder.path)
    _file_config(folder, config)
    if store is not None:
        store.delete()
        claim(store, folder.path)
    return folder, config


def find_store(config: RunConfig) -> RunStore | None:
    """The place of a run behind `run.storage`; None without one.

    Raises:
        ConfigError: Nothing opens such a URI.
    """
    return find_run_store(config.run.storage, name=config.run.name)


def _never_trained(folder: RunFolder) -> bool:
    """Whether a run was refused before its first step: nothing in its folder was paid for."""
    if not folder.config.is_file() or list_checkpoints(folder.path):
        return False
    return not folder.metrics.exists() or folder.metrics.stat().st_size == 0


def open_run_folder(
    path: Path, overrides: Sequence[str], *, storage: str | None = None
) -> tuple[RunFolder, RunConfig]:
    """The folder of an existing run and its configuration, to go on with it.

    With `run.storage` folder and store are brought together first: see `storage.runs`.

    Args:
        path: The folder; with `storage` it need not be there.
        overrides: `a.b=value`, of those that a resumed run may bring.
        storage: Where the run is kept, when the folder is not known to say so.

    Raises:
        CheckpointError: No such run.
        ConfigError: An override would change what the run computes.
    """
    folder = RunFolder(path)
    _require_resumable(overrides)
    if storage is not None:
        if folder.path.is_dir() and any(folder.path.iterdir()):
            is_run = folder.config.is_file()
            require_copy(path, load_config(folder.config).run.storage if is_run else None, storage)
        bring_together(open_run_store(storage, name=path.name), path)
        # Where it was kept before, and where its folder was, is of another time or machine.
        own = {"run.storage": storage, "run.folder": str(path.parent)}
        overrides = [*overrides, *(f"{key}={json.dumps(value)}" for key, value in own.items())]
    if not folder.config.is_file():
        near = sorted(p.parent.name for p in path.parent.glob("*/run_config.yaml"))
        raise CheckpointError(
            f"No run to resume at {path}. Runs there: {', '.join(near) or 'none'}. One that is "
            "kept in a store is resumed by its URI: --resume s3://BUCKET/.../NAME."
        )
    config = resolve_paths(load_config(folder.config, overrides))
    if storage is None:
        require_same_store(path, load_config(folder.config).run.storage, config.run.storage)
    store = find_store(config)
    if store is not None and config.run.name != path.name:
        raise CheckpointError(
            f"{path} holds the run {config.run.name!r}, which is kept by that name; give folder or "
            "URI this name again, and resume."
        )
    if store is not None and storage is None:
        bring_together(store, path)
        config = resolve_paths(load_config(folder.config, overrides))
    _file_config(folder, config)
    return folder, config


def open_stored_run(
    uri: str, overrides: Sequence[str], *, parent: Path
) -> tuple[RunFolder, RunConfig]:
    """A run that is kept behind a URI, to go on with it: fetched, and its configuration.

    Args:
        uri: Of the run: `run.storage` and its name.
        overrides: As for `open_run_folder`.
        parent: Where its working copy goes, or is.

    Raises:
        CheckpointError: No such run, or another one is in the way.
        ConfigError: An override would change what the run computes.
    """
    storage, name = split_run_uri(uri)
    if any(item.startswith("run.storage=") for item in overrides):
        raise ConfigError(
            f"--resume {uri} says where the run is kept; leave out --set run.storage=..."
        )
    return open_run_folder(parent.absolute() / name, overrides, storage=storage)


def _require_resumable(overrides: Sequence[str]) -> None:
    frozen = [
        item
        for item in overrides
        if not item.startswith(RESUMABLE_SECTIONS) and item.partition("=")[0] not in RESUMABLE_KEYS
    ]
    if frozen:
        raise ConfigError(
            f"A resumed run keeps its configuration; {frozen} would change what it computes. "
            f"Allowed: cluster.*, tracking.*, {', '.join(RESUMABLE_KEYS)}. For other values start "
            "a new run with --run-name."
        )


def resolve_paths(config: RunConfig) -> RunConfig:
    """The same configuration with absolute paths: workers have another working directory."""
    data: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    data["run"]["folder"] = _absolute(config.run.folder)
    data["data"]["manifest"] = _absolute(config.data.manifest)
    for section in ("concepts", "evaluation"):
        labels = data[section]["labels"]
        if labels is not None and not labels.startswith(BANK_PREFIX):
            data[section]["labels"] = _absolute(labels)
    if config.concepts.space is not None:
        data["concepts"]["space"] = _absolute(config.concepts.space)
    data["evaluation"]["manifests"] = {
        split: _absolute(path) for split, path in config.evaluation.manifests.items()
    }
    prefix, _, local = config.clip.model.partition("local-dir:")
    if local and not prefix:
        data["clip"]["model"] = f"local-dir:{_absolute(local)}"
    if config.clip.weights is not None and Path(config.clip.weights).is_file():
        data["clip"]["weights"] = _absolute(config.clip.weights)
    uri = config.tracking.uri
    if uri is not None and uri.startswith("sqlite:///"):
        data["tracking"]["uri"] = f"sqlite:///{_absolute(uri.removeprefix('sqlite:///'))}"
    return RunConfig.model_validate_json(json.dumps(data))


def _file_config(folder: RunFolder, config: RunConfig) -> None:
    try:
        folder.artifacts.mkdir(parents=True, exist_ok=True)
        folder.log.parent.mkdir(exist_ok=True)
        write_whole(folder.config, dump_config(config))
    except OSError as error:
        raise CheckpointError(
            f"{folder.path} can't be written: {error}. Choose another place with "
            "--set run.folder=... or --run-name."
        ) from error


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
