"""Cutting GIF packets, on files written by Pillow."""

import io

import pytest
from PIL import Image

from lssl_ray.video.gif import split_gif_packet

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def _write_gif(num_frames: int) -> bytes:
    file = io.BytesIO()
    pictures = [Image.new("RGB", (70, 50), color) for color in COLORS[:num_frames]]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    return file.getvalue()


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_split_gif_whole_file_gives_a_piece_per_picture(num_frames: int) -> None:
    data = _write_gif(num_frames)
    pieces = split_gif_packet(data)
    assert len(pieces) == num_frames
    assert b"".join(pieces) == data[:-1]  # without the trailer
    assert split_gif_packet(b"".join(pieces[1:])) == pieces[1:]  # as well without the header


def test_split_gif_cut_anywhere_keeps_what_there_is() -> None:
    data = _write_gif(3)
    whole = split_gif_packet(data)
    for length in range(len(data)):
        pieces = split_gif_packet(data[:length])
        assert b"".join(pieces) == data[: len(b"".join(pieces))]
        assert pieces[:-1] == whole[: max(0, len(pieces) - 1)]


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x3b", b"no gif at all"])
def test_split_gif_no_picture_gives_nothing(data: bytes) -> None:
    assert split_gif_packet(data) == []
