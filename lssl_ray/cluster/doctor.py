"""A check-up's questions to Ray: small tasks on living nodes, and who may reach it.

Plain facts come back; they are judged in `lssl_ray/doctor`. Nothing waits for a node that does not
exist yet, and no autoscaler is asked for one.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lssl_ray.cluster.access import read_access
from lssl_ray.cluster.capacity import count_fitting, list_first_needs, list_rooms
from lssl_ray.cluster.data import build_execution_options
from lssl_ray.cluster.required_paths import list_clip_files, list_first_videos
from lssl_ray.cluster.session import connect_ray, stop_ray
from lssl_ray.cluster.shared_paths import find_unshared_paths
from lssl_ray.cluster.train import build_stream
from lssl_ray.config import RunConfig
from lssl_ray.doctor.decoding import Trial, try_clips
from lssl_ray.doctor.facts import NodeFacts, Question, collect_plain_facts
from lssl_ray.doctor.nodes import Access, AskedNode
from lssl_ray.doctor.stores import try_store
from lssl_ray.errors import ClusterError
from lssl_ray.types import Progress
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.recipe import DecodeSettings, ViewRecipe
from lssl_ray.video.remote import as_local_path


class JoinedRay:
    """Ray as a run has it: of our own, or the one that is there; left at the end.

    Args:
        address: `local` or `auto`.
        deadline_seconds: The longest that nodes may take to answer one question.

    Attributes:
        is_own: Whether it is started here, for this check alone.
    """

    def __init__(self, address: str, *, deadline_seconds: float) -> None:
        self.is_own = address == "local"
        self._address = address
        self._deadline_seconds = deadline_seconds

    def __enter__(self) -> "JoinedRay":
        """Start or join it.

        Raises:
            ClusterError: It can't be.
        """
        connect_ray(
            address=self._address,
            num_cpus=1,
            remedy="without Ray, --local checks this machine alone",
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stop_ray()

    def ask_nodes(self, build_question: Callable[[Mapping[str, Any]], Question]) -> list[AskedNode]:
        """Ask every living node for its facts, all at once.

        Args:
            build_question: What to ask a node, given as `ray.nodes()` describes it.
        """
        with _asking_ray():
            nodes = [node for node in ray.nodes() if node["Alive"]]
            draining = ray._private.state.state.get_draining_nodes()
        task = ray.remote(num_cpus=0, max_retries=0)(collect_plain_facts)
        asked: dict[ray.ObjectRef[dict[str, Any]], tuple[Mapping[str, Any], float]] = {}
        for node in nodes:
            if node["NodeID"] not in draining:  # nothing new is placed there
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ref = task.options(scheduling_strategy=there).remote(build_question(node))
                asked[ref] = (node, time.time())
        answered = {node["NodeID"]: _build_node(node, 0.0, is_draining=True) for node in nodes}
        deadline, waiting = time.monotonic() + self._deadline_seconds, list(asked)
        while waiting and (left := deadline - time.monotonic()) > 0:
            done, waiting = ray.wait(waiting, timeout=left)
            for ref in done:
                node, sent = asked[ref]
                answered[node["NodeID"]] = _read_answer(ref, node, sent)
        for ref in waiting:
            node, sent = asked[ref]
            ray.cancel(ref, force=True)
            late = f"nothing within {self._deadline_seconds:.0f} s"
            answered[node["NodeID"]] = _build_node(node, sent, failure=late)
        return list(answered.values())

    def try_clips_on(
        self,
        node: AskedNode,
        manifest: Manifest,
        *,
        recipe: ViewRecipe,
        settings: DecodeSettings,
        seed: int,
    ) -> list[Trial]:
        """Decode a few clips on a node; see `doctor.decoding.try_clips`.

        Raises:
            ClusterError: The node gave no answer.
        """
        call = {"recipe": recipe, "settings": settings, "seed": seed}
        trials: list[Trial] = self._run_on(node, try_clips, manifest, call)
        return trials

    def try_store_on(self, node: AskedNode, storage: str) -> str:
        """Write to a store from a node; see `doctor.stores.try_store`.

        Raises:
            ClusterError: The node gave no answer, or could not.
        """
        told: str = self._run_on(node, try_store, storage, {})
        return told

    def list_unshared(
        self, config: RunConfig, *, on_train_nodes: Mapping[str, Path], videos: Manifest | None
    ) -> list[str]:
        """What nodes don't see as this process does: setting, path, node, for a person.

        Args:
            config: Says by labels which nodes train and which decode.
            on_train_nodes: Setting to path; a store that is a folder comes beside them.
            videos: To train on; the first ones are looked for where decoders run.

        Raises:
            ClusterError: This process can't write into a folder itself, or Ray does not answer.
        """
        cluster = config.cluster
        on_decode_nodes = {} if videos is None else list_first_videos(videos)
        store = Path(as_local_path(config.run.storage or ""))
        if config.run.storage is not None and store.is_dir():
            on_train_nodes = {**on_train_nodes, "run.storage": store}
        return [
            f"{one.setting}: {one.path} {one.problem} on {one.node_ip} ({one.node_id[:8]})"
            for paths, labels in (
                (on_train_nodes, cluster.train_labels),
                (on_decode_nodes, cluster.decode_labels),
            )
            for one in find_unshared_paths(
                paths, labels=labels, deadline_seconds=self._deadline_seconds
            )
        ]

    def list_clip_files(self, config: RunConfig) -> dict[str, Path]:
        """CLIP's files that a configuration names: setting to path."""
        return list_clip_files(config)

    def count_fitting_runs(self, config: RunConfig) -> int:
        """Whether a run finds what it needs to start on the nodes at once: 1, or 0."""
        with _asking_ray():
            rooms = list_rooms(ray.nodes())
        return count_fitting(list_first_needs(config), rooms, most=1)

    def compute_store_mib(self, config: RunConfig, *, num_videos: int) -> float:
        """Room in the object store that decoded blocks may take."""
        stream = build_stream(
            config, Progress(), num_videos=num_videos, num_workers=config.cluster.most_workers
        )
        limits = build_execution_options(stream, labels={}).resource_limits
        return float(limits.object_store_memory) / 2**20

    def has_autoscaler(self) -> bool:
        """Whether an autoscaler that knows labels (v2: `ray up`, KubeRay) may start nodes."""
        if self.is_own:
            return False
        with _asking_ray():
            client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
            return bool(is_autoscaler_v2(fetch_from_server=True, gcs_client=client))

    def read_access(self) -> Access:
        """Who may reach the cluster."""
        return read_access()

    def _run_on(
        self,
        node: AskedNode,
        function: Callable[..., Any],
        argument: Any,
        settings: Mapping[str, Any],
    ) -> Any:
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        task = ray.remote(num_cpus=0, max_retries=0)(function)
        ref = task.options(scheduling_strategy=there).remote(argument, **settings)
        try:
            return ray.get(ref, timeout=self._deadline_seconds)
        except ray.exceptions.GetTimeoutError as error:
            ray.cancel(ref, force=True)
            raise ClusterError(
                f"{node.name} did not answer within {self._deadline_seconds:.0f} s. Look at its "
                "logs, or allow more time with --deadline."
            ) from error
        except RayError as error:
            raise ClusterError(f"On {node.name}: {_read_words(error)}.") from error


