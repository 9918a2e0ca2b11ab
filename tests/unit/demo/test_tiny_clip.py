"""The tiny CLIP: open_clip loads it, equal seeds give equal weights, training learns."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from lssl_ray.demo.contrastive import ClipTraining, build_tiny_clip, normalize_pixels
from lssl_ray.demo.stills import HELD_OUT_STREAM, Stills, render_stills
from lssl_ray.demo.tiny_clip import MODEL_CONFIG, TinyClipReport, train_tiny_clip
from lssl_ray.errors import ConfigError


@pytest.fixture(scope="module")
def stills() -> Stills:
    return render_stills(64, seed=0, num_workers=1)


def _train_briefly(folder: Path, *, seed: int = 0) -> TinyClipReport:
    return train_tiny_clip(
        folder, seed=seed, num_stills=16, num_steps=2, batch_size=8, num_workers=1,
        num_held_out=8,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    _train_briefly(folder)
    return folder


def test_train_tiny_clip_result_loads_with_open_clip(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    model = open_clip.create_model(f"local-dir:{trained}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{trained}")
    saved = load_file(trained / "open_clip_model.safetensors")
    loaded = model.state_dict()
    assert set(saved) == set(loaded)
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    tokens = tokenizer(["a person bowing"])
    assert tokens.shape == (1, MODEL_CONFIG["text_cfg"]["context_length"])
    with torch.no_grad():
        text = model.encode_text(tokens, normalize=True)
        image = model.encode_image(torch.zeros(2, 3, 48, 48), normalize=True)
    assert text.shape == (1, 64)
    assert image.shape == (2, 64)
    assert torch.isfinite(text).all() and torch.isfinite(image).all()


def test_train_tiny_clip_writes_its_own_configuration(trained: Path) -> None:
    config = json.loads((trained / "open_clip_config.json").read_text())
    assert config["model_cfg"] == MODEL_CONFIG
    assert config["preprocess_cfg"]["mean"] == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert (trained / "open_clip_model.safetensors").stat().st_size < 20_000_000


def test_train_tiny_clip_equal_seeds_give_equal_weights(trained: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    _train_briefly(tmp_path / "same")
    assert torch.equal(before, torch.random.get_rng_state())
    _train_briefly(tmp_path / "other", seed=1)
    name = "open_clip_model.safetensors"
    assert (tmp_path / "same" / name).read_bytes() == (trained / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (trained / name).read_bytes()


@pytest.mark.parametrize(
    "change", [{"num_steps": 0}, {"batch_size": 1}, {"num_stills": 8}, {"seed": -1}]
)
def test_train_tiny_clip_impossible_count_raises(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        train_tiny_clip(tmp_path / "clip", **{"batch_size": 16, **change})  # type: ignore[arg-type]
    assert not (tmp_path / "clip").exists()


def test_training_few_stills_lowers_the_loss(stills: Stills) -> None:
    torch.manual_seed(0)
    training = ClipTraining(
        build_tiny_clip().train(), stills, seed=0, num_steps=30, learning_rate=2.0e-3
    )
    losses = [training.run_step(batch_size=16) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


def test_training_finish_restores_the_full_vocabulary(stills: Stills) -> None:
    torch.manual_seed(0)
    model = build_tiny_clip().train()
    before = model.token_embedding.weight.detach().clone()
    training = ClipTraining(model, stills, seed=0, num_steps=2, learning_rate=2.0e-3)
    training.run_step(batch_size=16)
    training.finish()
    after = model.token_embedding.weight.detach()
    assert after.shape == before.shape
    changed = (after != before).any(dim=1)
    used = torch.unique(torch.tensor(open_clip.SimpleTokenizer().encode("standing upright")))
    assert 20 < int(changed.sum()) < 2000
    assert changed[used].all()


def test_render_stills_held_out_stream_is_disjoint(stills: Stills) -> None:
    again = render_stills(64, seed=0, num_workers=1)
    held_out = render_stills(64, seed=0, stream=HELD_OUT_STREAM, num_workers=1)
    assert np.array_equal(again.pixels, stills.pixels)
    assert again.captions == stills.captions
    same = (held_out.pixels == stills.pixels).all(axis=(1, 2, 3))
    assert not same.any()


def test_render_stills_name_share_decides_captions() -> None:
    named = render_stills(16, seed=0, name_share=1.0, num_workers=1)
    described = render_stills(16, seed=0, name_share=0.0, num_workers=1)
    assert all("bowing" in text for text in named.captions[10])
    assert not any("bowing" in text for text in described.captions[10])
    assert "{" not in "".join(text for group in described.captions for text in group)


def test_normalize_pixels_maps_clip_mean_to_zero() -> None:
    mean = 255.0 * torch.tensor(open_clip.OPENAI_DATASET_MEAN)
    pixels = mean.round().to(torch.uint8).expand(2, 5, 7, 3)
    normalized = normalize_pixels(pixels)
    assert normalized.shape == (2, 3, 5, 7)
    assert normalized.abs().max() < 0.01
