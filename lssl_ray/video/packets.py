"""A video's packets without decoding them: what makes a reader that seeks count frames wrongly.

Reads the whole file once, through PyAV, when it is indexed. Not here: which reader can't cope with
what is found (`probing`).
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from lssl_ray.video.files import ReaderError, find_video_stream

__all__ = ["PacketOrder", "scan_packets"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PacketOrder:
    """How a file's frames are stored.

    Attributes:
        has_leading_frames: Frames are stored behind a key frame and shown before it (an "open"
            group of pictures): a decoder that starts at the key frame can't give them.
        has_hidden_frames: The container's edit list hides frames that are stored and decode.
        only_key_frames: Every frame decodes on its own.
    """

    has_leading_frames: bool
    has_hidden_frames: bool
    only_key_frames: bool


def scan_packets(path: str) -> PacketOrder:
    """Reads all packets of the video stream; a damaged end is left to the readers to judge."""
    av: Any = importlib.import_module("av")
    leading = hidden = False
    only_key_frames = True
    key_shown_at: int | None = None
    try:
        with av.open(path) as container:
            for packet in container.demux(find_video_stream(container)):
                if packet.size == 0:  # the demuxer's end mark
                    continue
                hidden = hidden or packet.is_discard
                if packet.is_keyframe:
                    key_shown_at = packet.pts
                    continue
                only_key_frames = False
                if packet.pts is not None and key_shown_at is not None:
                    leading = leading or packet.pts < key_shown_at
    except (av.error.FFmpegError, ReaderError) as error:
        logger.info("%s: PyAV can't read all of its packets: %s", path, error)
    return PacketOrder(leading, hidden, only_key_frames)
