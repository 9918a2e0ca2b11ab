"""Which video is seen when: pure functions of (seed, epoch), for any number of workers.

The run is one long row of clips. Position p belongs to epoch p // n of n videos; step s with a
global batch of g clips takes positions [s * g, (s + 1) * g), so batches may span two epochs and no
clip is ever dropped. Only the last batch of the run can be short. To resume is to go on at a
position, with whatever number of workers.

Up to `LARGEST_SHUFFLE` videos an epoch's order is one shuffle, of which a process keeps the last.
Above, where every decoder would have to hold gigabytes and take seconds for it, it is a keyed
permutation that is computed at the positions asked for: a Feistel network over the next larger
power of four (Luby and Rackoff, 1988), applied again until the result is a video (Black and
Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Decides the order of larger runs: with another value they could not be resumed.
LARGEST_SHUFFLE = 2**24
_ORDER_STREAM = 0  # keeps the shuffle's random numbers apart from the views'
_ROUNDS = 8
SHUFFLED, KEYED = 1, 2  # rules; filed with runs


@dataclass(frozen=True)
class ClipVisit:
    """One visit of one video.

    Attributes:
        position: Run-wide index of the clip, from 0.
        epoch: position // number of videos.
        video: Row of the video in the (usable part of the) manifest.
    """

    position: int
    epoch: int
    video: int


def find_order_rule(num_videos: int) -> int:
    """By which rule an epoch of so many videos is ordered; one that changes gets a new number.

    Runs file it: by another rule they can't be resumed.
    """
    return SHUFFLED if num_videos <= LARGEST_SHUFFLE else KEYED


def compute_epoch_order(num_videos: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of range(num_videos): the order in which an epoch visits the videos."""
    return compute_order_part(num_videos, seed=seed, epoch=epoch, start=0, stop=num_videos)


def compute_order_part(
    num_videos: int, *, seed: int, epoch: int, start: int, stop: int
) -> NDArray[np.int64]:
    """The videos at [start, stop) of an epoch's order, 0 <= start <= stop <= num_videos.

    Costs what the part takes; up to `LARGEST_SHUFFLE` videos, the first part of an epoch in a
    process costs a shuffle of them all, of which 4 bytes per video are kept.
    """
    if find_order_rule(num_videos) == SHUFFLED:
        return _shuffle(num_videos, seed, epoch)[start:stop].astype(np.int64)
    keys = _build_rng(seed, epoch).integers(2**64, size=_ROUNDS, dtype=np.uint64)
    places = np.arange(start, stop, dtype=np.uint64)
    return permute_keyed(places, num_values=num_videos, keys=keys).astype(np.int64)


def permute_keyed(
    values: NDArray[np.uint64], *, num_values: int, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Where a keyed permutation of range(num_values) takes some of its values.

    Args:
        values: Any part of the range.
        num_values: Length of the range, >= 1.
        keys: One per round; they decide the permutation.
    """
    half_bits = max(1, ((num_values - 1).bit_length() + 1) // 2)
    result = _run_rounds(values, half_bits, keys)
    # The network permutes a larger range; its cycles lead back into ours.
    while (outside := np.flatnonzero(result >= num_values)).size:
        result[outside] = _run_rounds(result[outside], half_bits, keys)
    return result


@lru_cache(maxsize=1)
def _shuffle(num_videos: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    order = _build_rng(seed, epoch).permutation(num_videos).astype(np.uint32)
    order.setflags(write=False)  # all callers get the same one
    return order


def _build_rng(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, _ORDER_STREAM, epoch])


def _run_rounds(
    values: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    bits, mask = np.uint64(half_bits), np.uint64(2**half_bits - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit depends on every bit (SplitMix64's finaliser, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class RunPlan:
    """The whole run's clips, and how steps and workers share them.

    Attributes:
        num_videos: Usable videos in the manifest, >= 1.
        num_positions: Clips of the whole run (epochs x videos, or steps x batch).
        seed: Seed of the shuffle.
    """

    num_videos: int
    num_positions: int
    seed: int

    def compute_visits(self, start: int, stop: int) -> list[ClipVisit]:
        """The visits at positions [start, stop), cut at the end of the run."""
        visits: list[ClipVisit] = []
        position, stop = start, min(stop, self.num_positions)
        while position < stop:
            epoch, offset = divmod(position, self.num_videos)
            take = min(stop - position, self.num_videos - offset)
            videos = compute_order_part(
                self.num_videos, seed=self.seed, epoch=epoch, start=offset, stop=offset + take
            )
            visits.extend(
                ClipVisit(position=position + i, epoch=epoch, video=video)
                for i, video in enumerate(videos.tolist())
            )
            position += take
        return visits


def compute_share(clips_per_step: int, *, rank: int, num_workers: int) -> range:
    """Which clips of a step a worker takes, counted from the step's first.

    Shares are runs in rank order and differ by one clip at most; the run's last step may end
    before some of them.

    Args:
        clips_per_step: Over all workers.
        rank: Of the worker, from 0.
        num_workers: At most `clips_per_step`, or some take nothing.
    """
    return range(clips_per_step * rank // num_workers, clips_per_step * (rank + 1) // num_workers)


def compute_num_steps(num_positions: int, *, global_batch: int) -> int:
    """Steps needed for that many clips; the last one may be short."""
    return -(-num_positions // global_batch)
