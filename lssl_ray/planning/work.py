"""What a recipe asks of any machine: bytes and floating-point operations, by counting alone."""

from dataclasses import dataclass

from torch import nn

from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.video.recipe import ViewKind, ViewRecipe

FLOAT_BYTES = 4  # weights, moments and gradients are float32, with autocast too


@dataclass(frozen=True)
class RunWork:
    """A run in numbers.

    Attributes:
        clips_per_step: Over all workers.
        num_steps: Of the whole run.
        num_clips: Of the whole run; the last step may be short.
        checkpoint_every: Steps between checkpoints.
        segment_units: Worker-steps after which the data pipeline starts anew.
        overlaps: Gradients are summed over workers while the backward pass still runs.
        clip_bytes: Pixels of a clip's views, as they cross the network.
        clip_flops: Floating-point operations of a step per clip.
        backward_share: Share of those in the backward pass.
        gradient_bytes: What workers sum in every step.
        checkpoint_bytes: What rank 0 writes.
    """

    clips_per_step: int
    num_steps: int
    num_clips: int
    checkpoint_every: int
    segment_units: int
    overlaps: bool
    clip_bytes: int
    clip_flops: float
    backward_share: float
    gradient_bytes: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class ClipFlops:
    """Floating-point operations of one clip in a step, a multiply-add as two."""

    student_global: float
    student_local: float

    @property
    def backward(self) -> float:
        """Twice the student's forward pass."""
        return 2 * (self.student_global + self.student_local)

    @property
    def total(self) -> float:
        """With the teacher's forward pass over the global views."""
        return 2 * self.student_global + self.student_local + self.backward


def count_clip_bytes(recipe: ViewRecipe) -> int:
    """Pixels of all views of a clip, one byte per channel."""
    kinds = (recipe.global_views, recipe.local_views)
    return sum(3 * kind.count * kind.num_frames * kind.size**2 for kind in kinds)


def count_clip_flops(encoder: VideoEncoder, recipe: ViewRecipe) -> ClipFlops:
    """Matrix products of one clip's views, as if everything trained.

    Counted like `bench/step.py`: stem, attention over time and space, MLP, projection. Norms,
    softmax, objectives, optimiser and moving average are left out, so the share of a device's peak
    comes out a little low. Per-frame CLS tokens; a shared one is a little less.
    """
    block = encoder.blocks[0]
    width = encoder.positional_embedding.shape[1]
    depth = len(encoder.blocks)
    hidden = block.mlp[0].weight.shape[0]
    patch = encoder.patch_size

    def count_forward(views: ViewKind) -> float:
        frames, patches = views.num_frames, (views.size // patch) ** 2
        tokens = patches + 1
        stem = 2 * frames * patches * 3 * patch * patch * width
        projection = 2 * frames * tokens * width * width
        time = 5 * projection + 4 * tokens * frames * frames * width
        space = 4 * projection + 4 * frames * tokens * tokens * width
        mlp = 4 * frames * tokens * width * hidden
        head = 2 * frames * width * encoder.embedding_dim
        return float(views.count * (stem + depth * (time + space + mlp) + head))

    return ClipFlops(count_forward(recipe.global_views), count_forward(recipe.local_views))


def count_parameter_bytes(module: nn.Module, *, trained_only: bool = False) -> int:
    """Bytes of a module's parameters, or of those that train."""
    return FLOAT_BYTES * sum(
        parameter.numel()
        for parameter in module.parameters()
        if parameter.requires_grad or not trained_only
    )


def count_checkpoint_bytes(*, weights: int, trained: int) -> int:
    """Bytes of a checkpoint: student and teacher, and AdamW's two moments of what trains.

    Args:
        weights: Bytes of the student and its head.
        trained: Bytes of those that train.
    """
    return 2 * weights + 2 * trained
