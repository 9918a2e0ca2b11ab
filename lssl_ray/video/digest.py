"""What identifies a manifest: a hash of what training sees of it, without paths and times.

A moved folder keeps it. Computed a piece at a time on Arrow's own buffers: a hundred million rows
as Python strings would take tens of gigabytes.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DIGEST_COLUMNS = ("video_id", "size_bytes", "num_frames", "label", "split", "status", "reader")
ROWS_PER_PIECE = 2**14
# What separates and ends rows; no file name holds them.
_BETWEEN, _END, _NULL = "\x1f", "\x1e", "\x00"


def compute_table_digest(
    table: pa.Table, *, header: str, columns: Sequence[str] = DIGEST_COLUMNS
) -> str:
    """SHA-256 (hex) of a header and of some columns as text, row by row.

    Args:
        table: Holds those columns.
        header: What the rows mean, version included.
        columns: Their names.
    """
    state = hashlib.sha256(header.encode())
    for piece in table.select(columns).to_batches(max_chunksize=ROWS_PER_PIECE):
        texts = [pc.cast(column, pa.string()) for column in piece.columns]
        rows = pc.binary_join_element_wise(
            *texts, _BETWEEN, null_handling="replace", null_replacement=_NULL
        )
        state.update(_join_bytes(pc.binary_join_element_wise(rows, "", _END)))
    return state.hexdigest()


def _join_bytes(strings: pa.StringArray) -> memoryview:
    """The array's strings end to end, as they lie in memory."""
    _, offsets, data = strings.buffers()
    if data is None:  # no row
        return memoryview(b"")
    bounds = np.frombuffer(offsets, dtype=np.int32)
    first, last = bounds[strings.offset], bounds[strings.offset + len(strings)]
    return memoryview(data)[first:last]
