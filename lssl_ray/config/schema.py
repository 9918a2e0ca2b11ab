"""Sections and fields of a run's configuration, their ranges, and what can't go together.

Values only: nothing here reads, builds or opens anything. Fields are documented here and nowhere
else; help texts are made from these descriptions.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lssl_ray.config.cluster import ClusterSection, find_impossible_workers
from lssl_ray.config.data import DataSection
from lssl_ray.config.evaluation import EvaluationSection, find_impossible_evaluation
from lssl_ray.config.model import ModelSection
from lssl_ray.config.objective import (
    HealthSection,
    ObjectiveSection,
    find_impossible_objectives,
)
from lssl_ray.config.section import (
    Count,
    Name,
    NonNegative,
    Positive,
    PositiveShare,
    Section,
    Share,
    ShareBelowOne,
    TagName,
)
from lssl_ray.config.storage import find_impossible_storage

_SIZE = "Height and width, px; a multiple of the patch size."
_AREA = "Smallest and largest share of the picture that a crop covers."
_WINDOW_SHARE = "Share of the clip's window that the frames span."


class RunSection(Section):
    """The run itself."""

    name: Name = Field(
        default="run", description="Name of the run and of its folder; resuming goes by it."
    )
    folder: str = Field(default="runs", description="Where run folders are made.")
    storage: str | None = Field(
        default=None,
        description="URI (s3://BUCKET/FOLDER, gs://, file:///) under which runs are kept; the run "
        "folder is then a working copy on the driver's machine. Null: in the run folder only.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Decides order, views and initialisation."
    )
    stop_at_step: Count | None = Field(
        default=None, description="End this session early, with a checkpoint to resume from."
    )
    log_every: Count = Field(default=10, description="Steps per row of metrics.")
    checkpoint_every: Count = Field(default=500, description="Steps between checkpoints.")
    checkpoints_to_keep: Count = Field(default=2, description="Older checkpoints are deleted.")


class ClipSection(Section):
    """The image CLIP to adapt."""

    model: str = Field(
        description="open_clip model name (ViT-B-16), or local-dir:PATH with config and weights."
    )
    weights: str | None = Field(
        default=None, description="open_clip tag (openai) or weights file; null for local-dir."
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="Arithmetic of the towers; losses are always float32."
    )


class GlobalViewsSection(Section):
    """Long, large views: seen by student and teacher."""

    count: Count = Field(default=2, description="Views of this kind per clip.")
    num_frames: Count = Field(default=8, description="Frames per view.")
    size: Count = Field(default=224, description=_SIZE)
    area: tuple[PositiveShare, PositiveShare] = Field(default=(0.4, 1.0), description=_AREA)
    window_share: PositiveShare = Field(default=1.0, description=_WINDOW_SHARE)


class LocalViewsSection(Section):
    """Short, small views: seen by the student only."""

    count: Annotated[int, Field(ge=0)] = Field(default=8, description="Views of this kind.")
    num_frames: Count = Field(default=8, description="Frames per view.")
    size: Count = Field(default=96, description=_SIZE)
    area: tuple[PositiveShare, PositiveShare] = Field(default=(0.05, 0.4), description=_AREA)
    window_share: PositiveShare = Field(default=0.125, description=_WINDOW_SHARE)


class ViewsSection(Section):
    """Augmented views of a clip (SVT's recipe)."""

    global_: GlobalViewsSection = Field(
        default=GlobalViewsSection(), alias="global", description="Seen by student and teacher."
    )
    local: LocalViewsSection = Field(
        default=LocalViewsSection(), description="Seen by the student only."
    )
    window_seconds: Positive = Field(
        default=8.5, description="Stretch of video that one clip looks at."
    )
    flip_probability: Share = Field(default=0.5, description="Chance of a mirrored view.")
    jitter_probability: Share = Field(default=0.8, description="Chance of colour jitter.")
    jitter_strength: tuple[Share, Share, Share] = Field(
        default=(0.4, 0.4, 0.2), description="Largest change of brightness, contrast, saturation."
    )
    grey_probability: Share = Field(default=0.2, description="Chance of a grey view.")


class ConceptsSection(Section):
    """The concept space to train in: built from labels, or a space file as it is."""

    labels: str | None = Field(
        default=None,
        description="Label file (one per line, or YAML with descriptions), or bank:NAME: "
        "lss-a, lss-b, lss-c, kinetics400, ucf101, hmdb51.",
    )
    space: str | None = Field(
        default=None, description="Built space file; replaces labels, layout and templates."
    )
    spaces: Literal["both", "category", "description"] = Field(
        default="both", description="Where objectives act; category needs no descriptions."
    )
    layout: Literal["pooled", "full"] = Field(
        default="pooled", description="One row per label, or one per description."
    )
    templates: tuple[str, ...] = Field(
        default=("a photo of a person {}.", "a video of a person {}.", "a person is {}."),
        min_length=1,
        description="Prompts for labels; {} is the label.",
    )
    description_templates: tuple[str, ...] = Field(
        default=("{}.",), min_length=1, description="Prompts for descriptions."
    )


class OptimSection(Section):
    """Optimiser, length and schedules."""

    clips_per_step: Count = Field(default=32, description="Clips per step over all workers.")
    micro_batches: Count = Field(
        default=1,
        description="Parts of a worker's clips: less memory, same result, one student pass more.",
    )
    epochs: Count = Field(default=20, description="Visits of every video.")
    max_steps: Count | None = Field(
        default=None, description="Ends the run, and its schedules, earlier than the epochs do."
    )
    learning_rate: Positive = Field(
        default=1.0e-5, description="Peak for CLIP's weights per 256 clips; scales with the batch."
    )
    final_learning_rate: NonNegative = Field(
        default=1.0e-6, description="At the end, per 256 clips."
    )
    temporal_rate_factor: Positive = Field(
        default=10.0, description="Rate of the new temporal weights over that of CLIP's."
    )
    warmup_share: ShareBelowOne = Field(
        default=0.25, description="Share of the steps with a rising rate."
    )
    weight_decay: tuple[NonNegative, NonNegative] = Field(
        default=(0.04, 0.1), description="First and last, cosine; not on biases, norms, embeddings."
    )
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="AdamW's.")
    gradient_clip: Positive = Field(default=3.0, description="Largest total gradient norm.")
    teacher_momentum: tuple[Share, Share] = Field(
        default=(0.996, 1.0), description="First and last of the EMA, cosine."
    )