@contextmanager
def _asking_ray() -> Iterator[None]:
    """Ray's own failures as ours."""
    try:
        yield
    except RayError as error:
        raise ClusterError(f"Ray did not answer: {_read_words(error)}.") from error


def _read_answer(
    ref: "ray.ObjectRef[dict[str, Any]]", node: Mapping[str, Any], sent: float
) -> AskedNode:
    received = time.time()
    try:
        plain = ray.get(ref)
    except RayError as error:
        return _build_node(node, sent, failure=_read_words(error))
    try:
        facts = NodeFacts.from_plain(plain)
    except (TypeError, KeyError):
        return _build_node(node, sent, failure="another release of lssl_ray answered")
    return _build_node(node, sent, facts=facts, received=received)


def _build_node(
    node: Mapping[str, Any],
    sent: float,
    *,
    facts: NodeFacts | None = None,
    failure: str | None = None,
    received: float = 0.0,
    is_draining: bool = False,
) -> AskedNode:
    return AskedNode(
        name=f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})",
        node_id=node["NodeID"],
        labels=dict(node["Labels"]),
        resources=dict(node["Resources"]),
        facts=facts,
        failure=failure,
        sent=sent,
        received=received,
        is_draining=is_draining,
    )


def _read_words(error: BaseException) -> str:
    """The last line of Ray's long story: the exception of the task."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
