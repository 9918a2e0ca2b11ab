"""A checkpoint's figures: equal to plain arithmetic, and with no trace of the one before."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lssl_ray.evaluation.label_free import SCORE_NAMES
from lssl_ray.model.clip import ClipModel
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.types import BRIGHTNESS, CONTRAST, SATURATION
from lssl_ray.validation.decoded import DecodedVideos
from lssl_ray.validation.evaluator import (
    Axes,
    CheckpointEvaluator,
    HeldBackVideos,
    LabelledSplit,
)

NUM_VIDEOS, NUM_FRAMES, SIZE = 6, 2, 32
LABELS = ("a", "b", "c")
TRUTH = ("a", "b", "c", "a", "b", "c")


def draw_videos(*, views: int, seed: int, ids: tuple[str, ...]) -> DecodedVideos:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (len(ids), views, NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    values = np.zeros((len(ids), views, 5), dtype=np.float32)
    values[..., [BRIGHTNESS, CONTRAST, SATURATION]] = 1.0
    return DecodedVideos(ids, frames, values if views > 1 else None, ())


IDS = tuple("uvwxyz")
SPLIT = draw_videos(views=1, seed=0, ids=IDS)
# One video of each decoded for one of both only: neither takes part.
HELD_BACK = HeldBackVideos(
    views=draw_videos(views=2, seed=1, ids=("p", "q", "r", "s", "t")),
    centre=draw_videos(views=1, seed=2, ids=("q", "r", "s", "t", "u")),
)


def build_encoder(clip: ClipModel) -> VideoEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = VideoEncoder(clip.visual, num_frames=NUM_FRAMES)  # type: ignore[arg-type]
    return encoder.eval().requires_grad_(False)


def draw_rows(count: int, width: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=-1)


def build_evaluator(clip: ClipModel, *, held_back: bool = True) -> CheckpointEvaluator:
    encoder = build_encoder(clip)
    width = encoder.embedding_dim
    return CheckpointEvaluator(
        encoder,
        mean=clip.mean,
        std=clip.std,
        axes=Axes(
            labels=LABELS,
            answers=draw_rows(3, width, seed=5),
            category=draw_rows(4, width, seed=6),
            description=draw_rows(4, width, seed=7),
            link=None,
            temperature=0.07,
        ),
        splits={"val": LabelledSplit(SPLIT, TRUTH)},
        held_back=HELD_BACK if held_back else None,
    )


def write_checkpoint(folder: Path, clip: ClipModel, *, teacher: int, student: int) -> Path:
    """Weights moved away from CLIP's by a seed each; seed 0 is CLIP."""
    folder.mkdir()
    for name, seed in (("teacher", teacher), ("student", student)):
        weights = build_encoder(clip).state_dict()
        generator = torch.Generator().manual_seed(seed)
        moved = {
            key: value + (0.2 * torch.randn(value.shape, generator=generator) if seed else 0)
            for key, value in weights.items()
        }
        save_file(moved, folder / f"{name}.safetensors")
    return folder


def test_evaluator_zero_shot_and_knn_equal_plain_arithmetic(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "one", tiny_clip, teacher=3, student=4)
    scores = build_evaluator(tiny_clip, held_back=False).evaluate(checkpoint)
    assert scores.keys() == {"validation/val/zero_shot", "validation/val/knn"}
    encoder = build_encoder(tiny_clip)
    generator = torch.Generator().manual_seed(3)
    encoder.load_state_dict(
        {
            key: value + 0.2 * torch.randn(value.shape, generator=generator)
            for key, value in encoder.state_dict().items()
        }
    )
    pixels = torch.from_numpy(SPLIT.frames[:, 0]).permute(0, 1, 4, 2, 3).float() / 255
    mean, std = (torch.tensor(one)[:, None, None] for one in (tiny_clip.mean, tiny_clip.std))
    with torch.inference_mode():
        features = encoder((pixels - mean) / std)
    cosines = features @ draw_rows(3, encoder.embedding_dim, seed=5).T
    right = [LABELS[int(row.argmax())] == label for row, label in zip(cosines, TRUTH, strict=True)]
    assert scores["validation/val/zero_shot"] == pytest.approx(sum(right) / NUM_VIDEOS)
    assert 0 <= scores["validation/val/knn"] <= 1


def test_evaluator_remembers_nothing_of_the_checkpoint_before(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    first = write_checkpoint(tmp_path / "first", tiny_clip, teacher=1, student=2)
    second = write_checkpoint(tmp_path / "second", tiny_clip, teacher=3, student=4)
    evaluator = build_evaluator(tiny_clip)
    found = [evaluator.evaluate(one) for one in (first, second, first)]
    assert found[0] == found[2] != found[1]
    assert build_evaluator(tiny_clip).evaluate(second) == found[1]


def test_evaluator_scores_held_back_videos_by_every_name(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "one", tiny_clip, teacher=1, student=2)
    scores = build_evaluator(tiny_clip).evaluate(checkpoint)
    assert {name for name in scores if name.startswith("held_back/")} == {
        f"held_back/{name}" for name in SCORE_NAMES
    }


def test_evaluator_student_decides_no_figure_of_the_teacher(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    same = write_checkpoint(tmp_path / "same", tiny_clip, teacher=1, student=1)
    other = write_checkpoint(tmp_path / "other", tiny_clip, teacher=1, student=9)
    evaluator = build_evaluator(tiny_clip)
    one, two = evaluator.evaluate(same), evaluator.evaluate(other)
    differing = {name for name in one if one[name] != two[name]}
    assert differing == {"held_back/student_agreement"}
