"""Row numbers of a manifest as a Ray dataset: what feature extraction and embedding start from."""

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset

MAX_BLOCKS = 200


def number_rows(num_rows: int, *, batch_size: int) -> Dataset:
    """A dataset with the column `id`: 0 to `num_rows` - 1, int64, in blocks of whole batches.

    The blocks are there already. Ray's own `range` has read tasks, which would wait for a core, and
    for ever on a cluster whose cores are all held by the actors that wait for what they read.

    Args:
        num_rows: At least 1.
        batch_size: Of what comes next.
    """
    num_batches = -(-num_rows // batch_size)
    rows_per_block = batch_size * -(-num_batches // MAX_BLOCKS)
    return ray.data.from_arrow(
        [
            pa.table({"id": np.arange(start, min(start + rows_per_block, num_rows))})
            for start in range(0, num_rows, rows_per_block)
        ]
    )
