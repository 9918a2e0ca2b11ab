"""One training step of ours beside a straightforward one: ratio, hardware share, peak memory.

Both do the same arithmetic on the same weights and views, which is checked before anything is
timed: the losses must agree. The straightforward one is what a paper's script does: a forward
pass per view, `nn.MultiheadAttention`, tensors copied between space and time, a Python loop over
pairs of views, and one parameter at a time in EMA and AdamW.

    python bench/step.py                                              # CPU: ViT-B-32, small views
    python bench/step.py --model ViT-B-16 --device cuda --dtype bfloat16 --clips 16 \
        --global-views 2x8x224 --local-views 8x8x96 --compile         # a GPU

Weights are random: the time of a step does not depend on them. Timed in turns, one step of each,
so that both meet the same machine. Floating-point operations are counted from the shapes
(`count_step_flops`), and compared with what a large matrix multiplication reaches here.
"""

import logging
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

import open_clip
import torch
import torch.nn.functional as F
import typer
from open_clip.transformer import VisionTransformer
from plain_step import (
    DECAY,
    MOMENTUM,
    RATE,
    STUDENT_TEMPERATURE,
    TEACHER_TEMPERATURE,
    PlainStep,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.model.teacher import build_teacher, update_teacher
from lssl_ray.training.optimizer import build_optimizer, set_rates
from lssl_ray.training.task import LossWeights, LssTask, Temperatures
from lssl_ray.types import ClipBatch

NUM_CONCEPTS = 400
AGREEMENT = 2e-3


@dataclass(frozen=True)
class Views:
    """Views of one kind per clip: how many, frames each, height and width in px."""

    count: int
    num_frames: int
    size: int

    @classmethod
    def parse(cls, text: str) -> "Views":
        """`2x8x224`: count, frames, size."""
        return cls(*(int(part) for part in text.split("x")))


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    model: str
    clips: int
    global_views: Views
    local_views: Views
    device: str
    dtype: str
    compile: bool
    threads: int


class OurStep:
    """The library's own step, put together as the training loop does."""

    def __init__(self, visual: VisionTransformer, spaces: tuple[Tensor, Tensor], batch: ClipBatch,
                 stats: dict[str, tuple[float, float, float]], dtype: torch.dtype,
                 *, compiled: bool) -> None:  # fmt: skip
        device = spaces[0].device
        student = VideoEncoder(visual, num_frames=batch.global_views.shape[2])
        teacher = build_teacher(student)
        if compiled:
            student.compile()
            teacher.compile()
        self.task = LssTask(
            student, teacher, categories=spaces[0], descriptions=spaces[1], link=None, **stats
        ).to(device)
        self.task.train()
        self.optimizer = build_optimizer(student, betas=(0.9, 0.999))
        self.batch, self.dtype = batch, dtype

    def __call__(self) -> Tensor:
        """One update; returns the loss."""
        set_rates(
            self.optimizer,
            learning_rates={"pretrained": RATE, "temporal": RATE},
            weight_decay=DECAY,
        )
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.batch.global_views.device.type, dtype=self.dtype,
                            enabled=self.dtype != torch.float32):  # fmt: skip
            output = self.task(
                self.batch,
                weights=LossWeights(1.0, 1.0, 1.0, 1.0),
                temperatures=Temperatures(student=STUDENT_TEMPERATURE, teacher=TEACHER_TEMPERATURE),
            )
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.task.student.parameters(), 3.0)
        self.optimizer.step()
        update_teacher(self.task.teacher, self.task.student, momentum=MOMENTUM)
        return cast(Tensor, output.loss.detach())


