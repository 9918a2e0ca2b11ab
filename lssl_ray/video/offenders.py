"""Videos that killed their decoder before: remembered, and after two times left alone.

A file that hangs costs its whole deadline, at every visit, in every epoch. What kills a decoder
does so again unless the machine had a bad moment, so two times count as proof. Reasons that a
decoder answers by itself (missing, unreadable, damaged) cost milliseconds and may pass: such files
are tried at every visit.

Not here: who is told. `pipeline.ClipDecoder` asks, quarantine.jsonl carries the memory over to
the next session and to other decoders.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GIVE_UP_AFTER", "LETHAL_REASONS", "Offence", "RepeatOffenders", "count_offences"]

GIVE_UP_AFTER = 2
LETHAL_REASONS = frozenset({"deadline_exceeded", "decoder_crashed", "out_of_memory"})


@dataclass(frozen=True)
class Offence:
    """How often a video killed its decoder, and how it did so the last time."""

    count: int
    reason: str


class RepeatOffenders:
    """What one decoder knows of videos that kill.

    Args:
        known: Video id to what is known from before, by other decoders or in other sessions.
    """

    def __init__(self, known: Mapping[str, Offence] | None = None) -> None:
        self._offences = dict(known or {})

    def find(self, video_id: str) -> Offence | None:
        """What a video did, when it did so often enough to be left alone."""
        offence = self._offences.get(video_id)
        return offence if offence is not None and offence.count >= GIVE_UP_AFTER else None

    def record_failure(self, video_id: str, reason: str) -> None:
        """Count a failure, if it was one that kills decoders."""
        if reason in LETHAL_REASONS:
            before = self._offences.get(video_id)
            count = 1 if before is None else before.count + 1
            self._offences[video_id] = Offence(count=count, reason=reason)

    def record_success(self, video_id: str) -> None:
        """Forget what was held against a video that decoded."""
        self._offences.pop(video_id, None)


def count_offences(rows: Iterable[Mapping[str, Any]]) -> dict[str, Offence]:
    """Read the offences of a run from its quarantine.

    Args:
        rows: Of quarantine.jsonl; only tried clips of training count.

    Returns:
        Video id to offence. A success in between is not in the quarantine, so a video that failed
        twice and decoded in between counts as an offender for sessions to come.
    """
    offenders: dict[str, Offence] = {}
    for row in rows:
        if row["stage"] == "train" and row["reason"] in LETHAL_REASONS and row.get("tried", True):
            before = offenders.get(row["video_id"])
            count = 1 if before is None else before.count + 1
            offenders[row["video_id"]] = Offence(count=count, reason=row["reason"])
    return offenders
