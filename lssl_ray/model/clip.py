"""Loading an image CLIP through open_clip: both towers, tokenizer, pixel statistics, digest.

Only OpenAI-style vision transformers pass (CLS pooling, learned positions): the space-time
encoder continues exactly those. Nothing is trained or adapted here.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import open_clip
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from lssl_ray.errors import ConfigError

LOCAL_PREFIX = "local-dir:"


@dataclass(frozen=True)
class ClipModel:
    """An image CLIP as open_clip built it.

    Attributes:
        name: open_clip's model name, or `local-dir:PATH`.
        visual: The image tower, an `open_clip.transformer.VisionTransformer`.
        encode_text: Token ids to text features, not normalised.
        tokenize: Texts to token ids.
        mean: Per-channel pixel mean in [0, 1] that the weights want.
        std: Per-channel pixel standard deviation.
        digest: SHA-256 over all weights: what a concept space was made with.
    """

    name: str
    visual: nn.Module
    encode_text: Callable[[Int[Tensor, "texts context"]], Float[Tensor, "texts embedding"]]
    tokenize: Callable[[Sequence[str]], Int[Tensor, "texts context"]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str


def load_clip(name: str, *, weights: str | None) -> ClipModel:
    """Load an image CLIP in float32 on the CPU.

    Args:
        name: An open_clip model name (`ViT-B-16`), or `local-dir:PATH` for a folder with
            `open_clip_config.json` and weights.
        weights: An open_clip tag (downloaded) or a local file; None only for `local-dir:`.

    Raises:
        ConfigError: Unknown model, weights that can't be read or don't fit, an architecture that
            is no OpenAI-style vision transformer.
    """
    is_local = name.startswith(LOCAL_PREFIX)
    if weights is None and not is_local:
        raise ConfigError(
            f"clip.model={name!r} has no weights; set clip.weights to an open_clip tag (e.g. "
            "'openai') or a file: adapting random weights would teach nothing."
        )
    if is_local and not Path(name.removeprefix(LOCAL_PREFIX)).is_dir():
        raise ConfigError(
            f"clip.model={name!r}: no such folder. It must hold open_clip_config.json and weights."
        )
    try:
        # A folder without weights would otherwise give a random model and a line in the log.
        model = open_clip.create_model(
            name,
            pretrained=weights,
            require_pretrained=True,
            force_quick_gelu=wants_quick_gelu(name, weights=weights),
        )
        tokenizer = open_clip.get_tokenizer(name)
    except (
        RuntimeError, ValueError, OSError, KeyError, SafetensorError, UnpicklingError,
    ) as error:  # fmt: skip
        raise ConfigError(
            f"open_clip could not load clip.model={name!r} with clip.weights={weights!r}: {error}"
        ) from error
    model.eval().requires_grad_(False)
    visual = model.visual
    if not _is_openai_style(visual):
        raise ConfigError(
            f"clip.model={name!r} has a {type(visual).__name__} image tower; only OpenAI-style "
            "vision transformers can be continued in time (ViT-B-32, ViT-B-16, ViT-L-14, ...)."
        )
    return ClipModel(
        name=name,
        visual=visual,
        encode_text=model.encode_text,
        tokenize=tokenizer,
        mean=tuple(visual.preprocess_cfg["mean"]),
        std=tuple(visual.preprocess_cfg["std"]),
        digest=compute_weights_digest(model),
    )


def wants_quick_gelu(name: str, *, weights: str | None) -> bool:
    """Whether an open_clip tag's weights were trained with QuickGELU (OpenAI's were).

    open_clip itself only warns when model name and tag disagree, and computes with the wrong one.
    Files carry no such mark; for them the model name decides (`ViT-B-16-quickgelu`).
    """
    if weights is None or not open_clip.is_pretrained_cfg(name, weights):
        return False
    return bool(open_clip.get_pretrained_cfg(name, weights).get("quick_gelu", False))


def compute_weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_openai_style(visual: nn.Module) -> bool:
    return (
        isinstance(visual, open_clip.transformer.VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and visual.proj is not None
        and all(
            isinstance(block, open_clip.transformer.ResidualAttentionBlock)
            for block in visual.transformer.resblocks
        )
    )