def count_step_flops(visual: VisionTransformer, setting: Setting) -> dict[str, float]:
    """Floating-point operations of one step by part, a multiply-add as two.

    Matrix products only. The backward pass counts twice the forward; the teacher has none.
    """
    width = visual.positional_embedding.shape[1]
    embedding = visual.proj.shape[1]
    depth = len(visual.transformer.resblocks)
    hidden = visual.transformer.resblocks[0].mlp[0].weight.shape[0]
    patch = visual.patch_size[0]

    def forward(views: Views) -> float:
        frames, patches = views.num_frames, (views.size // patch) ** 2
        tokens = patches + 1
        stem = 2 * frames * patches * 3 * patch * patch * width
        projections = 2 * frames * tokens * width * width
        time = 5 * projections + 4 * tokens * frames * frames * width
        space = 4 * projections + 4 * frames * tokens * tokens * width
        mlp = 4 * frames * tokens * width * hidden
        head = 2 * frames * width * embedding
        return setting.clips * views.count * (stem + depth * (time + space + mlp) + head)

    on_global, on_local = forward(setting.global_views), forward(setting.local_views)
    return {
        "student forward, global views": on_global,
        "student forward, local views": on_local,
        "student backward": 2 * (on_global + on_local),
        "teacher forward": on_global,
    }


def measure_matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large square matrix product: best of ten."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(10):
        started = _now(device)
        a @ b
        times.append(_now(device) - started)
    return 2 * side**3 / min(times)


def build_inputs(
    setting: Setting,
) -> tuple[VisionTransformer, tuple[Tensor, Tensor], ClipBatch, dict[str, tuple[float, ...]]]:
    """CLIP's image tower with random weights, two random concept spaces, random pixels."""
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # open_clip warns of the random weights that are wanted here
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device)
    model = open_clip.create_model(setting.model)
    visual = cast(VisionTransformer, model.visual)

    def draw_space() -> Tensor:
        matrix = torch.randn(NUM_CONCEPTS, visual.proj.shape[1])
        return F.normalize(matrix, dim=-1).to(device)

    def draw_views(views: Views) -> Tensor | None:
        shape = (setting.clips, views.count, views.num_frames, views.size, views.size, 3)
        return torch.randint(256, shape, dtype=torch.uint8).to(device) if views.count else None

    global_views = draw_views(setting.global_views)
    assert global_views is not None
    neutral = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0], device=device)
    batch = ClipBatch(
        global_views=global_views,
        local_views=draw_views(setting.local_views),
        augmentation=neutral.expand(
            setting.clips, setting.global_views.count + setting.local_views.count, 5
        ),
        positions=tuple(range(setting.clips)),
        video_ids=tuple(str(i) for i in range(setting.clips)),
    )
    stats = {name: tuple(visual.preprocess_cfg[name]) for name in ("mean", "std")}
    return visual, (draw_space(), draw_space()), batch, stats


def build_step(name: str, setting: Setting) -> Callable[[], Tensor]:
    """`ours` or `plain`, on the same inputs."""
    inputs = build_inputs(setting)
    dtype = getattr(torch, setting.dtype)
    if name == "plain":
        return PlainStep(*inputs, dtype)
    return OurStep(*inputs, dtype, compiled=setting.compile)


def measure_peak_memory(name: str, setting: Setting) -> float:
    """Peak memory of two steps in a process of its own, GiB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_run_for_memory, (name, setting))


def _run_for_memory(name: str, setting: Setting) -> float:
    step = build_step(name, setting)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step()
    if setting.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main(
    model: Annotated[str, typer.Option(help="open_clip model name.")] = "ViT-B-32",
    clips: Annotated[int, typer.Option(help="Clips per step.")] = 2,
    global_views: Annotated[str, typer.Option(help="count x frames x size.")] = "2x4x224",
    local_views: Annotated[str, typer.Option(help="count x frames x size.")] = "4x4x96",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 by autocast.")] = "float32",
    compile: Annotated[bool, typer.Option(help="torch.compile our encoders.")] = False,
    threads: Annotated[int, typer.Option(help="Torch threads on the CPU.")] = 2,
    repeats: Annotated[int, typer.Option(help="Timed steps of each.")] = 5,
) -> None:
    setting = Setting(
        model, clips, Views.parse(global_views), Views.parse(local_views), device, dtype,
        compile, threads,
    )  # fmt: skip
    console = Console()
    where = torch.device(device)
    memory = {name: measure_peak_memory(name, setting) for name in ("ours", "plain")}
    steps = {name: build_step(name, setting) for name in ("ours", "plain")}
    first = {name: step().item() for name, step in steps.items()}
    if abs(first["ours"] - first["plain"]) > AGREEMENT * abs(first["plain"]):
        raise SystemExit(f"Not the same step: first losses {first}; nothing was timed.")
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            started = _now(where)
            step()
            seconds[name].append(_now(where) - started)
    visual = build_inputs(setting)[0]
    counts = count_step_flops(visual, setting)
    rate = measure_matmul_rate(where, getattr(torch, dtype))
    for part, count in counts.items():
        console.print(f"{part}: {count / 1e9:.1f} GFLOP")
    total = sum(counts.values())
    console.print(
        f"one step: {total / 1e9:.1f} GFLOP; matrix product here: {rate / 1e9:.0f} GFLOP/s; "
        f"first losses {first['ours']:.5f} (ours) {first['plain']:.5f} (plain)"
    )
    table = Table(
        title=f"{model}, {clips} clips, {global_views} + {local_views}, {device}, {dtype}"
    )
    for column in ("step", "median s", "min s", "share of matmul rate", "peak memory, GiB"):
        table.add_column(column)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        table.add_row(
            name, f"{medians[name]:.3f}", f"{min(values):.3f}",
            f"{100 * total / medians[name] / rate:.0f} %", f"{memory[name]:.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(f"plain / ours: {medians['plain'] / medians['ours']:.2f}")


if __name__ == "__main__":
    typer.run(main)
