"""Random CLIP weights of any size, written the way open_clip, OpenAI and Hugging Face publish them.

The layouts are spelt out here from those projects' own models, apart from the code that reads them.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def read_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's weights, by open_clip; nothing is allocated."""
    with torch.device("meta"):
        model = open_clip.create_model(name, load_weights=False, device="meta")
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def draw_tensors(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> Tensors:
    """Weights in half precision, different in every tensor, of a size that features survive.

    Cut from one block of random numbers, each from another place: drawing all takes seconds.
    """
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed)).half()
    tensors = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        size = torch.Size(shape).numel()
        values = block.roll(7919 * number).repeat(-(-size // len(block)))[:size].view(shape)
        fan_in = size // shape[0] if len(shape) > 1 else 100
        values.mul_(fan_in**-0.5)
        tensors[name] = values + 1 if ".ln_" in f".{name}" and name.endswith("weight") else values
    return tensors


def write_safetensors(tensors: Tensors, folder: Path) -> Path:
    """As open_clip and laion publish them."""
    path = folder / "open_clip_model.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def write_checkpoint(tensors: Tensors, folder: Path) -> Path:
    """As open_clip's training script writes them, on several GPUs."""
    path = folder / "epoch_32.pt"
    state = {f"module.{name}": value for name, value in tensors.items()}
    torch.save({"epoch": 32, "name": "run", "state_dict": state}, path)
    return path


def write_archive(tensors: Tensors, folder: Path) -> Path:
    """As OpenAI published them: a TorchScript archive, with what the model knows beside weights."""
    extras = {
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
        "transformer.resblocks.0.attn_mask": torch.zeros(3, 3),
    }
    path = folder / "ViT-X.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(build_tree({**tensors, **extras})), str(path))
    return path


class Branch(nn.Module):
    """A module of an archive; its program is of no interest."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def build_tree(tensors: Tensors) -> nn.Module:
    root = Branch()
    for name, value in tensors.items():
        *parents, leaf = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Branch())
            module = module.get_submodule(parent)
        module.register_buffer(leaf, value)
    return root


def to_hugging_face(tensors: Tensors) -> Tensors:
    """The state dict of `transformers.CLIPModel` with these weights."""
    renamed: Tensors = {"logit_scale": tensors["logit_scale"]}
    towers = {"vision_model": "visual.", "text_model": ""}
    for tower, prefix in towers.items():
        blocks = f"{prefix}transformer.resblocks."
        for name in (name for name in tensors if name.startswith(blocks)):
            number, rest = name.removeprefix(blocks).split(".", 1)
            layer = f"{tower}.encoder.layers.{number}."
            module, kind = rest.rsplit(".", 1)
            if module == "attn":  # in_proj_weight or in_proj_bias
                for part, value in zip("qkv", tensors[name].chunk(3), strict=True):
                    key = f"{layer}self_attn.{part}_proj.{kind.removeprefix('in_proj_')}"
                    renamed[key] = value
                continue
            new = {
                "attn.out_proj": "self_attn.out_proj",
                "ln_1": "layer_norm1",
                "ln_2": "layer_norm2",
                "mlp.c_fc": "mlp.fc1",
                "mlp.c_proj": "mlp.fc2",
            }[module]
            renamed[f"{layer}{new}.{kind}"] = tensors[name]
    singles = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
        "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
        "vision_model.post_layernorm.weight": "visual.ln_post.weight",
        "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    }
    renamed |= {new: tensors[old] for new, old in singles.items()}
    renamed["text_projection.weight"] = tensors["text_projection"].T
    renamed["visual_projection.weight"] = tensors["visual.proj"].T
    for tower, positions in (("vision_model", "visual.positional_embedding"),
                             ("text_model", "positional_embedding")):  # fmt: skip
        count = len(tensors[positions])
        renamed[f"{tower}.embeddings.position_ids"] = torch.arange(count)[None]
    return renamed


def write_hugging_face(tensors: Tensors, folder: Path) -> Path:
    """As `model.safetensors` of a Hugging Face repository, without its config.json."""
    path = folder / "model.safetensors"
    contiguous = {name: value.contiguous() for name, value in to_hugging_face(tensors).items()}
    save_file(contiguous, path, metadata={"format": "pt"})
    return path


def write_hugging_face_bin(tensors: Tensors, folder: Path) -> Path:
    """As the older `pytorch_model.bin`."""
    path = folder / "pytorch_model.bin"
    torch.save(to_hugging_face(tensors), path)
    return path


Writer = Callable[[Tensors, Path], Path]
WRITERS: dict[str, Writer] = {
    "safetensors": write_safetensors,
    "checkpoint": write_checkpoint,
    "archive": write_archive,
    "hugging_face": write_hugging_face,
    "hugging_face_bin": write_hugging_face_bin,
}


def average_frames(visual: nn.Module, pixels: Tensor) -> Tensor:
    """Frame-averaged CLIP by open_clip's own forward, one frame at a time."""
    features = []
    for clip in pixels:
        frames = torch.stack([visual(frame[None])[0] for frame in clip])
        mean = (frames / frames.norm(dim=1, keepdim=True)).mean(dim=0)
        features.append(mean / mean.norm())
    return torch.stack(features)