class TrackingSection(Section):
    """MLflow."""

    uri: str | None = Field(
        default="sqlite:///mlflow.db", description="Tracking store; null: files only."
    )
    experiment: str = Field(default="lssl_ray", description="MLflow experiment.")
    parent: str | None = Field(
        default=None, description="MLflow run to nest this one under; set by sweeps."
    )
    tags: dict[TagName, str] = Field(default={}, description="Further tags of the MLflow run.")


class RunConfig(Section):
    """Everything a run is made from."""

    run: RunSection = RunSection()
    clip: ClipSection
    model: ModelSection = ModelSection()
    data: DataSection
    views: ViewsSection = ViewsSection()
    concepts: ConceptsSection
    objective: ObjectiveSection = ObjectiveSection()
    optim: OptimSection = OptimSection()
    health: HealthSection = HealthSection()
    evaluation: EvaluationSection = EvaluationSection()
    cluster: ClusterSection = ClusterSection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="after")
    def _check_combinations(self) -> "RunConfig":
        problems = _find_impossible(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _find_impossible(config: RunConfig) -> list[str]:
    """Combinations of valid values that can't work together: `key: rule; remedy`."""
    views, optim, cluster = config.views, config.optim, config.cluster
    problems = _find_impossible_concepts(config.concepts)
    problems += find_impossible_objectives(config.objective)
    problems += find_impossible_evaluation(config.evaluation, num_held_back=config.data.hold_back)
    problems += find_impossible_storage(config.run.storage)
    if views.global_.count + views.local.count < 2:
        problems.append(
            "views.global.count: one view leaves no pair to compare; set views.global.count >= 2 "
            "or views.local.count >= 1"
        )
    for name, kind in (("global", views.global_), ("local", views.local)):
        if kind.area[0] > kind.area[1]:
            problems.append(f"views.{name}.area: {list(kind.area)} must be [smallest, largest]")
    problems += find_impossible_workers(cluster, clips_per_step=optim.clips_per_step)
    if config.clip.precision == "bf16" and not cluster.use_gpu:
        problems.append(
            "clip.precision: bf16 is for GPUs; set cluster.use_gpu=true or precision float32"
        )
    if config.clip.weights is None and not config.clip.model.startswith("local-dir:"):
        problems.append(
            "clip.weights: a named model needs weights; give an open_clip tag or a file"
        )
    return problems


def _find_impossible_concepts(concepts: ConceptsSection) -> list[str]:
    if concepts.space is None:
        remedy = "set it (or concepts.space) in the recipe or with --set concepts.labels=..."
        return [f"concepts.labels: missing; {remedy}"] if concepts.labels is None else []
    fixed = ("labels", "layout", "templates", "description_templates")
    return [
        f"concepts.{name}: concepts.space was built with its own; leave out one of the two"
        for name in fixed
        if getattr(concepts, name) != ConceptsSection.model_fields[name].default
    ]
