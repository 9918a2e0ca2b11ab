"""What time added to an image tower, as a file of its own: read into an encoder."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from lssl_ray.errors import CheckpointError
from lssl_ray.model.space_time import VideoEncoder, is_temporal


def load_temporal(encoder: VideoEncoder, path: Path) -> None:
    """Load what time added to an image tower, all of it and nothing else.

    Raises:
        CheckpointError: Not readable, or of another architecture.
    """
    try:
        result = encoder.load_state_dict(load_file(path), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} can't be used: {error}. Export the model again.") from error
    missing = [name for name in result.missing_keys if is_temporal(name)]
    if missing or result.unexpected_keys:
        raise CheckpointError(
            f"{path} lacks {missing[:5]} and holds {result.unexpected_keys[:5]} too much; export "
            "the model again."
        )
