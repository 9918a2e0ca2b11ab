"""Which clips were trained in which step: filed on request, and checked against the promise.

The promise is: each clip of an epoch once, for any number of workers, through any kills. With
`data.audit` every worker files the positions of each step; steps that a resumed run does again
replace their rows, so what is left is what the weights have seen.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lssl_ray.types import ClipBatch


def file_positions(
    batches: Iterable[ClipBatch],
    *,
    steps_done: int,
    rank: int,
    append: Callable[[str, Mapping[str, Any]], None],
) -> Iterator[ClipBatch]:
    """The same batches; each is filed as the step that takes it begins.

    Args:
        batches: This worker's, one per step.
        steps_done: Steps of the run before the first batch.
        rank: Of this worker.
        append: Takes the kind of row, `audit`, and the row.
    """
    for step, batch in enumerate(batches, start=steps_done + 1):
        row = {
            "step": step,
            "rank": rank,
            "trained": list(batch.positions),
            "failed": [failure.position for failure in batch.failures],
        }
        append("audit", row)
        yield batch


def find_missing_and_repeated(
    rows: Iterable[Mapping[str, Any]], *, num_positions: int
) -> tuple[list[int], list[int]]:
    """Compare audit rows with the promise.

    Args:
        rows: Of audit.jsonl.
        num_positions: Positions that should have been visited: [0, num_positions).

    Returns:
        Positions that no row has, and positions that more than one has or that are out of range;
        both empty when every clip was visited once.
    """
    visits = Counter(position for row in rows for position in (*row["trained"], *row["failed"]))
    missing = [position for position in range(num_positions) if not visits[position]]
    repeated = [
        position
        for position, count in sorted(visits.items())
        if count > 1 or not 0 <= position < num_positions
    ]
    return missing, repeated
