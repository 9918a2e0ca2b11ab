"""What Ray itself takes: measured once, in the tables of docs/, not by `lssl-ray plan`."""

from dataclasses import dataclass

from lssl_ray.planning.figures import Figure

MIB = 2**20
# As in `cluster/data.py`, which can't be imported without Ray; a test compares them.
BLOCKS_IN_STORE = 8
MIN_STORE_BYTES = 64 * MIB
BLOCK_MARGIN_BYTES = MIB
COORDINATOR_BYTES_PER_UNIT = 15 * 1024  # docs/data_path.md


@dataclass(frozen=True)
class RayCosts:
    """Costs that no recipe changes.

    Attributes:
        cores: Cores that Ray's own processes take all the time, on the driver's node.
        blocks_per_second: Blocks that one coordinator can deal to workers.
        start_seconds: From nothing to the first batch.
        pause_seconds: Between two segments of the data pipeline.
    """

    cores: Figure
    blocks_per_second: Figure
    start_seconds: Figure
    pause_seconds: Figure


RAY_COSTS = RayCosts(
    cores=Figure(
        0.18, 0.10, 0.20, "measured", "docs/input_bench.md, where the processors' time goes"
    ),
    blocks_per_second=Figure(
        71.0,
        71.0,
        480.0,
        "measured",
        "docs/scaling.md: at least so many, on two cores that other work held; the upper end is a "
        "guess",
    ),
    start_seconds=Figure(
        19.0, 7.6, 30.0, "measured", "docs/input_bench.md, first batch; 2 cores, one node"
    ),
    pause_seconds=Figure(
        6.0, 5.8, 19.0, "measured", "docs/input_bench.md, first batch of later passes; 2 cores"
    ),
)
