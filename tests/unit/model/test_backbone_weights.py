"""Weights from local files: every published layout, and refusals that say what a file holds."""

import gc
import json
import pickle
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import tiny
import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file, save_file
from weight_files import (
    WRITERS,
    Tensors,
    read_shapes,
    write_archive,
    write_checkpoint,
    write_hugging_face,
    write_safetensors,
)

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.errors import ConfigError
from lssl_ray.model.clip import ClipModel, load_clip
from lssl_ray.model.weights import KNOWN_MODELS, infer_architecture, load_clip_weights


@pytest.fixture(scope="module")
def tensors(tiny_clip_dir: Path) -> Tensors:
    """The tiny CLIP's weights under open_clip's names."""
    return load_file(tiny_clip_dir / "open_clip_model.safetensors")


def name_folder(folder: Path) -> str:
    return f"local-dir:{folder}"


def see_gelu(clip: ClipModel) -> set[str]:
    """The activations of both towers' blocks, by what they compute."""
    model: Any = clip.encode_text
    blocks = (clip.visual.transformer.resblocks, model.__self__.transformer.resblocks)
    quick, one = 1 / (1 + torch.tensor(-1.702).exp()), torch.ones(())
    same = [torch.isclose(block.mlp.gelu(one), quick) for tower in blocks for block in tower]
    return {"quick" if value else "exact" for value in same}


@pytest.mark.parametrize("layout", WRITERS)
def test_load_clip_file_of_every_layout_equals_the_folder(
    tiny_clip: ClipModel, tiny_clip_dir: Path, tensors: Tensors, layout: str, tmp_path: Path
) -> None:
    path = WRITERS[layout](tensors, tmp_path)
    # Known by content: the name says nothing.
    path = path.rename(tmp_path / "weights")
    clip = load_clip(name_folder(tiny_clip_dir), weights=str(path))
    assert clip.digest == tiny_clip.digest
    assert not any(parameter.requires_grad for parameter in clip.visual.parameters())
    assert not clip.visual.training
    assert see_gelu(clip) == ({"quick"} if layout == "archive" else {"exact"})
    tokens = tiny_clip.tokenize(["a dog", "two cats"])
    if layout != "archive":
        assert torch.equal(clip.encode_text(tokens), tiny_clip.encode_text(tokens))


def test_load_clip_half_precision_file_becomes_float32(
    tiny_clip_dir: Path, tensors: Tensors, tmp_path: Path
) -> None:
    half = {name: value.half() for name, value in tensors.items()}
    clip = load_clip(name_folder(tiny_clip_dir), weights=str(write_archive(half, tmp_path)))
    for name, value in clip.visual.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, half[f"visual.{name}"].float())


def test_load_clip_openai_state_dict_is_known_by_its_extras(
    tiny_clip_dir: Path, tensors: Tensors, tmp_path: Path
) -> None:
    extras = ("input_resolution", "context_length", "vocab_size")
    path = tmp_path / "openai.pt"
    torch.save({**tensors, **{name: torch.tensor(1) for name in extras}}, path)
    assert see_gelu(load_clip(name_folder(tiny_clip_dir), weights=str(path))) == {"quick"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"vision_config": {}, "text_config": {}}, "quick"),  # Hugging Face's default
        ({"vision_config": {"hidden_act": "gelu"}, "text_config": {"hidden_act": "gelu"}}, "exact"),
        (None, "model name"),
    ],
)
@pytest.mark.parametrize("named_quick", [False, True])
def test_load_clip_hugging_face_activation_follows_its_config(
    tensors: Tensors,
    config: dict[str, Any] | None,
    expected: str,
    named_quick: bool,
    tmp_path: Path,
) -> None:
    folder = tiny.write_tiny_clip(tmp_path / "clip", quick_gelu=named_quick)
    path = write_hugging_face(tensors, tmp_path)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    if expected == "model name":
        expected = "quick" if named_quick else "exact"
    assert see_gelu(load_clip(name_folder(folder), weights=str(path))) == {expected}


