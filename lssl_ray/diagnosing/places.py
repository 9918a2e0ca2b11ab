"""Checks of where a run writes: its folder, its store, tracking."""

from pathlib import Path

from lssl_ray.config import RunConfig
from lssl_ray.diagnosing.inputs import Inputs, measure_checkpoint
from lssl_ray.doctor.findings import Finding
from lssl_ray.doctor.folders import judge_free_space, judge_writing, try_folder
from lssl_ray.doctor.stores import try_store
from lssl_ray.errors import ConfigError
from lssl_ray.tracked import probe_tracking

HERE = "this machine"
_SQLITE = "sqlite:///"


def check_run_folder(folder: Path, inputs: Inputs) -> Finding:
    """Write to the folder of run folders.

    Args:
        folder: That exists.
        inputs: Gets what came of it.
    """
    facts = try_folder(folder)
    inputs.folder = facts if facts.error is None else None
    return judge_writing("run folder", {HERE: facts})


def check_free_space(config: RunConfig, inputs: Inputs) -> Finding:
    """Whether the checkpoints of a run have room."""
    assert inputs.clip is not None and inputs.folder is not None
    num_kept = config.run.checkpoints_to_keep + (config.evaluation.best is not None)
    return judge_free_space(
        "free space",
        inputs.folder,
        bytes_each=measure_checkpoint(config, inputs.clip),
        num_kept=num_kept,
    )


def check_store(storage: str) -> Finding:
    """Write to the store of runs, from here.

    Raises:
        LsslError: It can't be opened, or refuses.
    """
    return Finding("run.storage", "ok", f"{try_store(storage)} from {HERE}")


def check_tracking(config: RunConfig) -> Finding:
    """Ask the tracking store for its experiments; nothing is made there."""
    uri = config.tracking.uri
    if uri is None:
        return Finding("tracking", "ok", "files only (tracking.uri=null)")
    if uri.startswith(_SQLITE):
        file = Path(uri.removeprefix(_SQLITE))
        folder = next(one for one in file.absolute().parents if one.is_dir())
        facts = try_folder(folder)
        if facts.error is not None:
            return Finding(
                "tracking",
                "problem",
                f"{uri}: {folder} can't be written ({facts.error})",
                "name another place, or train without MLflow: --set tracking.uri=null",
            )
        if not file.exists():
            return Finding("tracking", "ok", f"{uri} is new and will be made")
    try:
        probe_tracking(uri)
    except ConfigError as error:
        return Finding(
            "tracking",
            "problem",
            f"{error} A new run is refused at its start; one that is resumed, or under way, goes "
            "on and sends what the store missed later (lssl-ray track sync)",
            "start the server, correct the address, or train without MLflow: --set "
            "tracking.uri=null",
        )
    return Finding("tracking", "ok", f"{uri} answers")
