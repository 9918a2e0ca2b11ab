"""Refuses a job whose files other nodes don't see, before it costs anything.

Which paths a job reads on which nodes is known here; how they are looked for is in `shared_paths`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from lssl_ray.cluster.shared_paths import UnsharedPath, find_unshared_paths
from lssl_ray.config import RunConfig
from lssl_ray.embedding_files import EmbeddingSource
from lssl_ray.engine import EncoderWeights, FeatureJob, Interpolated, TemporalPart, TrainJob
from lssl_ray.errors import ClusterError
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.remote import as_local_path, has_scheme

# A machine under full load takes its time to start a process.
DEADLINE_SECONDS = 120.0
NUM_VIDEOS = 3
MAX_SHOWN = 6
# Where Ray unpacks what a job brought, below its session (2.60): a job's relative paths lead there.
COPIES = ("runtime_resources", "working_dir_files")
_SQLITE = "sqlite:///"

logger = logging.getLogger(__name__)


def require_training_paths(job: TrainJob) -> None:
    """Refuse a training whose run folder, CLIP or videos are not on the nodes that need them.

    Raises:
        ClusterError: Which path on which node, and what to do.
    """
    require_lasting_places(job.config)
    _require(
        job.config,
        on_train_nodes={**find_kept_folder(job), **list_clip_files(job.config)},
        on_decode_nodes=list_first_videos(job.manifest),
    )


def require_lasting_places(config: RunConfig) -> None:
    """Refuse a run folder in a submitted job's own copy of the code; warn of a tracking file there.

    Args:
        config: With absolute paths.

    Raises:
        ClusterError: The run would go with the copy.
    """
    if config.run.storage is None and is_in_job_copy(Path(config.run.folder)):
        raise ClusterError(
            f"run.folder={config.run.folder} is in the job's own copy of the code, which Ray "
            "deletes, and the run with it. Give a folder that stays, by its absolute path: --set "
            "run.folder=/shared/runs; or keep the run by URI: --set run.storage=s3://bucket/runs."
        )
    uri = config.tracking.uri or ""
    if uri.startswith(_SQLITE) and is_in_job_copy(Path(uri.removeprefix(_SQLITE))):
        logger.warning(
            "tracking.uri=%s is in the job's own copy of the code, which Ray deletes, and what "
            "MLflow has of this run with it. Give a file that stays, by its absolute path "
            "(sqlite:////home/you/mlflow.db), a server (http://...), or null; `lssl-ray track sync "
            "RUN --uri ...` sends the rows there later.",
            uri,
        )


def require_lasting_embeddings(folder: Path) -> None:
    """Refuse a folder of embeddings in a submitted job's own copy of the code.

    Args:
        folder: Absolute.

    Raises:
        ClusterError: The embeddings would go with the copy.
    """
    if is_in_job_copy(folder):
        raise ClusterError(
            f"--out={folder} is in the job's own copy of the code, which Ray deletes, and the "
            "embeddings with it. Give a folder that stays, by its absolute path: --out "
            "/shared/embeddings."
        )


def is_in_job_copy(path: Path) -> bool:
    """Whether an absolute path leads into what Ray unpacked for a job."""
    above = [folder.parts[-2:] for folder in path.parents]
    return COPIES in above


def require_feature_paths(job: FeatureJob) -> None:
    """Refuse an evaluation whose weights or videos are not on the nodes that need them.

    Raises:
        ClusterError: Which path on which node, and what to do.
    """
    adapted = {f"weights of {name}": _find_file(weights) for name, weights in job.weights.items()}
    is_stored = job.config.run.storage is not None  # then they are sent along
    files = {name: path for name, path in adapted.items() if path is not None and not is_stored}
    _require(
        job.config,
        on_train_nodes={**files, **list_clip_files(job.config)},
        on_decode_nodes=list_first_videos(job.manifest),
    )


def require_embedding_paths(config: RunConfig, source: EmbeddingSource, manifest: Manifest) -> None:
    """Refuse an embedding whose model or videos are not on the nodes that need them.

    Raises:
        ClusterError: Which path on which node, and what to do.
    """
    files = {}
    for name, text in (("--model", source.source), ("--weights", source.weights)):
        path = Path((text or "").removeprefix("local-dir:"))
        if text is None or not path.exists():
            continue  # a name, whose weights every node downloads
        # A folder may be read only, so one of its files stands for it.
        inside = [] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        files[name] = min(inside, default=path)
    _require(config, on_train_nodes=files, on_decode_nodes=list_first_videos(manifest))


def find_kept_folder(job: TrainJob) -> dict[str, Path]:
    """The folder that training workers write checkpoints to; none for a store on the network."""
    storage = job.config.run.storage
    if storage is None:
        return {"run.folder": job.run_folder}
    local = Path(as_local_path(storage))
    return {"run.storage": local} if local.is_dir() else {}


def list_clip_files(config: RunConfig) -> dict[str, Path]:
    """The files of CLIP that a configuration names; none of a downloaded one."""
    prefix, _, folder = config.clip.model.partition("local-dir:")
    files = {}
    if folder and not prefix:
        found = sorted(path for path in Path(folder).iterdir() if path.is_file())
        files = {f"clip.model ({path.name})": path for path in found}
    if config.clip.weights is not None and Path(config.clip.weights).is_file():
        files["clip.weights"] = Path(config.clip.weights)
    return files


def list_first_videos(manifest: Manifest) -> dict[str, Path]:
    """The first videos of a job that are files: one missing folder is all of them missing."""
    paths = [manifest.row(number).path for number in range(min(NUM_VIDEOS, len(manifest)))]
    return {
        f"video {number} of the manifest": Path(path)
        for number, path in enumerate(paths, 1)
        if not has_scheme(path)
    }


def describe_unshared(unshared: list[UnsharedPath]) -> str:
    """What is not shared, on which node, and what to do; a text for a person."""
    lines = [
        f"  {one.setting}: {one.path} {one.problem} on node {one.node_ip} ({one.node_id[:12]})"
        for one in unshared[:MAX_SHOWN]
    ]
    if len(unshared) > MAX_SHOWN:
        lines.append(f"  and {len(unshared) - MAX_SHOWN} more")
    return "\n".join(
        [
            "Not every node sees the files that it will be asked for:",
            *lines,
            "Put them on storage that all nodes mount under the same path (--set run.folder="
            "/shared/runs, videos and weights likewise), keep the run by URI (--set run.storage="
            "s3://bucket/runs), or keep such nodes out with cluster.train_labels and "
            "cluster.decode_labels.",
        ]
    )


def _require(
    config: RunConfig, *, on_train_nodes: Mapping[str, Path], on_decode_nodes: Mapping[str, Path]
) -> None:
    cluster = config.cluster
    unshared = [
        *find_unshared_paths(
            on_train_nodes, labels=cluster.train_labels, deadline_seconds=DEADLINE_SECONDS
        ),
        *find_unshared_paths(
            on_decode_nodes, labels=cluster.decode_labels, deadline_seconds=DEADLINE_SECONDS
        ),
    ]
    if unshared:
        raise ClusterError(describe_unshared(unshared))


def _find_file(weights: EncoderWeights) -> Path | None:
    if isinstance(weights, Interpolated):
        return weights.adapted
    return weights.path if isinstance(weights, TemporalPart) else weights
