"""The Kinetics recipes: the paper's setting in full, and the same recipe run small on a CPU."""

from pathlib import Path

import pytest
import tiny

from lssl_ray import build
from lssl_ray.config import load_config
from lssl_ray.engine import LocalEngine, TrainJob
from lssl_ray.video.manifest import load_manifest

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"


@pytest.mark.parametrize(("variant", "num_labels"), [("a", 480), ("b", 400), ("c", 1000)])
def test_kinetics_recipe_small_trains_in_its_own_space(
    variant: str, num_labels: int, tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    config = load_config(
        RECIPES / f"k400_lss_{variant}_vit_b16.yaml",
        [
            f"clip.model=local-dir:{tiny_clip_dir}",
            "clip.weights=null",
            "clip.precision=float32",
            f"data.manifest={videos.manifest}",
            "views.global.size=32",
            "views.local.size=16",
            "optim.clips_per_step=4",
            "optim.max_steps=2",
            "cluster.num_workers=1",
            "cluster.use_gpu=false",
            "cluster.cpus_per_worker=1",
            "cluster.num_decoders=1",
        ],
    )
    space = build.build_space(config, build.build_clip(config))
    assert len(space.labels) >= num_labels
    assert len(space.labels) == num_labels or variant == "c"
    job = TrainJob(
        config=config,
        run_folder=tmp_path,
        manifest=load_manifest(config.data.manifest).usable(),
        space=space,
    )
    progress = LocalEngine().train(job)
    assert (progress.step, progress.clips_trained) == (2, 8)


@pytest.mark.parametrize("variant", ["a", "b", "c"])
def test_kinetics_recipe_states_the_papers_setting(variant: str) -> None:
    config = load_config(RECIPES / f"k400_lss_{variant}_vit_b16.yaml")
    assert (config.clip.model, config.clip.weights) == ("ViT-B-16-quickgelu", "openai")
    views = config.views
    assert (views.global_.count, views.global_.num_frames, views.global_.size) == (2, 8, 224)
    assert (views.local.count, views.local.size) == (8, 96)
    assert config.concepts.labels == f"bank:lss-{variant}"
    optim = config.optim
    assert (optim.epochs, optim.warmup_share, optim.teacher_momentum) == (20, 0.25, (0.996, 1.0))
