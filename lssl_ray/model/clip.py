"""Loading an image CLIP through open_clip: both towers, tokenizer, pixel statistics, digest.

Only OpenAI-style vision transformers pass (CLS pooling, learned positions): the space-time
encoder continues exactly those. Nothing is trained or adapted here.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lssl_ray.errors import ConfigError
from lssl_ray.model.weights import fill_clip, load_clip_weights

LOCAL_PREFIX = "local-dir:"


@dataclass(frozen=True, kw_only=True)
class ImageTower:
    """What the video encoder is made from.

    Attributes:
        name: open_clip's model name, or `local-dir:PATH`.
        visual: The image tower, an `open_clip.transformer.VisionTransformer`.
        mean: Per-channel pixel mean in [0, 1] that the weights want.
        std: Per-channel pixel standard deviation.
        digest: SHA-256 over both towers' weights: what a concept space was made with.
    """

    name: str
    visual: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str


@dataclass(frozen=True, kw_only=True)
class ClipModel(ImageTower):
    """An image CLIP as open_clip built it.

    Attributes:
        encode_text: Token ids to text features, not normalised.
        tokenize: Texts to token ids.
        model: open_clip's own object with both towers.
    """

    encode_text: Callable[[Int[Tensor, "texts context"]], Float[Tensor, "texts embedding"]]
    tokenize: Callable[[Sequence[str]], Int[Tensor, "texts context"]]
    model: nn.Module

    def without_text(self) -> ImageTower:
        """The image tower alone: the text tower's memory is free once this object is gone."""
        return ImageTower(
            name=self.name, visual=self.visual, mean=self.mean, std=self.std, digest=self.digest
        )


def load_clip(name: str, *, weights: str | None) -> ClipModel:
    """Load an image CLIP in float32 on the CPU.

    Args:
        name: An open_clip model name (`ViT-B-16`), or `local-dir:PATH` for a folder with
            `open_clip_config.json` and weights.
        weights: An open_clip tag (downloaded), or a local file as `weights.load_clip_weights`
            reads them; None, for `local-dir:` only, takes the weights in the folder.

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
    path = _find_file(name, weights=weights)
    with _refusing(name, weights):
        if path is not None:
            with _quiet(), _SkipInit():
                model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
        else:
            # A folder without weights would otherwise give a random model and a line in the log.
            model = open_clip.create_model(
                name,
                pretrained=weights,
                require_pretrained=True,
                force_quick_gelu=wants_quick_gelu(name, weights=weights),
            )
    visual = model.visual
    if not _is_openai_style(visual):
        raise ConfigError(
            f"clip.model={name!r} has a {type(visual).__name__} image tower that is not made as "
            "OpenAI's; only OpenAI-style vision transformers (CLS pooling, learned positions) can "
            "be continued in time: ViT-B-32, ViT-B-16, ViT-L-14, ..."
        )
    if path is not None:
        found = load_clip_weights(path)
        fill_clip(model, found, name=name, path=path)
        if found.quick_gelu is not None:
            set_activation(model, quick_gelu=found.quick_gelu)
    model.eval().requires_grad_(False)
    with _refusing(name, weights):
        tokenizer = open_clip.get_tokenizer(name)
    return ClipModel(
        name=name,
        visual=visual,
        encode_text=model.encode_text,
        tokenize=tokenizer,
        model=model,
        mean=tuple(visual.preprocess_cfg["mean"]),
        std=tuple(visual.preprocess_cfg["std"]),
        digest=compute_weights_digest(model),
    )


def set_activation(model: nn.Module, *, quick_gelu: bool) -> None:
    """Give both towers' blocks the activation that their weights were trained with, in place."""
    for module in model.modules():
        if isinstance(module, open_clip.transformer.ResidualAttentionBlock):
            module.mlp.gelu = open_clip.transformer.QuickGELU() if quick_gelu else nn.GELU()


def wants_quick_gelu(name: str, *, weights: str | None) -> bool:
    """Whether an open_clip tag's weights were trained with QuickGELU (OpenAI's were).

    open_clip itself only warns when model name and tag disagree, and computes with the wrong one.
    For files see `weights.ClipWeights`; where neither tells, the model name decides
    (`ViT-B-16-quickgelu`).
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


def _find_file(name: str, *, weights: str | None) -> Path | None:
    """The local file that holds the weights; None where open_clip finds them itself."""
    if weights is None or open_clip.is_pretrained_cfg(name, weights):
        return None
    if Path(weights).is_file():
        return Path(weights)
    if name.startswith(LOCAL_PREFIX):
        raise ConfigError(
            f"clip.weights={weights!r}: no such file. With clip.model={name!r} give a file, or "
            "null for the weights in the folder."
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        return None  # open_clip knows no such model, and says which it knows
    raise ConfigError(
        f"clip.weights={weights!r} is neither a file nor an open_clip tag of clip.model={name!r}; "
        f"its tags: {', '.join(tags)}."
    )


@contextmanager
def _refusing(name: str, weights: str | None) -> Iterator[None]:
    try:
        yield
    except (
        RuntimeError, ValueError, OSError, KeyError, SafetensorError, UnpicklingError,
    ) as error:  # fmt: skip
        raise ConfigError(
            f"open_clip could not load clip.model={name!r} with clip.weights={weights!r}: {error}"
        ) from error


class _SkipInit(TorchFunctionMode):
    """Leaves new weights undrawn: `fill_clip` replaces all, and drawing ViT-L's takes 8 s."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns of random weights, which a file's are about to replace."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _is_openai_style(visual: nn.Module) -> bool:
    """Asked before weights are frozen: fixed sine positions are what never had a gradient."""
    return (
        isinstance(visual, open_clip.transformer.VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and visual.proj is not None
        and visual.positional_embedding.requires_grad
        and all(
            isinstance(block, open_clip.transformer.ResidualAttentionBlock)
            for block in visual.transformer.resblocks
        )
    )
