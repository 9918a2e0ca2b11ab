"""GIF: cuts a packet that holds several pictures into packets of one.

Early GIFs (87a) have no control block before each picture, and FFmpeg 8's demuxer, which cuts
there, hands out such a file as one packet, of which the decoder shows the first picture only. Not
here: decoding (`reader_pyav`).
"""

__all__ = ["split_gif_packet"]

_HEADER_BYTES = 13  # signature, version, screen size, flags, background, aspect
_DESCRIPTOR_BYTES = 10  # of a picture: separator, place, size, flags
_EXTENSION = 0x21
_PICTURE = 0x2C


def split_gif_packet(data: bytes) -> list[bytes]:
    """Cuts behind each picture.

    Args:
        data: Blocks of a GIF, with or without the file's header before them.

    Returns:
        One piece per picture, each with the blocks before its picture; what follows the last
        picture is left out. A cut-off last picture is the last piece, as far as it goes.
    """
    pieces = []
    start = 0
    position = _HEADER_BYTES + _color_table_bytes(data, 10) if data[:3] == b"GIF" else 0
    while position < len(data) and data[position] in (_EXTENSION, _PICTURE):
        is_picture = data[position] == _PICTURE
        if is_picture:
            position += _DESCRIPTOR_BYTES + _color_table_bytes(data, position + 9) + 1
        else:
            position += 2
        position = _skip_sub_blocks(data, position)
        if is_picture:
            pieces.append(data[start:position])
            start = position
    return pieces


def _color_table_bytes(data: bytes, flags_at: int) -> int:
    """Size of the colour table that a byte of flags announces, three bytes per colour."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 * 2 ** ((flags & 0x07) + 1) if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, position: int) -> int:
    """The position behind a chain of sub-blocks, each led by its size; a zero ends it."""
    while position < len(data) and data[position] != 0:
        position += data[position] + 1
    return min(position + 1, len(data))
