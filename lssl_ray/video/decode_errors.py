"""What a decode process says instead of frames: of a file, or of the machine."""

from lssl_ray.errors import DataError, LsslError
from lssl_ray.video.files import WAYS_OUT, DecodeReason

__all__ = ["DecodeError", "DecoderUnavailableError"]


class DecodeError(DataError):
    """A file gave no frames.

    Attributes:
        path: The file.
        reason: One of `DecodeReason`.
        detail: One short line: the decoder's message or the signal's name.
        seconds: Time from request to failure.
    """

    def __init__(self, path: str, reason: DecodeReason, detail: str, seconds: float) -> None:
        """Keeps the parts, in `args` too: the error survives pickling between processes."""
        super().__init__(path, reason, detail, seconds)
        self.path = path
        self.reason = reason
        self.detail = detail
        self.seconds = seconds

    def __str__(self) -> str:
        """What failed, why, and the way out."""
        return (
            f"{self.path}: {self.reason} ({self.detail}) after {self.seconds:.2f} s; "
            f"{WAYS_OUT[self.reason]}."
        )


class DecoderUnavailableError(LsslError):
    """The decode child can't start: the machine's fault, so no file is to blame."""
