"""What labels would buy on the demo world: a supervised bound for the gain of adaptation.

The same CLIP, encoder, views, batches, rates and number of steps as the demo's recipe, but each
clip's true action is given: cross-entropy over the cosines with the category space. No method
that does not see labels should be expected above it.

    python bench/demo_bound.py --seeds 3
"""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from safetensors.torch import save_file

from lssl_ray import build
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig, load_config
from lssl_ray.demo.job import FULL, RECIPE, prepare_demo
from lssl_ray.demo.world import compute_train_labels
from lssl_ray.display import RunDisplay
from lssl_ray.engine import FeatureJob, LocalEngine
from lssl_ray.evaluation.report import ADAPTED, CLIP, compare_zero_shot
from lssl_ray.evaluation.views import SLOW, EvaluationView
from lssl_ray.model.clip import ClipModel
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.training.augment import augment_views
from lssl_ray.training.optimizer import set_rates
from lssl_ray.video.loader import iterate_batches
from lssl_ray.video.manifest import load_manifest


def main(
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(help="Seeds count from here.")] = 0,
    split: Annotated[str, typer.Option(help="validation or selection.")] = "validation",
    selection_videos: Annotated[int, typer.Option()] = FULL.num_selection,
    folder: Annotated[Path, typer.Option()] = Path("demo"),
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    console = Console()
    size = replace(FULL, num_selection=selection_videos)
    gains = []
    with RunDisplay(console) as display:
        for seed in range(first_seed, first_seed + seeds):
            inputs = prepare_demo(folder.absolute(), size=size, seed=seed, display=display)
            config = load_config(
                RECIPE,
                [
                    *inputs.build_overrides(evaluate_on=split),
                    f"run.seed={seed}",
                    *(overrides or []),
                ],
            )
            torch.manual_seed(seed)
            clip = build.build_clip(config)
            space = build.build_space(config, clip)
            labels = compute_train_labels(seed=seed, num_train=size.num_train)
            display.show_phase(f"Training with labels, seed {seed}")
            student = train_with_labels(config, clip, space, labels, display)
            weights = folder / f"bound-{seed}.safetensors"
            clip_top1, top1 = evaluate(config, space, student, weights, split)
            gains.append(top1 - clip_top1)
            console.print(json.dumps({"seed": seed, "clip": clip_top1, "supervised": top1}))
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    console.print(f"supervised minus CLIP: {statistics.mean(gains):+.1f} +- {spread:.1f} points")


def train_with_labels(
    config: RunConfig,
    clip: ClipModel,
    space: ConceptSpace,
    labels: dict[str, str],
    display: RunDisplay,
) -> VideoEncoder:
    """The recipe's student after the recipe's steps, with the right answers."""
    manifest = load_manifest(config.data.manifest).usable()
    truth = {
        record.video_id: space.labels.index(labels[Path(record.path).name])
        for record in manifest.records()
    }
    device = torch.device("cpu")
    parts = build.build_train_parts(config, clip, space, num_videos=len(manifest), device=device)
    student = parts.task.student.train()
    schedules, optimizer = parts.schedules, parts.optimizer
    num_steps = build.compute_run_steps(config, num_videos=len(manifest))
    batches = iterate_batches(
        manifest,
        build.build_plan(config, num_videos=len(manifest)),
        start_position=0,
        clips_per_step=config.optim.clips_per_step,
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        num_decoders=1,
        device=device,
    )
    for step, batch in enumerate(batches):
        rates = {
            "pretrained": schedules.pretrained_rate(step),
            "temporal": schedules.temporal_rate(step),
        }
        set_rates(optimizer, learning_rates=rates, weight_decay=schedules.weight_decay(step))
        num_views = batch.global_views.shape[1]
        pixels = augment_views(
            batch.global_views, batch.augmentation[:, :num_views], mean=clip.mean, std=clip.std
        )
        features = student(pixels.flatten(0, 1))
        target = torch.tensor([truth[video_id] for video_id in batch.video_ids])
        loss = F.cross_entropy(
            features @ space.categories.T / config.objective.student_temperature,
            target.repeat_interleave(num_views),
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), config.optim.gradient_clip)
        optimizer.step()
        display.show_count(step + 1, num_steps, f"loss {loss.item():.3f}")
    return student.eval()


def evaluate(
    config: RunConfig, space: ConceptSpace, student: VideoEncoder, weights: Path, split: str
) -> tuple[float, float]:
    """Zero-shot top-1 of CLIP and of the supervised student, percent."""
    save_file({name: value.contiguous() for name, value in student.state_dict().items()}, weights)
    manifest = load_manifest(config.evaluation.manifests[split]).usable()
    view = EvaluationView(num_frames=config.evaluation.num_frames, size=config.views.global_.size)
    job = FeatureJob(
        config=config,
        manifest=manifest,
        views={SLOW: view},
        weights={CLIP: None, ADAPTED: weights},
    )
    result = compare_zero_shot(LocalEngine().extract_features(job), manifest, space)
    return 100 * result.clip.top1, 100 * result.adapted.top1


if __name__ == "__main__":
    typer.run(main)
