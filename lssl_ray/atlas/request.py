"""What a person asked `lssl-ray atlas` for, checked before anything is loaded."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from lssl_ray.errors import ConfigError

DEFAULT_CONCEPTS, DEFAULT_CLIPS, DEFAULT_VIDEOS = 500, 6, 5000


@dataclass(frozen=True)
class AtlasRequest:
    """One atlas.

    Attributes:
        model: Run or checkpoint, as `lssl-ray evaluate` takes it.
        manifests: Joined to one list of videos; labels are optional.
        num_concepts: Most concepts to show of each kind, names and descriptions.
        clips_per_concept: Length of the lists of top-scoring clips.
        max_videos: Most videos to look at.
        out: The page; None is `atlas/atlas.html` in the run folder.
        overrides: `a.b=value`.
        local: One process, no Ray.
    """

    model: str
    manifests: tuple[Path, ...]
    num_concepts: int = DEFAULT_CONCEPTS
    clips_per_concept: int = DEFAULT_CLIPS
    max_videos: int = DEFAULT_VIDEOS
    out: Path | None = None
    overrides: tuple[str, ...] = ()
    local: bool = False

    def check(self) -> None:
        """Refuse what can't be made.

        Raises:
            ConfigError: What, and the way out.
        """
        numbers = {
            "--concepts": self.num_concepts,
            "--clips-per-concept": self.clips_per_concept,
            "--max-videos": self.max_videos,
        }
        for flag, number in numbers.items():
            if number < 1:
                raise ConfigError(f"{flag} {number} must be at least 1.")
        if self.out is not None and self.out.suffix.lower() != ".html":
            raise ConfigError(
                f"-o {self.out}: the atlas is one page; give it a name that ends in .html (its "
                "JSON goes beside it)."
            )

    def describe_command(self) -> str:
        """The command line that asks for the same."""
        words = ["lssl-ray", "atlas", self.model, *map(str, self.manifests)]
        words += ["--concepts", str(self.num_concepts)]
        words += ["--clips-per-concept", str(self.clips_per_concept)]
        words += ["--max-videos", str(self.max_videos)]
        words += [] if self.out is None else ["-o", str(self.out)]
        for override in self.overrides:
            words += ["--set", override]
        return shlex.join([*words, *(["--local"] if self.local else [])])
