"""CLIP weights from a local file, in any layout they are published in, under open_clip's names.

Recognised by content, whatever the file is called: open_clip state dicts, OpenAI's TorchScript
archives, Hugging Face `CLIPModel` state dicts; as safetensors or as torch files, which are read
without running anything that is in them.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isqrt
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lssl_ray.errors import ConfigError
from lssl_ray.model.archive import is_archive, read_archive

KNOWN_MODELS = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14")
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")

_HUGGING_FACE_RENAMES = (
    (r"\.?position_ids$", None),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),  # spelt so in Hugging Face's files
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)
_TRANSPOSED = ("visual.proj", "text_projection")


@dataclass(frozen=True)
class ClipWeights:
    """Both towers' weights as a file holds them.

    Attributes:
        tensors: Values under open_clip's names, in the precision of the file.
        quick_gelu: The activation they were trained with, where layout or neighbours tell.
    """

    tensors: dict[str, Tensor]
    quick_gelu: bool | None


@dataclass(frozen=True)
class Architecture:
    """What weights tell about the towers that they fit; None where a tensor is missing."""

    width: int | None
    layers: int | None
    patch: int | None
    size: int | None
    embedding: int | None
    text_width: int | None
    text_layers: int | None

    def __str__(self) -> str:
        names = [name for name in KNOWN_MODELS if self._fits(_read_architecture(name))]
        parts = [f"{key} {value}" for key, value in asdict(self).items() if value is not None]
        suffix = f", as {names[0]}" if names and self.width and self.patch else ""
        return ", ".join(parts).replace("_", " ") + suffix

    def _fits(self, other: "Architecture") -> bool:
        mine, others = asdict(self), asdict(other)
        return all(value in (None, others[key]) for key, value in mine.items())


def load_clip_weights(path: Path) -> ClipWeights:
    """Read CLIP weights from a file of any known layout.

    Raises:
        ConfigError: Not readable, or of no known layout.
    """
    try:
        archive = is_archive(path)
        tensors = read_archive(path) if archive else _read_tensors(path)
    except (
        OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError, AttributeError,
        struct.error, SafetensorError, UnpicklingError, BadZipFile,
    ) as error:  # fmt: skip
        raise ConfigError(
            f"clip.weights={str(path)!r} can't be read as safetensors, as a torch file of plain "
            f"tensors, or as OpenAI's archive: {error}"
        ) from error
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    if "vision_model.embeddings.class_embedding" in tensors:
        return ClipWeights(_rename_hugging_face(tensors), _read_hidden_act(path))
    if "visual.conv1.weight" not in tensors:
        raise ConfigError(
            f"clip.weights={str(path)!r} holds no CLIP that can be used: neither open_clip's names "
            "(visual.conv1.weight), nor OpenAI's archive, nor Hugging Face's CLIPModel "
            f"(vision_model.embeddings...), but {sorted(tensors)[:5]}. Give the weights of an "
            f"OpenAI-style model: {', '.join(KNOWN_MODELS)}."
        )
    openai = archive or all(name in tensors for name in OPENAI_EXTRAS)
    return ClipWeights(
        {
            name: value
            for name, value in tensors.items()
            # What an OpenAI model computes itself, but archives hold beside its weights.
            if not openai or (name not in OPENAI_EXTRAS and not name.endswith("attn_mask"))
        },
        quick_gelu=True if openai else None,
    )


def fill_clip(model: nn.Module, weights: ClipWeights, *, name: str, path: Path) -> None:
    """Give a model all its weights, in the model's own precision.

    Args:
        model: As open_clip built it; changed in place.
        weights: All of the model's and no others.
        name: What the model is called in the configuration, for the error.
        path: Where the weights came from, for the error.

    Raises:
        ConfigError: Weights are missing, left over, or of other shapes.
    """
    wanted, given = model.state_dict(), dict(weights.tensors)
    if "logit_scale" in given and given["logit_scale"].numel() == 1:
        # Published as a number and as a list of one.
        given["logit_scale"] = given["logit_scale"].reshape(wanted["logit_scale"].shape)
    problems = {
        "missing": [key for key in wanted if key not in given],
        "unknown": [key for key in given if key not in wanted],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
            for key in wanted
            if key in given and given[key].shape != wanted[key].shape
        ],
    }
    if any(problems.values()):
        details = "; ".join(
            f"{len(keys)} {problem}: {', '.join(keys[:3])}"
            for problem, keys in problems.items()
            if keys
        )
        raise ConfigError(
            f"clip.model={name!r} needs {infer_architecture(wanted)}. clip.weights={str(path)!r} "
            f"holds {infer_architecture(given)}; {details}. Choose the model that the file holds, "
            "or a whole file of this model."
        )
    model.load_state_dict(given)


def infer_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Read an architecture off weights under open_clip's names."""

    def measure(name: str, axis: int) -> int | None:
        shape = tensors[name].shape if name in tensors else ()
        return shape[axis] if len(shape) > max(axis, -axis - 1) else None

    patch, tokens = measure("visual.conv1.weight", -1), measure("visual.positional_embedding", 0)
    return Architecture(
        width=measure("visual.conv1.weight", 0),
        layers=_count_layers(tensors, "visual.transformer.resblocks."),
        patch=patch,
        size=patch * isqrt(tokens - 1) if patch and tokens else None,
        embedding=measure("visual.proj", 1),
        text_width=measure("token_embedding.weight", 1),
        text_layers=_count_layers(tensors, "transformer.resblocks."),
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # the length of safetensors' JSON header, then the header
        loaded: object = load_file(path)
    else:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not (isinstance(loaded, dict) and loaded):
        raise ValueError("it holds no tensors by name")
    wrong = [key for key, value in loaded.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(f"these entries are no tensors: {wrong[:5]}")
    return loaded


def _rename_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIPModel's names to open_clip's; unknown ones stay, and are refused when loaded."""
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        new = _rename(name)
        if new in _TRANSPOSED:
            renamed[new] = value.T
        elif new is not None:
            renamed[new] = value
    for name in [name for name in renamed if ".self_attn.q_proj." in name]:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in renamed for part in parts):
            joined = name.replace(".self_attn.q_proj.", ".attn.in_proj_")
            renamed[joined] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _rename(name: str) -> str | None:
    for pattern, replacement in _HUGGING_FACE_RENAMES:
        if re.search(pattern, name):
            if replacement is None:
                return None
            name = re.sub(pattern, replacement, name)
    return name


def _read_hidden_act(path: Path) -> bool | None:
    """Whether a neighbouring Hugging Face `config.json` says QuickGELU; None without one."""
    config_path = path.parent / "config.json"
    if not config_path.is_file():
        return None
    try:
        config = json.loads(config_path.read_text())
        # Hugging Face leaves out what is its default.
        names = {
            config[f"{tower}_config"].get("hidden_act", "quick_gelu")
            for tower in ("vision", "text")
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{config_path}, beside clip.weights, is no Hugging Face CLIP description: {error!r}. "
            "Repair it, or move the weights into a folder without it."
        ) from error
    if names not in ({"quick_gelu"}, {"gelu"}):
        raise ConfigError(
            f"{config_path} names the activations {sorted(names)}; both towers must have gelu, or "
            "both quick_gelu, for open_clip to build them."
        )
    return names == {"quick_gelu"}


def _count_layers(tensors: Mapping[str, Tensor], prefix: str) -> int | None:
    numbers = [
        int(name.removeprefix(prefix).split(".", 1)[0])
        for name in tensors
        if re.match(re.escape(prefix) + r"\d+\.", name)
    ]
    return max(numbers) + 1 if numbers else None


def _read_architecture(name: str) -> Architecture:
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    return Architecture(
        width=vision["width"],
        layers=vision["layers"],
        patch=vision["patch_size"],
        size=vision["image_size"],
        embedding=config["embed_dim"],
        text_width=text["width"],
        text_layers=text["layers"],
    )
