"""Whether other nodes see the same files under the same paths, told before anything needs them.

Nothing is concluded from what a path looks like: a file with a name of its own is written here and
looked for there. Imported by a task on every node, so it imports nothing that takes seconds. Not
here: which paths a job needs, and where (`required_paths`); files behind URIs.
"""

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lssl_ray.errors import ClusterError

# How long a network file system may keep a new file to itself.
VISIBLE_SECONDS = 5.0
POLL_SECONDS = 0.25
MARKER_PREFIX = ".lssl_ray-shared-"


@dataclass(frozen=True)
class UnsharedPath:
    """A path that means something else, or nothing, on a node.

    Attributes:
        setting: Who names the path, as given.
        path: The path.
        node_id: Ray's id of the node.
        node_ip: Its address.
        problem: What is so there: `is not there`, ...
    """

    setting: str
    path: Path
    node_id: str
    node_ip: str
    problem: str


@dataclass(frozen=True)
class ExpectedPath:
    """What a node must find.

    Attributes:
        path: A file or a folder.
        marker: Name of a file that was just written into the folder; None for a file.
        num_bytes: Size of the file; None when this process does not see it itself.
    """

    path: str
    marker: str | None
    num_bytes: int | None


def find_unshared_paths(
    paths: Mapping[str, Path], *, labels: Mapping[str, str], deadline_seconds: float
) -> list[UnsharedPath]:
    """Paths that living nodes don't see as this process does; none on a Ray of one node.

    Asked are the nodes with cores that have all of the labels, but for this one. A folder must hold
    there what is written into it here, and be writable; a file must be there, with the same size.

    Args:
        paths: Who names the path, for the report, to the path. Folders that exist must be writable.
        labels: Of the nodes; none for every node.
        deadline_seconds: The longest that all nodes together may take to answer.

    Raises:
        ClusterError: This process can't write into a folder itself.
    """
    nodes = [node for node in _list_other_nodes() if labels.items() <= node["Labels"].items()]
    if not nodes or not paths:
        return []
    with _marked(paths.values()) as expected:
        look = ray.remote(num_cpus=0, max_retries=0)(examine_paths)
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(scheduling_strategy=there).remote(expected)] = node
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=deadline_seconds)
        for ref in late:
            ray.cancel(ref)
        answers = {ref: _read_answer(ref, asked[ref], len(paths)) for ref in done}
        answers |= {
            ref: [f"got no answer in {deadline_seconds:.0f} s"] * len(paths) for ref in late
        }
    return [
        UnsharedPath(setting, path, asked[ref]["NodeID"], asked[ref]["NodeManagerAddress"], problem)
        for ref in asked
        for (setting, path), problem in zip(paths.items(), answers[ref], strict=True)
        if problem is not None
    ]


def examine_paths(expected: Sequence[ExpectedPath]) -> list[str | None]:
    """What is wrong with each path on the machine that this runs on; None for nothing.

    Waits some seconds for what is not as expected.
    """
    deadline = time.monotonic() + VISIBLE_SECONDS
    while True:
        problems = [_examine(one) for one in expected]
        if not any(problems) or time.monotonic() > deadline:
            return problems
        time.sleep(POLL_SECONDS)


def _examine(expected: ExpectedPath) -> str | None:
    path = Path(expected.path)
    try:
        if expected.marker is not None:
            if not (path / expected.marker).exists():
                return "is another folder" if path.is_dir() else "is not there"
            return None if os.access(path, os.W_OK) else "can't be written"
        num_bytes = path.stat().st_size
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    same = expected.num_bytes in (None, num_bytes)
    return None if same else f"is another file ({num_bytes} bytes, not {expected.num_bytes})"


@contextmanager
def _marked(paths: Iterable[Path]) -> Iterator[list[ExpectedPath]]:
    """What to look for, while the folders among the paths hold their markers."""
    marker = f"{MARKER_PREFIX}{uuid.uuid4().hex}"
    written: list[Path] = []
    expected = []
    try:
        for path in paths:
            is_folder = path.is_dir()
            if is_folder:
                written.append(_write_marker(path / marker))
            known = None if is_folder or not path.exists() else path.stat().st_size
            expected.append(ExpectedPath(str(path), marker if is_folder else None, known))
        yield expected
    finally:
        for path in written:
            path.unlink(missing_ok=True)


def _write_marker(path: Path) -> Path:
    try:
        path.touch()
    except OSError as error:
        raise ClusterError(
            f"{path.parent} can't be written from here: {error.strerror}. Choose a folder that "
            "this process may write into."
        ) from error
    return path


def _list_other_nodes() -> list[dict[str, Any]]:
    """Living nodes that take work, but for this one and those that are about to go."""
    here = ray.get_runtime_context().get_node_id()
    draining = ray._private.state.state.get_draining_nodes()
    return [
        node
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU", 0) > 0
        and node["NodeID"] != here
        and node["NodeID"] not in draining
    ]


def _read_answer(
    ref: "ray.ObjectRef[list[str | None]]", node: Mapping[str, Any], num_paths: int
) -> list[str | None]:
    try:
        answer: list[str | None] = ray.get(ref)
        return answer
    except RayError as error:
        if node["NodeID"] not in {other["NodeID"] for other in _list_other_nodes()}:
            return [None] * num_paths  # it left meanwhile, and gets no work
        return [f"could not be looked for ({type(error).__name__})"] * num_paths
