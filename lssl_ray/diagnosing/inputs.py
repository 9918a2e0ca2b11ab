"""Checks of what a run reads: CLIP, concepts, manifests. Each fills in what later checks use."""

from dataclasses import dataclass
from pathlib import Path

from lssl_ray import build
from lssl_ray.concepts.bank import load_labels
from lssl_ray.concepts.space import load_concept_space
from lssl_ray.config import RunConfig
from lssl_ray.doctor.findings import Finding
from lssl_ray.doctor.folders import FolderFacts
from lssl_ray.errors import DataError
from lssl_ray.model.clip import ClipModel
from lssl_ray.run import load_splits
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest

MANY_BAD = 0.1
MIB = 2**20


@dataclass
class Inputs:
    """What checks have read so far; None for what could not be.

    Attributes:
        clip: The image CLIP.
        answers: Labels that evaluation chooses from.
        manifest: The videos to train on.
        folder: The run folder's parent.
    """

    clip: ClipModel | None = None
    answers: tuple[str, ...] | None = None
    manifest: Manifest | None = None
    folder: FolderFacts | None = None


def check_clip(config: RunConfig, inputs: Inputs) -> Finding:
    """Load both towers, as a run does.

    Raises:
        ConfigError: They can't be.
    """
    inputs.clip = build.build_clip(config)
    count = sum(tensor.numel() for tensor in inputs.clip.model.state_dict().values())
    return Finding(
        "clip",
        "ok",
        f"{config.clip.model}: {count / 1e6:.1f} million weights, digest {inputs.clip.digest[:12]}",
    )


def check_concepts(config: RunConfig, inputs: Inputs) -> Finding:
    """Read the labels, or the space file; nothing is embedded.

    Raises:
        ConfigError: Descriptions are missing.
        DataError: A file that is none, or a space of another CLIP.
    """
    concepts = config.concepts
    if concepts.space is not None:
        digest = None if inputs.clip is None else inputs.clip.digest
        space = load_concept_space(Path(concepts.space), clip_digest=digest)
        labels, has_descriptions = space.labels, space.descriptions is not None
        source = concepts.space
    else:
        assert concepts.labels is not None  # validated with the configuration
        vocabulary = load_labels(concepts.labels)
        labels, has_descriptions = vocabulary.labels, vocabulary.has_descriptions
        source = concepts.labels
    build.require_descriptions(config, has_descriptions=has_descriptions)
    other = config.evaluation.labels
    answers = labels if other is None else load_labels(other).labels
    inputs.answers = tuple(answers)
    told = f"{source}: {len(labels)} labels{', described' if has_descriptions else ''}"
    return Finding(
        "concepts", "ok", told if other is None else f"{told}; {other}: {len(answers)} labels"
    )


def check_manifest(config: RunConfig, inputs: Inputs) -> Finding:
    """Read the training manifest and count.

    Raises:
        DataError: It can't be read, or leaves nothing to train on.
    """
    manifest = build.load_training_manifest(config)
    usable = manifest.usable()
    if not len(usable):
        raise DataError(
            f"{config.data.manifest} lists no usable video ({len(manifest)} bad ones); index "
            "other folders."
        )
    trained, held_back = split_held_back(usable, num_held_back=config.data.hold_back)
    inputs.manifest = trained
    bad = 1.0 - len(usable) / len(manifest)
    num_steps = build.compute_run_steps(config, num_videos=len(trained))
    found = (
        f"{len(manifest)} videos: {len(trained)} to train on, {len(held_back)} held back, "
        f"{len(manifest) - len(usable)} bad; {num_steps} steps of {config.optim.clips_per_step} "
        "clips"
    )
    if bad > MANY_BAD:
        return Finding(
            "manifest",
            "warning",
            f"{found}: {100 * bad:.0f} % are bad",
            "see why in the report beside the manifest, or: lssl-ray data check MANIFEST",
        )
    return Finding("manifest", "ok", found)


def check_evaluation(config: RunConfig, inputs: Inputs) -> Finding:
    """Read the evaluation manifests, and look for their labels among the concepts.

    Raises:
        DataError: One is empty, unlabelled, or has other labels.
    """
    assert inputs.answers is not None
    splits = load_splits(config, inputs.answers)
    listed = ", ".join(f"{name}: {len(split)} videos" for name, split in splits.items())
    return Finding("evaluation", "ok", listed)


def measure_checkpoint(config: RunConfig, clip: ClipModel) -> int:
    """Bytes of one checkpoint: student, teacher, and the optimiser's two moments."""
    encoder = build.build_encoder(config, clip)
    head = build.build_head(config, encoder)
    modules = [encoder] if head is None else [encoder, head]
    weights = [tensor for module in modules for tensor in module.state_dict().values()]
    trained = [one for module in modules for one in module.parameters() if one.requires_grad]
    num_bytes: int = 2 * sum(tensor.nbytes for tensor in [*weights, *trained])
    return num_bytes


def measure_worker_mib(checkpoint_bytes: int) -> float:
    """What one worker holds beside activations: all of a checkpoint, and gradients."""
    return 1.25 * checkpoint_bytes / MIB
