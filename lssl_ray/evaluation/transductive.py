"""Which transductive reading a result is: what training knew about the evaluation's target.

Two named readings: `vocabulary`, the target's label names were in the concept space during
training; `videos`, training also saw the target's videos, without their labels. Nothing is read
here: vocabularies and ids come in, a name comes out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lssl_ray.concepts.bank import resolve_label
from lssl_ray.errors import DataError

Reading = Literal["none", "vocabulary", "videos", "both", "not stated"]
# Kinetics-400 names 49 of UCF101's 101 labels and stays an honest zero-shot vocabulary; a target's
# list with a few names left out or said otherwise does not become one.
VOCABULARY_SHARE = 0.9


@dataclass(frozen=True)
class Transduction:
    """What training knew about a target.

    Attributes:
        reading: `none`, `vocabulary`, `videos` or `both`.
        num_shared_labels: Target labels that were in the training vocabulary.
        num_labels: Target labels.
        num_shared_videos: Target videos that training saw.
        num_videos: Target videos.
    """

    reading: Reading
    num_shared_labels: int
    num_labels: int
    num_shared_videos: int
    num_videos: int

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "transductive": self.reading,
            "labels_in_training_vocabulary": self.num_shared_labels,
            "labels": self.num_labels,
            "videos_seen_in_training": self.num_shared_videos,
            "videos": self.num_videos,
        }


def find_transductive_reading(
    training_labels: Iterable[str],
    *,
    target_labels: Sequence[str],
    training_ids: Iterable[str],
    target_ids: Iterable[str],
) -> Transduction:
    """Name the reading of a result.

    It is `vocabulary` where at least 90 % of the target's labels were in the training vocabulary,
    `videos` where training saw one of the target's videos or more, `both` where both hold. The
    counts say how much was shared in any case.

    Args:
        training_labels: Labels of the concept space of training; none for plain CLIP.
        target_labels: Labels of the evaluation; a dataset's published name (`ApplyEyeMakeup`)
            counts as its phrase.
        training_ids: Videos that training saw; none for plain CLIP.
        target_ids: All videos of the target, its training part included, under ids of the same
            kind: both `VideoRecord.video_id` under one root, or both a benchmark's own, which
            `benchmarks.matching.find_ids` finds.

    Raises:
        DataError: The target has no label.
    """
    if not target_labels:
        raise DataError("The target has no label; give the labels that the evaluation predicts.")
    vocabulary, targets = set(training_labels), set(target_ids)
    labels = set(target_labels)
    num_shared = sum(resolve_label(label, vocabulary) in vocabulary for label in labels)
    num_seen = len(targets.intersection(training_ids))
    readings: dict[tuple[bool, bool], Reading] = {
        (False, False): "none",
        (True, False): "vocabulary",
        (False, True): "videos",
        (True, True): "both",
    }
    return Transduction(
        reading=readings[num_shared >= VOCABULARY_SHARE * len(labels), num_seen > 0],
        num_shared_labels=num_shared,
        num_labels=len(labels),
        num_shared_videos=num_seen,
        num_videos=len(targets),
    )
