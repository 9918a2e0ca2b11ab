"""Which video is seen when: pure functions of (seed, epoch), for any number of workers.

The run is one long row of clips. Position p belongs to epoch p // n of n videos; step s with a
global batch of g clips takes positions [s * g, (s + 1) * g), so batches may span two epochs and no
clip is ever dropped. Only the last batch of the run can be short. To resume is to go on at a
position, with whatever number of workers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ORDER_STREAM = 0  # keeps the shuffle's random numbers apart from the views'


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


def compute_epoch_order(num_videos: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of range(num_videos): the order in which an epoch visits the videos."""
    rng = np.random.default_rng([seed, _ORDER_STREAM, epoch])
    return rng.permutation(num_videos).astype(np.int64)


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
            order = compute_epoch_order(self.num_videos, seed=self.seed, epoch=epoch)
            take = min(stop - position, self.num_videos - offset)
            visits.extend(
                ClipVisit(position=position + i, epoch=epoch, video=int(order[offset + i]))
                for i in range(take)
            )
            position += take
        return visits

    def compute_worker_visits(
        self, step_start: int, *, rank: int, clips_per_worker: int
    ) -> list[ClipVisit]:
        """A worker's share of the step whose global batch starts at position `step_start`.

        Worker r takes the r-th run of `clips_per_worker` positions. In the run's last step a
        worker's share may be short or empty.
        """
        start = step_start + rank * clips_per_worker
        return self.compute_visits(start, start + clips_per_worker)


def compute_num_steps(num_positions: int, *, global_batch: int) -> int:
    """Steps needed for that many clips; the last one may be short."""
    return -(-num_positions // global_batch)
