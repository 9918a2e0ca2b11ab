"""One of two gloo workers: runs the loop on its part of the clips and files what came out.

Spawned by `test_world_size.py`; not a test itself.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lss_parts
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from lssl_ray.model.clip import load_clip
from lssl_ray.training.context import TrainContext
from lssl_ray.training.loop import run_loop
from lssl_ray.training.task import LssTask
from lssl_ray.types import ClipBatch, Progress

NUM_STEPS, NUM_CLIPS = 2, 8
REMEMBERING: dict[str, Any] = {"prior_running_mean": 0.5, "centering_momentum": 0.9}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "remembering": REMEMBERING,
    "prototypes": {"prototypes": True, **REMEMBERING},
}
# Options of the task, and clips of each worker per step; two parts each in the last ones.
CASES = {
    "equal": ("plain", [(4, 4), (4, 4)]),
    "unequal": ("plain", [(5, 3), (2, 6)]),
    "one_empty": ("plain", [(8, 0), (0, 8)]),
    "remembering_parts": ("remembering", [(5, 3), (8, 0)]),
    "prototypes_parts": ("prototypes", [(4, 4), (1, 7)]),
}


class GlooContext(lss_parts.LocalContext):
    """The local context with torch.distributed's sum."""

    def __init__(self, folder: Path, rows: lss_parts.Rows, *, rank: int, world_size: int) -> None:
        super().__init__(folder, device=torch.device("cpu"), append=rows.append, num_to_keep=1)
        self.rank, self.world_size = rank, world_size

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total


def draw_batches() -> list[ClipBatch]:
    return [lss_parts.draw_batch(NUM_CLIPS, seed=50 + step) for step in range(NUM_STEPS)]


def build_sgd(task: LssTask) -> torch.optim.SGD:
    group = {"params": list(task.student.parameters()), "name": "pretrained", "decays": False}
    if task.student_head is None:
        return torch.optim.SGD([group], lr=0.0)
    head = {"params": list(task.student_head.parameters()), "name": "head", "decays": False}
    return torch.optim.SGD([group, head], lr=0.0)


def run_case(
    clip_folder: str,
    batches: list[ClipBatch],
    context: TrainContext,
    rows: lss_parts.Rows,
    *,
    options: str,
    micro_batches: int = 1,
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Gradients of the last step, final weights, and the recorded metrics."""
    clip = load_clip(f"local-dir:{clip_folder}", weights=None)
    task = lss_parts.build_task(
        clip, full=True, encoder_type=lss_parts.DoubleEncoder, **OPTIONS[options]
    )
    schedules = replace(
        lss_parts.build_schedules(NUM_STEPS),
        pretrained_rate=lambda step: 0.1,
        temporal_rate=lambda step: 0.1,
    )
    run_loop(
        task,
        build_sgd(task),
        schedules,
        batches,
        progress=Progress(),
        settings=lss_parts.build_settings(
            NUM_STEPS,
            clips_per_step=NUM_CLIPS,
            gradient_clip=1e9,
            max_bad_fraction=1.0,
            micro_batches=micro_batches,
        ),
        context=context,
    )
    tensors: dict[str, Tensor] = {}
    for suffix, (student, teacher) in task.averaged_pairs().items():
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None
            tensors[f"gradient{suffix}/{name}"] = parameter.grad.clone()
            tensors[f"student{suffix}/{name}"] = parameter.detach().clone()
        for name, parameter in teacher.named_parameters():
            tensors[f"teacher{suffix}/{name}"] = parameter.clone()
    tensors |= {f"memory/{name}": value for name, value in task.memory.items()}
    return tensors, rows.metrics


def run_worker(rank: int, world_size: int, clip_folder: str, folder: str) -> None:
    """Run all cases in one process group; results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    for case, (options, splits) in CASES.items():
        batches = []
        for batch, (first, _) in zip(draw_batches(), splits, strict=True):
            start, stop = (0, first) if rank == 0 else (first, NUM_CLIPS)
            batches.append(lss_parts.take_clips(batch, start, stop))
        rows = lss_parts.Rows()
        context = GlooContext(
            Path(folder) / f"{case}_{rank}", rows, rank=rank, world_size=world_size
        )
        tensors, metrics = run_case(
            clip_folder, batches, context, rows, options=options,
            micro_batches=2 if case.endswith("parts") else 1,
        )  # fmt: skip
        save_file(tensors, f"{folder}/{case}_{rank}.safetensors")
        Path(f"{folder}/{case}_{rank}.json").write_text(json.dumps(metrics))
    dist.destroy_process_group()
