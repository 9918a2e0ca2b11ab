"""What a user asks a sweep for, checked before anything starts, and what all its trials share."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lssl_ray import build
from lssl_ray.config import RunConfig, load_config
from lssl_ray.config.loading import apply_override
from lssl_ray.errors import ConfigError
from lssl_ray.evaluation.label_free import DEFAULT_SCORE, SCORE_NAMES
from lssl_ray.folder import resolve_paths
from lssl_ray.sweep.scores import HELD_BACK, describe_doubt
from lssl_ray.sweep.trials import Scheduler, Search, build_overrides
from lssl_ray.sweeping.record import (
    SweepFolder,
    SweepRecord,
    SweepSettings,
    create_record,
    open_record,
)
from lssl_ray.video.manifest import load_manifest
from lssl_ray.whole_files import write_whole

if TYPE_CHECKING:  # spaces are made of Ray Tune's samplers
    from lssl_ray.cluster.sweep_space import SweepSpace

DEFAULT_FOLDER = "runs"
# A guess: docs/label_free_selection.md measured the scores on 240 videos, not on so few.
DEFAULT_HOLD_BACK = 64
VALIDATION = "validation/"
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by `ray job submit`
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SweepRequest:
    """A new sweep, as a user asks for it.

    Attributes:
        space: The space file.
        config: The recipe that all trials share; None for the defaults.
        overrides: `dotted.key=value` over the recipe.
        num_trials: Configurations to draw; None for a whole grid.
        gpus_per_trial: Workers with a GPU each; 0 for none; None as the recipe says.
        search: How configurations are drawn.
        scheduler: What may stop trials early.
        select: A label-free score, or `zero_shot:SPLIT`; None for the default score.
        num_seeds: Trials of each configuration.
        name: Of the sweep; None takes the space's.
        hold_back: Videos for label-free scores; None as the recipe says, or a default.
        metric: Any metric key instead of `select`, after a `-` lower is better; for tests.
    """

    space: Path
    config: Path | None
    overrides: Sequence[str] = ()
    num_trials: int | None = None
    gpus_per_trial: int | None = None
    search: Search = "random"
    scheduler: Scheduler = "asha"
    select: str | None = None
    num_seeds: int = 1
    name: str | None = None
    hold_back: int | None = None
    metric: str | None = None


@dataclass(frozen=True)
class OpenSweep:
    """A sweep that can run.

    Attributes:
        record: Settings and trials.
        base: What all trials share.
        space: As it was when the sweep began.
    """

    record: SweepRecord
    base: RunConfig
    space: "SweepSpace"


def create_sweep(request: SweepRequest) -> OpenSweep:
    """Check a request and make the sweep's folder.

    Raises:
        LsslError: What can't work, all problems of the space at once; nothing was started.
    """
    from lssl_ray.cluster.search import open_source
    from lssl_ray.cluster.sweep_space import check_space, load_space

    space = load_space(request.space)
    key = request.metric or find_key(request.select)
    overrides = [*request.overrides, *_list_own_overrides(request, key)]
    check_space(space, config=request.config, overrides=overrides)
    base = load_config(request.config, overrides)
    _check_base(base, key)
    _check_videos(base)
    # For what it refuses only.
    open_source(
        space,
        search=request.search,
        num_configurations=request.num_trials,
        num_drawn=0,
        seed=base.run.seed,
    )
    root = Path(base.run.folder).expanduser().absolute()
    folder = SweepFolder(root / (request.name or find_free_name(root, space.name)))
    if request.name is not None and not _NAME.fullmatch(request.name):
        raise ConfigError(
            f"--name {request.name!r} must be of letters, digits, dots, - and _, for a folder."
        )
    settings = SweepSettings(
        name=folder.path.name,
        space=space.name,
        question=space.question,
        search=request.search,
        scheduler=request.scheduler,
        select=key,
        num_configurations=request.num_trials,
        num_seeds=request.num_seeds,
        seed=base.run.seed,
        working_folder=str(Path.cwd()),
    )
    record = create_record(folder, settings)
    shutil.copyfile(request.space, folder.space)
    base = _file_base(base, folder)
    return OpenSweep(record, base, space)


def open_sweep(name: str) -> OpenSweep:
    """A sweep that was begun before, as it was configured.

    Args:
        name: Its folder, or its name below `runs/`.

    Raises:
        LsslError: There is none, or its files can't be read.
    """
    from lssl_ray.cluster.sweep_space import load_space

    path = Path(name) if Path(name).is_dir() else Path(DEFAULT_FOLDER, name)
    record = open_record(path.absolute())
    space = replace(load_space(record.folder.space), name=record.settings.space)
    return OpenSweep(record, load_config(record.folder.base), space)


def find_key(select: str | None) -> str:
    """The metric that `--select` means.

    Raises:
        ConfigError: No such score.
    """
    name = select or DEFAULT_SCORE
    if name in SCORE_NAMES:
        return f"{HELD_BACK}{name}"
    kind, _, split = name.partition(":")
    if kind == "zero_shot" and split:
        return f"{VALIDATION}{split}/zero_shot"
    raise ConfigError(
        f"--select {name!r} is no score; without labels: {', '.join(SCORE_NAMES)}; with labelled "
        "videos: zero_shot:SPLIT, for a split of evaluation.manifests."
    )


def list_remarks(opened: OpenSweep, *, num_undrawn: int) -> list[str]:
    """What a person should read before the first trial: the question, and what is doubtful.

    Args:
        opened: With the trials that are planned so far.
        num_undrawn: Configurations that the search will still give.
    """
    settings = opened.record.settings
    trials = [trial.settings for trial in opened.record.trials]
    answers = opened.base.evaluation.labels
    doubts = [describe_doubt(trials, select=settings.select, answers=answers)]
    num_configurations = opened.record.num_configurations + num_undrawn
    if num_configurations < (settings.num_configurations or 0):
        doubts.append(
            f"--trials asked for {settings.num_configurations} configurations; the space gave "
            f"{num_configurations} different ones."
        )
    return [settings.question, *(doubt for doubt in doubts if doubt is not None)]


def find_working_folder(recorded: str) -> str:
    """Where trials start: where the sweep began, but in a job of Ray's that job's own folder.

    There lies the code that the job brought; that of an earlier job may be gone, or be older.
    """
    is_job = JOB_VARIABLE in os.environ
    return str(Path.cwd()) if is_job or not Path(recorded).is_dir() else recorded


def _list_own_overrides(request: SweepRequest, key: str) -> list[str]:
    """Settings that a sweep needs where the recipe doesn't have them."""
    # An own load: what is missing must be known before the rest is checked with it.
    config = load_config(request.config, request.overrides)
    own = []
    if request.gpus_per_trial is not None:
        own.append(f"cluster.use_gpu={json.dumps(request.gpus_per_trial > 0)}")
        if request.gpus_per_trial:
            own.append(f"cluster.num_workers={request.gpus_per_trial}")
    if request.hold_back is not None:
        own.append(f"data.hold_back={request.hold_back}")
    elif key.startswith(HELD_BACK) and not config.data.hold_back:
        own.append(f"data.hold_back={DEFAULT_HOLD_BACK}")
    is_measured = key.startswith((HELD_BACK, VALIDATION))
    if is_measured and not config.evaluation.every_checkpoints:
        own.append("evaluation.every_checkpoints=1")
    return own


