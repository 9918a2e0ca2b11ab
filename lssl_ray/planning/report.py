"""A plan for people and for scripts: a table, lines that say what to do, JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lssl_ray import __version__
from lssl_ray.errors import DataError
from lssl_ray.planning.figures import Figure
from lssl_ray.planning.request import Plan
from lssl_ray.whole_files import write_whole

FORMAT_VERSION = 1
MIB = 2**20
LONGEST_PAUSE_SHARE = 0.05  # of the time between two pauses
PARTS = {
    "decode": "decoders",
    "step": "training step",
    "cores": "cores shared by both",
    "network in": "network into training nodes",
    "network out": "network out of decode nodes",
    "driver": "driver's node",
}


def build_table(plan: Plan) -> Table:
    """Every figure with its range, and where it comes from."""
    estimate, costs, work = plan.estimate, plan.costs, plan.work
    table = Table(title=plan.shape.describe())
    for name in ("figure", "value", "range", "from", "how"):
        table.add_column(name, justify="right" if name in ("value", "range") else "left")

    def add(name: str, figure: Figure, *, scale: float = 1.0, style: str | None = None) -> None:
        value, low, high = (scale * one for one in (figure.value, figure.low, figure.high))
        spread = "" if low == high else f"{_format(low)} to {_format(high)}"
        row = (Text(name), _format(value), spread, figure.source, Text(figure.note))
        table.add_row(*row, style=style)

    add("decoding a clip, core s", costs.decode_seconds)
    if costs.step_seconds is not None:
        add("a worker's step, s", costs.step_seconds)
    add("checkpoint, MiB/s", costs.write_bytes_per_second, scale=1 / MIB)
    table.add_section()
    for name, figure in estimate.bounds.items():
        style = "bold" if name == estimate.bottleneck else None
        add(f"{PARTS[name]}, clips/s", figure, style=style)
    table.add_section()
    add("the run, clips/s", estimate.clips_per_second, style="bold")
    add(f"{work.num_steps} steps, {work.num_clips} clips, h", estimate.hours)
    add("node-hours", estimate.node_hours)
    if estimate.decoders_needed is not None:
        add("decoders that keep up", estimate.decoders_needed)
    table.add_section()
    add("decoded blocks in object stores, MiB", estimate.store_bytes, scale=1 / MIB)
    add("a checkpoint, s", estimate.checkpoint_seconds)
    add("driver's node at a segment's end, MiB", estimate.coordinator_bytes, scale=1 / MIB)
    return table


def describe_plan(plan: Plan) -> list[str]:
    """What is known exactly, what holds the run up, and what to do about it."""
    estimate, work, shape = plan.estimate, plan.work, plan.shape
    lines = [
        f"A clip is {work.clip_bytes / MIB:.2f} MiB of pixels and {work.clip_flops / 1e9:.1f} "
        f"GFLOP per step; gradients {work.gradient_bytes / MIB:.1f} MiB, a checkpoint "
        f"{work.checkpoint_bytes / MIB:.1f} MiB, {estimate.num_checkpoints} of them.",
        f"Slowest part: {PARTS[estimate.bottleneck]}.",
    ]
    if plan.decoder_child_mib is not None:
        lines.append(
            f"The decoder's child took {plan.decoder_child_mib:.0f} MiB at most; the process that "
            "holds it some 500 more (docs/data_path.md)."
        )
    if plan.costs.step_seconds is None:
        lines.append(
            "There is no GPU here to time the training step on, so it is left out: this is what "
            "data allow, an upper limit. Give --step-seconds, or --gpu-tflops that GPUs reach."
        )
    needed = estimate.decoders_needed
    if estimate.bottleneck == "decode" and needed is not None:
        lines.append(
            f"Decoding holds training up: {needed.value:.0f} decoders would keep up, there are "
            f"{shape.num_decoders}. Add decode nodes, or smaller videos (data.decode_short_side)."
        )
    if estimate.num_segments > 1:
        lines += _describe_pauses(plan)
    if shape.network is not None:
        lines.append(
            f"Decoding was measured on a core of this machine ({plan.num_cores_here} cores); "
            "those of the cluster may be faster or slower."
        )
    return lines


def write_json(plan: Plan, path: Path) -> None:
    """Every figure with its range and source.

    Raises:
        DataError: The file can't be written.
    """
    content: dict[str, Any] = {"version": FORMAT_VERSION, "lssl_ray": __version__, **asdict(plan)}
    content["shape"]["num_workers"] = plan.shape.num_workers
    try:
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise DataError(
            f"{path}: the plan can't be written ({error.strerror or error}); choose another place."
        ) from error


def _describe_pauses(plan: Plan) -> list[str]:
    pause, seconds = plan.costs.ray.pause_seconds.value, plan.estimate.segment_seconds.value
    if pause <= LONGEST_PAUSE_SHARE * seconds:
        return []
    return [
        f"The data pipeline starts anew every {seconds:.0f} s and pauses {pause:.0f} s: more than "
        f"{100 * LONGEST_PAUSE_SHARE:.0f} %. Raise cluster.segment_units (now "
        f"{plan.work.segment_units}); the driver's node then needs more memory."
    ]


def _format(value: float) -> str:
    """Three digits that count, without exponents."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"
