"""What a person asked `lssl-ray evaluate` for, checked before anything is loaded."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lssl_ray.errors import ConfigError
from lssl_ray.evaluation.outcome import Protocol
from lssl_ray.evaluation.protocols import TEXT_PROTOCOLS
from lssl_ray.evaluation.targets import OWN

BenchmarkName = Literal["own", "ucf101", "hmdb51", "kinetics400"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
# As names in a configuration: it becomes a folder and a part of metric names.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
TRAINED_PROTOCOLS = ("linear_probe", "knn", "few_shot")


@dataclass(frozen=True)
class EvaluationRequest:
    """One evaluation.

    Attributes:
        model: Run, checkpoint, `clip`, or an open_clip name.
        manifests: Joined to one list of videos.
        name: Of the evaluation and its folder.
        protocols: Each once.
        benchmark: Whose labels and splits count.
        train_manifests: Labelled videos that teach, for a benchmark whose training list is not in
            the package.
        split: An official split's number or `all`; with `own`, the split to score.
        num_frames: Per temporal clip; None takes the configuration's.
        num_clips: Temporal clips per video.
        num_crops: Spatial crops per clip.
        size: Height and width of a view, px; None takes the configuration's.
        labels: Label file or `bank:NAME` to choose from; None takes the obvious list.
        interpolate: Share of the adapted weights in [0, 1]; None is all of them.
        sweep: Whether to draw the curve over that share.
        skip_unlabelled: Leave videos without label out instead of refusing.
        out: Folder of the report; None is `evaluation/NAME`, in the run folder if there is one.
        cache: Folder of features; None is `features` in the run folder, or beside the report.
        use_cache: Whether features are kept and reused.
        config: Recipe that names the CLIP of `clip`.
        overrides: `a.b=value`.
        weights: CLIP's weights: a tag or a file.
        local: One process, no Ray.
    """

    model: str
    manifests: tuple[Path, ...]
    name: str = "evaluation"
    protocols: tuple[str, ...] = ("zero_shot",)
    benchmark: BenchmarkName = "own"
    train_manifests: tuple[Path, ...] = ()
    split: str | None = None
    num_frames: int | None = None
    num_clips: int = 1
    num_crops: Literal[1, 3] = 1
    size: int | None = None
    labels: str | None = None
    interpolate: float | None = None
    sweep: bool = False
    skip_unlabelled: bool = False
    out: Path | None = None
    cache: Path | None = None
    use_cache: bool = True
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    weights: str | None = None
    local: bool = False

    @property
    def reads_text(self) -> bool:
        """Whether a protocol compares with label embeddings."""
        return any(protocol in TEXT_PROTOCOLS for protocol in self.protocols)

    @property
    def needs_training(self) -> bool:
        """Whether a protocol learns from labelled videos."""
        return any(protocol in TRAINED_PROTOCOLS for protocol in self.protocols)

    def check(self) -> None:
        """Refuse what can't go together.

        Raises:
            ConfigError: What, and the way out.
        """
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise ConfigError(
                f"--name {self.name!r} must begin with a letter or digit, and hold only those, "
                "dots, dashes and underscores."
            )
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        if unknown or not self.protocols:
            raise ConfigError(
                f"--protocol {', '.join(unknown) or 'none'}: there are {', '.join(PROTOCOLS)}."
            )
        if len(set(self.protocols)) < len(self.protocols):
            raise ConfigError(f"--protocol names one twice: {', '.join(self.protocols)}.")
        if set(TEXT_PROTOCOLS) <= set(self.protocols):
            raise ConfigError(
                "zero_shot and transductive are the same figures; transductive says that training "
                "knew the target's names or videos, and is refused where it did not. Ask for one."
            )
        if self.num_crops not in (1, 3):
            raise ConfigError(f"--crops {self.num_crops}: 1 (centre) or 3 (along the longer side).")
        for flag, number in (("frames", self.num_frames), ("clips", self.num_clips)):
            if number is not None and number < 1:
                raise ConfigError(f"--{flag} {number} must be at least 1.")
        if self.interpolate is not None and not 0 <= self.interpolate <= 1:
            raise ConfigError(
                f"--interpolate {self.interpolate} must lie between 0 (CLIP) and 1 (adapted)."
            )
        if self.sweep and not self.reads_text:
            raise ConfigError(
                "--sweep-interpolation draws zero-shot top-1; add --protocol zero_shot."
            )
        if self.benchmark != OWN and self.labels is not None:
            raise ConfigError(
                f"--labels: {self.benchmark} brings its own list; leave --labels out, or evaluate "
                "the manifest's own labels with --benchmark own."
            )

        if self.train_manifests and self.benchmark == OWN:
            raise ConfigError(
                "--train-manifest is for benchmarks; of own videos, those in split 'train' teach: "
                "index them with --split train, and give all manifests one after the other."
            )
        if self.train_manifests and not self.needs_training:
            raise ConfigError(
                "--train-manifest: none of these protocols learns from videos; leave it out, or "
                f"add --protocol {', '.join(TRAINED_PROTOCOLS)}."
            )

    def describe_command(self) -> str:
        """The command line that asks for the same."""
        words = ["lssl-ray", "evaluate", self.model, *map(str, self.manifests)]
        for protocol in self.protocols:
            words += ["--protocol", protocol]
        for path in self.train_manifests:
            words += ["--train-manifest", str(path)]
        words += ["--benchmark", self.benchmark, "--name", self.name]
        words += ["--clips", str(self.num_clips), "--crops", str(self.num_crops)]
        options: dict[str, object] = {
            "--split": self.split,
            "--frames": self.num_frames,
            "--size": self.size,
            "--labels": self.labels,
            "--interpolate": self.interpolate,
            "--out": self.out,
            "--cache": self.cache,
            "--config": self.config,
            "--weights": self.weights,
        }
        for flag, value in options.items():
            words += [] if value is None else [flag, str(value)]
        for override in self.overrides:
            words += ["--set", override]
        switches = {
            "--sweep-interpolation": self.sweep,
            "--skip-unlabelled": self.skip_unlabelled,
            "--no-cache": not self.use_cache,
            "--local": self.local,
        }
        return shlex.join(words + [flag for flag, is_on in switches.items() if is_on])
