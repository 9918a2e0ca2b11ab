"""GPUs: what torch sees of them on a node, and whether that is what a run needs."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lssl_ray.doctor.findings import Finding, count_of

CHILD_MODULE = "lssl_ray.doctor.gpu_child"
CHILD_SECONDS = 40.0  # torch is imported in 3 s, from a cold disk in many
_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")


@dataclass(frozen=True)
class GpuFacts:
    """What torch sees.

    Attributes:
        names: Of the GPUs.
        torch_cuda: CUDA that torch was built for, as `12.6`; None without.
        driver_cuda: The newest CUDA that the driver can do; None without a driver.
        has_bf16: Whether all of them compute in bf16.
        problem: Why torch could not look; None when it could.
    """

    names: tuple[str, ...] | list[str] = ()
    torch_cuda: str | None = None
    driver_cuda: str | None = None
    has_bf16: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class GpuNode:
    """A node that trains.

    Attributes:
        num_known: GPUs that Ray knows there; None without Ray.
        facts: What torch sees there; None where nobody could ask.
    """

    num_known: int | None
    facts: GpuFacts | None

    @property
    def num_usable(self) -> int:
        """GPUs that both Ray and torch see."""
        seen = 0 if self.facts is None else len(self.facts.names)
        return seen if self.num_known is None else min(seen, self.num_known)


def has_gpu_device() -> bool:
    """Whether this machine has a device file of an NVIDIA driver."""
    return any(Path(path).exists() for path in _DEVICES)


def ask_gpus(
    *, in_ray: bool = False, module: str = CHILD_MODULE, seconds: float = CHILD_SECONDS
) -> GpuFacts:
    """Ask torch in a process of its own.

    Args:
        in_ray: Whether a task of Ray asks; Ray hides the GPUs from one that asked for none. The
            user's own CUDA_VISIBLE_DEVICES holds for training, so it holds here.
        module: What answers.
        seconds: Longest wait for it.
    """
    folders = [os.getcwd() if folder == "" else folder for folder in sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"}
    if in_ray:
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return GpuFacts(problem=f"torch did not answer within {seconds:.0f} s")
    except OSError as error:
        return GpuFacts(problem=f"no process could be started: {error}")
    if done.returncode != 0:
        words = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return GpuFacts(problem=f"torch failed: {words}")
    return GpuFacts(**json.loads(done.stdout.strip().splitlines()[-1]))


def judge_unused_gpus(nodes: Mapping[str, GpuNode]) -> Finding:
    """For a run without GPUs: are there any?

    Args:
        nodes: Name to what is there.
    """
    seen = {
        name: list(node.facts.names)
        for name, node in nodes.items()
        if node.facts is not None and node.facts.names
    }
    if not seen:
        return Finding("gpus", "skipped", "no GPU is there, and none is asked for")
    listed = "; ".join(f"{name}: {', '.join(names)}" for name, names in seen.items())
    return Finding(
        "gpus", "warning", f"not used: {listed}", "to train on them: --set cluster.use_gpu=true"
    )


def judge_gpus(
    nodes: Mapping[str, GpuNode], *, num_least: int, num_most: int, can_grow: bool
) -> Finding:
    """Whether every worker of a run gets a GPU that torch can use.

    Args:
        nodes: Those that may train, by name.
        num_least: Workers that a run needs to start; 0 without a run in mind.
        num_most: Workers that it would take.
        can_grow: Whether an autoscaler may add nodes.
    """
    broken = [text for name, node in nodes.items() if (text := _find_trouble(name, node))]
    if broken:
        return Finding(
            "gpus",
            "problem",
            "; ".join(broken),
            "mend NVIDIA's driver or torch there (nvidia-smi, a torch built for its CUDA), start "
            "Ray with the GPUs that are there (ray start --num-gpus), or --set "
            "cluster.use_gpu=false",
        )
    count = sum(node.num_usable for node in nodes.values())
    asked = f"{num_least}" if num_least == num_most else f"{num_least} to {num_most}"
    wanted = f" for {asked} worker{'s' * (num_most > 1)}" if num_most else ""
    found = f"{count} usable on {count_of(len(nodes), 'node')}{wanted}; {_describe(nodes)}"
    if count >= num_most:
        return Finding("gpus", "ok", found)
    remedy = "start more nodes with GPUs, or lower cluster.num_workers"
    if count >= num_least:
        return Finding("gpus", "warning", found, remedy)
    if can_grow:
        return Finding(
            "gpus", "warning", found, f"the autoscaler must start them when the run asks; {remedy}"
        )
    return Finding("gpus", "problem", found, remedy)


def judge_bf16(nodes: Mapping[str, GpuNode]) -> Finding:
    """Whether the GPUs that train compute in bf16.

    Args:
        nodes: Those that may train, by name.
    """
    facts = {name: node.facts for name, node in nodes.items() if node.num_usable}
    if not facts:
        return Finding("bf16", "skipped", "no usable GPU is there to ask")
    slow = [name for name, one in facts.items() if one is not None and not one.has_bf16]
    if slow:
        return Finding(
            "bf16",
            "warning",
            f"GPUs older than compute capability 8.0 on {', '.join(slow)} emulate bf16 slowly",
            "--set clip.precision=float32, or other GPUs",
        )
    return Finding("bf16", "ok", "every GPU has it")


def _find_trouble(name: str, node: GpuNode) -> str | None:
    facts = node.facts
    # Without an answer the node is another finding; where Ray counts none, nothing is sent.
    if facts is None or node.num_known == 0:
        return None
    if facts.problem is not None:
        return (
            f"{name}: {facts.problem} (driver for CUDA {facts.driver_cuda or 'none'}, torch for "
            f"{facts.torch_cuda or 'none'})"
        )
    if node.num_known is not None and node.num_known > len(facts.names):
        return f"{name}: Ray counts {node.num_known} GPUs, torch sees {len(facts.names)}"
    return None


def _describe(nodes: Mapping[str, GpuNode]) -> str:
    parts = []
    for name, node in nodes.items():
        facts = node.facts
        if facts is not None and facts.names:
            known = "" if node.num_known is None else f", {node.num_known} known to Ray"
            parts.append(
                f"{name}: {len(facts.names)} x {facts.names[0]}{known}, driver for CUDA "
                f"{facts.driver_cuda}, torch for {facts.torch_cuda}"
            )
        elif facts is not None and facts.problem is not None:
            parts.append(f"{name}: {facts.problem}")
    return "; ".join(parts) or "none seen"
