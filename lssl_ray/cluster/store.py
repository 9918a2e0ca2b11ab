"""The object store's use as metrics: is anything spilled to disk, how much waits decoded."""

import time

import grpc
import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

MIN_SECONDS_BETWEEN_READINGS = 5.0
TIMEOUT_SECONDS = 5.0


class StoreReader:
    """Asks a raylet for what `ray memory --stats-only` prints, not more often than makes sense."""

    def __init__(self) -> None:
        self._figures: dict[str, float] = {}
        self._num_failed = 0
        self._next_reading = 0.0

    def read(self) -> dict[str, float]:
        """Figures over all nodes, a few seconds old at most; without those Ray did not give."""
        if time.monotonic() >= self._next_reading:
            self._figures = self._ask()
            self._next_reading = time.monotonic() + MIN_SECONDS_BETWEEN_READINGS
        return {**self._figures, "data/store_readings_failed": float(self._num_failed)}

    def _ask(self) -> dict[str, float]:
        try:
            state = get_state_from_address(ray.get_runtime_context().gcs_address)
            stats = get_memory_info_reply(state, timeout_seconds=TIMEOUT_SECONDS).store_stats
        except (grpc.RpcError, ConnectionError):
            self._num_failed += 1
            return {}
        return {
            "data/store_mib_used": stats.object_store_bytes_used / 2**20,
            "data/store_mib_spilled": stats.spilled_bytes_total / 2**20,
        }