@pytest.mark.parametrize(
    "config",
    [
        "{not json",
        "[]",
        "{}",
        '{"vision_config": {"hidden_act": "relu"}, "text_config": {"hidden_act": "relu"}}',
        '{"vision_config": {"hidden_act": "gelu"}, "text_config": {}}',
    ],
)
def test_load_clip_weights_unusable_hugging_face_config_is_refused(
    tensors: Tensors, config: str, tmp_path: Path
) -> None:
    path = write_hugging_face(tensors, tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_clip_weights(path)


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_infer_architecture_names_the_models_people_use(name: str) -> None:
    shapes = read_shapes(name)
    found = infer_architecture({key: torch.empty(s, device="meta") for key, s in shapes.items()})
    assert str(found).endswith(f"as {name}")


def test_load_clip_weights_of_another_model_are_refused_by_both_names(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({k: torch.zeros(()).expand(s) for k, s in read_shapes("ViT-B-32").items()}, path)
    with pytest.raises(ConfigError) as caught:
        load_clip("ViT-B-16", weights=str(path))
    assert "'ViT-B-16'" in str(caught.value) and "as ViT-B-32" in str(caught.value)


@pytest.mark.parametrize("write", [write_checkpoint, write_hugging_face])
def test_load_clip_file_that_lacks_weights_is_refused(
    tiny_clip_dir: Path, tensors: Tensors, write: Callable[[Tensors, Path], Path], tmp_path: Path
) -> None:
    path = write(tensors, tmp_path)
    part = tmp_path / "part"
    state = torch.load(path)["state_dict"] if path.suffix == ".pt" else load_file(path)
    lost = next(
        key for key in state if key.endswith(("1.mlp.c_fc.bias", "1.self_attn.k_proj.bias"))
    )
    del state[lost]
    torch.save(state, part)
    name = name_folder(tiny_clip_dir)
    with pytest.raises(ConfigError) as caught:
        load_clip(name, weights=str(part))
    message = str(caught.value)
    assert name in message and f"width {tiny.WIDTH}" in message and "1 missing" in message


def test_load_clip_missing_file_is_refused(tiny_clip_dir: Path, tmp_path: Path) -> None:
    for name in (name_folder(tiny_clip_dir), "ViT-B-16"):
        with pytest.raises(ConfigError, match=r"clip\.weights.*none\.pt"):
            load_clip(name, weights=str(tmp_path / "none.pt"))


@pytest.mark.parametrize(
    "content", [{"a": torch.zeros(2)}, {}, {"a": 1}, [torch.zeros(2)], b"junk"]
)
def test_load_clip_weights_unknown_layout_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=r"clip\.weights"):
        load_clip_weights(path)


@pytest.mark.parametrize("damage", ["cut", "empty"])
@pytest.mark.parametrize("layout", WRITERS)
def test_load_clip_weights_damaged_file_is_refused(
    tensors: Tensors, layout: str, damage: str, tmp_path: Path
) -> None:
    path = WRITERS[layout](tensors, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == "cut" else b"")
    with pytest.raises(ConfigError, match=r"clip\.weights"):
        load_clip_weights(path)


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP"])
def test_load_clip_other_tower_is_refused_whatever_the_file(
    tensors: Tensors, name: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="OpenAI-style"):
        load_clip(name, weights=str(write_safetensors(tensors, tmp_path)))


def test_load_clip_fixed_sine_positions_are_refused(tmp_path: Path) -> None:
    folder = tiny.write_tiny_clip(tmp_path, vision={"pos_embed_type": "sin_cos_2d"})
    with pytest.raises(ConfigError, match="OpenAI-style"):
        load_clip(name_folder(folder), weights=None)


class Touch:
    """Pickles as a call that leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["archive", "torch"])
def test_load_clip_weights_runs_nothing_from_a_file(kind: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "weights.pt"
    if kind == "torch":
        torch.save({"visual.conv1.weight": Touch(trace)}, path)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x/constants.pkl", b"")
            file.writestr("x/data.pkl", pickle.dumps(Touch(trace), protocol=2))
    with pytest.raises(ConfigError, match=r"clip\.weights"):
        load_clip_weights(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(trace)))
    assert trace.exists()  # it would have run


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"torch._utils\n_rebuild_tensor_v2\n", b"torch._utils\n_rebuild_tensor\n"),
        (b"torch\nFloatStorage\n", b"torch\nload\n"),
        (b"collections\nOrderedDict\n", b"collections\nCounter\n"),
    ],
)
def test_load_clip_weights_archive_naming_anything_else_is_refused(
    tensors: Tensors, old: bytes, new: bytes, tmp_path: Path
) -> None:
    path = write_archive(tensors, tmp_path)
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    (description,) = [name for name in entries if name.endswith("/data.pkl")]
    assert old in entries[description]
    entries[description] = entries[description].replace(old, new)
    with zipfile.ZipFile(path, "w") as file:
        for name, value in entries.items():
            file.writestr(name, value)
    with pytest.raises(ConfigError, match="asks for"):
        load_clip_weights(path)


def test_load_clip_set_by_file_equals_open_clip_itself(
    tiny_clip: ClipModel, tiny_clip_dir: Path
) -> None:
    model = open_clip.create_model(name_folder(tiny_clip_dir)).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    clip = load_clip(
        name_folder(tiny_clip_dir), weights=str(tiny_clip_dir / "open_clip_model.safetensors")
    )
    with torch.no_grad():
        assert torch.equal(clip.visual(pixels), model.encode_image(pixels))
    assert (clip.mean, clip.std) == (tiny_clip.mean, tiny_clip.std)


def test_without_text_frees_the_text_tower(tiny_clip_dir: Path) -> None:
    clip = load_clip(name_folder(tiny_clip_dir), weights=None)
    owner: Any = clip.encode_text
    model = owner.__self__
    text = [weakref.ref(p) for name, p in model.named_parameters() if not name.startswith("visual")]
    digest, image = clip.digest, model.visual.proj
    del owner, model
    assert len(text) > 20 and all(parameter() is not None for parameter in text)
    tower = clip.without_text()
    del clip
    gc.collect()
    assert all(parameter() is None for parameter in text)
    assert isinstance(tower.visual, VisionTransformer)
    assert tower.visual.proj is image and tower.digest == digest


def test_build_image_tower_holds_no_text(build_config: Callable[..., RunConfig]) -> None:
    def count_token_embeddings() -> int:
        gc.collect()
        shape = (49408, 32)
        found = [x for x in gc.get_objects() if type(x) is torch.nn.Parameter]
        return sum(tuple(parameter.shape) == shape for parameter in found)

    before = count_token_embeddings()
    tower = build.build_image_tower(build_config())
    assert count_token_embeddings() == before
    assert tower.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_load_clip_logit_scale_as_list_of_one_is_taken(
    tiny_clip_dir: Path, tensors: Tensors, tiny_clip: ClipModel, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({**tensors, "logit_scale": tensors["logit_scale"].reshape(1)}, path)
    assert load_clip(name_folder(tiny_clip_dir), weights=str(path)).digest == tiny_clip.digest
