"""Loading CLIP: refusals a user meets, and the digest that ties concept spaces to weights."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from lssl_ray.errors import ConfigError
from lssl_ray.model.clip import ClipModel, compute_weights_digest, load_clip, wants_quick_gelu


def change_config(folder: Path, **vision: object) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"] |= vision
    path.write_text(json.dumps(config))


def test_load_clip_local_folder_gives_towers_and_statistics(tiny_clip: ClipModel) -> None:
    tokens = tiny_clip.tokenize(["a dog", "two cats"])
    assert tokens.shape == (2, 16)
    assert tiny_clip.encode_text(tokens).shape == (2, tiny.EMBEDDING)
    assert tiny_clip.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert tiny_clip.std == pytest.approx((0.26862954, 0.26130258, 0.27577711))
    assert not any(parameter.requires_grad for parameter in tiny_clip.visual.parameters())
    assert not tiny_clip.visual.training


def test_load_clip_digest_is_stable_and_sees_one_changed_weight(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder = tiny.write_tiny_clip(tmp_path)
    assert load_clip(f"local-dir:{folder}", weights=None).digest == tiny_clip.digest
    path = folder / "open_clip_model.safetensors"
    weights = load_file(path)
    weights["text_projection"][3, 4] += 1e-6
    save_file(weights, path)
    assert load_clip(f"local-dir:{folder}", weights=None).digest != tiny_clip.digest


def test_compute_weights_digest_sees_names_shapes_and_types() -> None:
    def build(name: str, value: torch.Tensor) -> torch.nn.Module:
        module = torch.nn.Module()
        module.register_buffer(name, value)
        return module

    zeros = torch.zeros(2, 3)
    variants = [
        build("a", zeros),
        build("b", zeros),
        build("a", zeros.T.contiguous()),
        build("a", zeros.double()),
        build("a", torch.zeros(())),
    ]
    assert len({compute_weights_digest(module) for module in variants}) == len(variants)
    assert compute_weights_digest(build("a", zeros)) == compute_weights_digest(variants[0])


def test_load_clip_named_model_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clip\.weights"):
        load_clip("ViT-B-32", weights=None)


def test_load_clip_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        load_clip(f"local-dir:{tmp_path / 'none'}", weights=None)


def test_load_clip_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clip\.model"):
        load_clip(f"local-dir:{tmp_path}", weights=None)


def test_load_clip_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_tiny_clip(tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"clip\.model"):
        load_clip(f"local-dir:{folder}", weights=None)


def test_load_clip_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny.write_tiny_clip(tmp_path)
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"clip\.model"):
        load_clip(f"local-dir:{folder}", weights=None)


def test_load_clip_damaged_config_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_tiny_clip(tmp_path)
    (folder / "open_clip_config.json").write_text("{not json")
    with pytest.raises(ConfigError, match=r"clip\.model"):
        load_clip(f"local-dir:{folder}", weights=None)


def test_load_clip_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    folder = tiny.write_tiny_clip(tmp_path)
    change_config(folder, width=48)
    with pytest.raises(ConfigError, match=r"clip\.model"):
        load_clip(f"local-dir:{folder}", weights=None)


def test_load_clip_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="ViT-Nope"):
        load_clip("ViT-Nope", weights="openai")


@pytest.mark.parametrize("vision", [{"attentional_pool": True}, {"pool_type": "avg"}])
def test_load_clip_other_pooling_is_refused(tmp_path: Path, vision: dict[str, object]) -> None:
    folder = tiny.write_tiny_clip(tmp_path, vision=vision)
    with pytest.raises(ConfigError, match="OpenAI-style"):
        load_clip(f"local-dir:{folder}", weights=None)


def test_load_clip_convolutional_tower_is_refused(tmp_path: Path) -> None:
    vision = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 16}
    folder = tiny.write_tiny_clip(tmp_path, vision=vision)
    with pytest.raises(ConfigError, match="ModifiedResNet"):
        load_clip(f"local-dir:{folder}", weights=None)


@pytest.mark.parametrize(
    ("name", "weights", "wanted"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-L-14", "openai", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-B-16", "some/file.pt", False),
        ("local-dir:folder", None, False),
    ],
)
def test_wants_quick_gelu_follows_the_tag(name: str, weights: str | None, wanted: bool) -> None:
    assert wants_quick_gelu(name, weights=weights) is wanted
