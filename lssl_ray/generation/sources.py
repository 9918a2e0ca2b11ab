"""What labels come from: a list, a theme, or videos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssl_ray.concepts.bank import load_labels
from lssl_ray.errors import ConfigError
from lssl_ray.generation.frames import Clip, find_clips, sample_clips


@dataclass(frozen=True)
class Source:
    """One of labels, theme and clips; the others are empty.

    Attributes:
        about: What it is, for the provenance.
        labels: Labels given.
        theme: What actions are to be named of.
        count: How many of them.
        clips: Videos to be shown.
        frames: Frames of each.
    """

    about: dict[str, Any]
    labels: tuple[str, ...] = ()
    theme: str = ""
    count: int = 0
    clips: tuple[Clip, ...] = ()
    frames: int = 0


def load_source(
    labels: str | None,
    theme: str | None,
    videos: Path | None,
    *,
    count: int,
    sample: int,
    frames: int,
) -> Source:
    """The one that is given.

    Raises:
        ConfigError: Not exactly one is given, an empty theme, no such list in the bank.
        DataError: A label file, manifest or folder that is none.
    """
    if sum(given is not None for given in (labels, theme, videos)) != 1:
        raise ConfigError("Give one of --labels FILE, --theme TEXT, --videos PATH.")
    if labels is not None:
        # Its name without folders: a vocabulary is passed on to others.
        return Source({"labels": Path(labels).name}, labels=load_labels(labels).labels)
    if theme is not None:
        if not theme.strip():
            raise ConfigError("--theme is empty; say in a few words what the actions are about.")
        return Source({"theme": theme, "count": count}, theme=theme, count=count)
    assert videos is not None
    clips = find_clips(videos)
    sampled = tuple(sample_clips(clips, sample))
    about = {"videos": len(clips), "clips_shown": len(sampled), "frames_per_clip": frames}
    return Source(about, clips=sampled, frames=frames)