def _check_base(base: RunConfig, key: str) -> None:
    if base.run.stop_at_step is not None:
        raise ConfigError(
            f"run.stop_at_step={base.run.stop_at_step} would end every trial early; leave it out, "
            "and set optim.max_steps for shorter trials."
        )
    if base.run.storage is not None:
        raise ConfigError(
            f"run.storage={base.run.storage} keeps single runs; trials are in run.folder. "
            "Leave it out, and put run.folder where all nodes see it."
        )
    if key.startswith(HELD_BACK) and not base.data.hold_back:
        raise ConfigError(
            f"{key} is measured on held-back videos; give --hold-back N, or choose by labelled "
            "videos with --select zero_shot:SPLIT."
        )
    split = key.removeprefix(VALIDATION).rpartition("/")[0]
    if key.startswith(VALIDATION) and split not in base.evaluation.manifests:
        raise ConfigError(
            f"--select zero_shot:{split}: evaluation.manifests has no split {split!r}, but: "
            f"{', '.join(base.evaluation.manifests) or 'none'}; add it with "
            f"--set evaluation.manifests.{split}=FILE."
        )


def _check_videos(base: RunConfig) -> None:
    """Refuse here what each trial would be refused for by itself, one after the other."""
    for manifest in base.evaluation.manifests.values():
        load_manifest(manifest)
    num_videos = len(build.load_training_manifest(base).usable())
    if num_videos <= base.data.hold_back:
        raise ConfigError(
            f"data.hold_back={base.data.hold_back} leaves nothing to train on: "
            f"{base.data.manifest} has {num_videos} usable videos. Give --hold-back N with a "
            "smaller number, choose by labelled videos with --select zero_shot:SPLIT, or index "
            "more."
        )


def _file_base(base: RunConfig, folder: SweepFolder) -> RunConfig:
    """Write what all trials share, with absolute paths; what was not set stays so.

    A default may follow a drawn value, in a resumed sweep as in the first session.
    """
    resolved = resolve_paths(base)
    paths = {
        "run.folder": str(folder.trials),
        "data.manifest": resolved.data.manifest,
        "clip.model": resolved.clip.model,
        "clip.weights": resolved.clip.weights,
        "concepts.labels": resolved.concepts.labels,
        "concepts.space": resolved.concepts.space,
        "evaluation.labels": resolved.evaluation.labels,
        "evaluation.manifests": resolved.evaluation.manifests,
        "tracking.uri": resolved.tracking.uri,
    }
    data = base.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for override in build_overrides(paths):
        apply_override(data, override)
    write_whole(folder.base, yaml.safe_dump(data, sort_keys=False))
    return load_config(folder.base)


def find_free_name(root: Path, name: str) -> str:
    """The name of a sweep's folder below `root`: a number is added where it is taken."""
    number = 1
    while (root / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"
