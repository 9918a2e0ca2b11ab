"""lssl_ray adapts an image CLIP to video with no per-video labels.

Importing this package does nothing and imports nothing heavy: decode children start from it.
`load_model` and `VideoModel` are fetched when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lssl_ray.inference import VideoModel, load_model

__all__ = ["VideoModel", "__version__", "load_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("VideoModel", "load_model"):
        from lssl_ray import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
