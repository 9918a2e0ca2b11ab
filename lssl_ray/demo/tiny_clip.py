"""A tiny image CLIP that knows the demo world from still pictures and captions.

It has open_clip's own architecture, tokenizer and file layout, so that everything that loads a real
CLIP loads this one. It learns from scratch on clean single stills (`conditions.STILL`), most
captions telling pose and objects, fewer the action's name. It has never seen a video, nor a video's
light, noise and clutter (`conditions.VIDEO`): the gap that remains is what adaptation is for.
Not a model for any other use.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from lssl_ray.demo.actions import ACTIONS
from lssl_ray.demo.contrastive import (
    MODEL_CONFIG,
    ClipTraining,
    build_tiny_clip,
    normalize_pixels,
    tokenize_captions,
)
from lssl_ray.demo.stills import HELD_OUT_STREAM, TRAIN_STREAM, Stills, render_stills
from lssl_ray.errors import ConfigError

__all__ = ["MODEL_CONFIG", "TinyClipReport", "train_tiny_clip"]

logger = logging.getLogger(__name__)

_TEMPLATES = ("a photo of a person {}.", "a picture of someone {}.", "a drawing of a person {}.")


@dataclass(frozen=True)
class TinyClipReport:
    """What `train_tiny_clip` did.

    Attributes:
        seed: the seed given.
        num_stills: pictures trained on.
        num_steps: optimizer updates.
        final_loss: contrastive loss, mean of the last 20 steps.
        still_accuracy: zero-shot top-1 on held-out clean stills, in [0, 1]; time-reversed pairs
            are told apart by chance only.
        still_accuracy_merged: the same with either label of a time-reversed pair counted right.
        size_bytes: size of the weights file.
        render_seconds: wall-clock time of drawing the stills.
        train_seconds: wall-clock time of the training.
    """

    seed: int
    num_stills: int
    num_steps: int
    final_loss: float
    still_accuracy: float
    still_accuracy_merged: float
    size_bytes: int
    render_seconds: float
    train_seconds: float


def _compute_label_matrix(model: Any) -> Tensor:
    rows = []
    for action in ACTIONS:
        texts = tokenize_captions([template.format(action.label) for template in _TEMPLATES])
        rows.append(functional.normalize(model.encode_text(texts, normalize=True).mean(0), dim=0))
    return torch.stack(rows)


@torch.no_grad()
def _compute_still_accuracies(model: Any, stills: Stills) -> tuple[float, float]:
    features = model.encode_image(normalize_pixels(torch.from_numpy(stills.pixels)), normalize=True)
    predicted = (features @ _compute_label_matrix(model).T).argmax(1).numpy()
    labels = [action.label for action in ACTIONS]
    merged = np.array([labels.index(a.reversed_of or a.label) for a in ACTIONS])
    return (
        float((predicted == stills.actions).mean()),
        float((merged[predicted] == merged[stills.actions]).mean()),
    )


def _save_model(model: nn.Module, *, out_dir: Path) -> int:
    """Write open_clip's local-dir layout and return the weights' size in bytes."""
    out_dir.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": MODEL_CONFIG,
        "preprocess_cfg": {
            "mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD),
        },
    }  # fmt: skip
    (out_dir / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = out_dir / "open_clip_model.safetensors"
    weights.write_bytes(save({n: value.contiguous() for n, value in model.state_dict().items()}))
    return weights.stat().st_size


def _run_training(
    stills: Stills,
    *,
    seed: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    on_progress: Callable[[int, int, float], None] | None,
) -> tuple[Any, list[float]]:
    """Return the trained model, in eval mode, and each step's loss."""
    losses = []
    # Forked so that the caller's random state stays what it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_tiny_clip().train()
        training = ClipTraining(
            model, stills, seed=seed, num_steps=num_steps, learning_rate=learning_rate
        )
        for step in range(num_steps):
            losses.append(training.run_step(batch_size=batch_size))
            if on_progress is not None:
                on_progress(step + 1, num_steps, losses[-1])
        training.finish()
    return model.eval(), losses


def _check_counts(
    *, seed: int, num_stills: int, num_steps: int, batch_size: int, num_workers: int
) -> None:
    if seed < 0 or num_steps < 1 or batch_size < 2 or num_stills < batch_size or num_workers < 1:
        raise ConfigError(
            f"seed={seed}, num_stills={num_stills}, num_steps={num_steps}, batch_size={batch_size},"
            f" num_workers={num_workers}: need seed >= 0, num_steps >= 1, batch_size >= 2, "
            "num_stills >= batch_size and num_workers >= 1"
        )


def train_tiny_clip(
    out_dir: str | Path,
    *,
    seed: int = 0,
    num_stills: int = 16000,
    num_steps: int = 1200,
    batch_size: int = 64,
    learning_rate: float = 2.0e-3,
    num_workers: int = 2,
    num_held_out: int = 800,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> TinyClipReport:
    """Render stills, train the tiny CLIP on them, save it so that open_clip loads it.

    Load it back with `open_clip.create_model("local-dir:<out_dir>")`.

    Args:
        out_dir: receives `open_clip_config.json` and `open_clip_model.safetensors`.
        seed: of stills, weights and batches; fixes the result for a machine and thread count.
        num_stills: pictures to draw, >= batch_size.
        num_steps: optimizer updates, >= 1.
        batch_size: pictures per update, >= 2.
        learning_rate: peak of AdamW's schedule; Muon's is ten times that.
        num_workers: processes that draw.
        num_held_out: clean stills, never trained on, for the report's accuracies, >= 1.
        on_progress: called with (steps done, steps in all, loss of the last step).

    Raises:
        ConfigError: a count is out of range.
    """
    _check_counts(seed=seed, num_stills=num_stills, num_steps=num_steps, batch_size=batch_size,
                  num_workers=num_workers)  # fmt: skip
    started = time.monotonic()
    stills, held_out = (
        render_stills(count, seed=seed, stream=stream, num_workers=num_workers)
        for count, stream in ((num_stills, TRAIN_STREAM), (num_held_out, HELD_OUT_STREAM))
    )
    rendered = time.monotonic()
    model, losses = _run_training(
        stills, seed=seed, num_steps=num_steps, batch_size=batch_size,
        learning_rate=learning_rate, on_progress=on_progress,
    )  # fmt: skip
    trained = time.monotonic()
    accuracy, merged = _compute_still_accuracies(model, held_out)
    return TinyClipReport(
        seed=seed, num_stills=num_stills, num_steps=num_steps,
        final_loss=float(np.mean(losses[-20:])), still_accuracy=accuracy,
        still_accuracy_merged=merged, size_bytes=_save_model(model, out_dir=Path(out_dir)),
        render_seconds=rendered - started, train_seconds=trained - rendered,
    )  # fmt: skip


def _main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo world's tiny CLIP.")
    parser.add_argument("--out", required=True, help="folder for weights and configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stills", type=int, default=16000)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--learning-rate", type=float, default=2.0e-3)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def log(step: int, num_steps: int, loss: float) -> None:
        if step % 50 == 0 or step == num_steps:
            logger.info("step %d of %d, loss %.3f", step, num_steps, loss)

    report = train_tiny_clip(
        options.out, seed=options.seed, num_stills=options.stills, num_steps=options.steps,
        learning_rate=options.learning_rate, num_workers=options.workers, on_progress=log,
    )  # fmt: skip
    logger.info("%s", report)


if __name__ == "__main__":
    _main()
