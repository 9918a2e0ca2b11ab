"""Using a model: clips, videos and texts become features, videos get labels.

One process, one video at a time; whole manifests go through `embedding`.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lssl_ray.concepts.space import embed_ensemble
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.evaluation.features import decode_view, encode_views
from lssl_ray.model.clip import ClipModel
from lssl_ray.model_sources import ModelParts, compute_model_digest, load_parts
from lssl_ray.predictions import (
    Prediction,
    VideoFeatures,
    list_paths,
    open_decoder,
    probe_file,
)
from lssl_ray.types import ClipFailure

AS_IT_IS = ("{}",)


def load_model(
    source: str | Path, *, weights: str | Path | None = None, device: str | None = None
) -> "VideoModel":
    """Load a model to encode and classify videos with.

    Args:
        source: Folder of a run (its newest whole checkpoint), of one checkpoint, or of an export;
            or a plain CLIP to average over frames: an open_clip name, or `local-dir:PATH`.
        weights: For an open_clip name a local file or a tag. For a run or checkpoint a local file
            with its CLIP's weights, when they are no longer where the run found them.
        device: As torch names it; None takes a GPU where there is one.

    Raises:
        CheckpointError: No such folder, or nothing whole in it.
        ConfigError: CLIP can't be loaded, or there is no such device.
    """
    return VideoModel(load_parts(source, weights=weights), device=_find_device(device))


class VideoModel:
    """A video encoder with the text tower that it shares a space with.

    The text tower is loaded when the first text is encoded. Videos are decoded in a process of
    its own, which `close` (or leaving a `with` block) ends. Calls from several threads are safe:
    they take turns at decoding.

    Args:
        parts: What `model_sources.load_parts` found.
        device: Where videos are encoded; texts always are on the CPU.
    """

    def __init__(self, parts: ModelParts, *, device: torch.device) -> None:
        self.parts = parts
        self.digest = compute_model_digest(parts.encoder)
        self.device = device
        self._encoder = parts.encoder.to(device)
        self._clip: ClipModel | None = None
        self._texts: tuple[tuple[tuple[str, ...], tuple[str, ...]], Tensor] | None = None
        self._decoding = threading.Lock()
        self._process = open_decoder(parts.decoding)

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self.parts.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels that it was trained with, if it knows them."""
        return self.parts.labels

    @property
    def clip(self) -> ClipModel:
        """The CLIP whose text tower belongs to the encoder."""
        if self._clip is None:
            self._clip = self.parts.load_clip()
        return self._clip

    @property
    def logit_scale(self) -> float:
        """What CLIP multiplies cosines with before its softmax."""
        scale = self.clip.model.logit_scale
        assert isinstance(scale, Tensor)
        return float(scale.exp())

    @torch.inference_mode()
    def encode_clip(
        self, pixels: Float[Tensor, "clips frames 3 height width"]
    ) -> Float[Tensor, "clips embedding"]:
        """Encode clips that are already pixels.

        Args:
            pixels: RGB, normalised with `parts.mean` and `parts.std`; height and width divisible
                by the patch size.

        Returns:
            Unit-length float32 features on the model's device.

        Raises:
            ValueError: Another shape, or whole numbers.
        """
        if pixels.ndim != 5 or pixels.shape[2] != 3 or not pixels.is_floating_point():
            raise ValueError(
                f"pixels is {pixels.dtype} of shape {list(pixels.shape)}; it must be floating "
                "point, normalised, and [clips, frames, 3, height, width]. encode_frames takes "
                "uint8 [clips, frames, height, width, 3]."
            )
        features: Tensor = self._encoder(pixels.to(self.device))
        return features

    def encode_frames(
        self, frames: UInt8[np.ndarray, "clips frames height width 3"]
    ) -> Float[Tensor, "clips embedding"]:
        """Encode decoded RGB in [0, 255]; unit length, on the model's device."""
        batch = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        return encode_views(self._encoder, batch, mean=self.parts.mean, std=self.parts.std)

    def decode_video(
        self, path: str | Path, *, num_frames: int | None = None
    ) -> UInt8[np.ndarray, "frames size size 3"] | ClipFailure:
        """The frames of a file that the model looks at, or why there are none.

        Args:
            path: A video.
            num_frames: Frames, evenly over the video; None takes what the run evaluated with.

        Raises:
            ConfigError: Fewer than one frame.
        """
        if num_frames is not None and num_frames < 1:
            raise ConfigError(f"num_frames={num_frames} must be at least 1.")
        view = replace(self.parts.view, num_frames=num_frames or self.parts.view.num_frames)
        with self._decoding:
            record = probe_file(self._process, str(path))
            if isinstance(record, ClipFailure):
                return record
            return decode_view(self._process, record, view)

    def encode_video(
        self, paths: str | Path | Sequence[str | Path], *, num_frames: int | None = None
    ) -> VideoFeatures:
        """Encode one video file or several, a row for each, whether it decodes or not.

        `num_frames` is that of `decode_video`.
        """
        given = list_paths(paths)
        rows = torch.full((len(given), self.parts.encoder.embedding_dim), torch.nan)
        failures: list[ClipFailure | None] = []
        for row, path in enumerate(given):
            frames = self.decode_video(path, num_frames=num_frames)
            failures.append(frames if isinstance(frames, ClipFailure) else None)
            if not isinstance(frames, ClipFailure):
                rows[row] = self.encode_frames(frames[None])[0].cpu()
        return VideoFeatures(given, rows.to(self.device), tuple(failures))

    def encode_text(
        self, texts: str | Sequence[str], *, templates: Sequence[str] = AS_IT_IS
    ) -> Float[Tensor, "texts embedding"]:
        """Encode texts or labels with CLIP's text tower.

        Args:
            texts: One text or several.
            templates: Prompts that each text is put into, for its `{}`; their normalised features
                are averaged. `parts.templates` are those that labels were trained with.

        Returns:
            Unit-length float32 rows on the model's device.

        Raises:
            ConfigError: A template without a `{}`.
            DataError: No text.
        """
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        if not texts or not all(text.strip() for text in texts):
            raise DataError(f"There is no text, or an empty one, to encode in {list(texts)[:5]}.")
        wrong = [template for template in templates if template.count("{}") != 1]
        if wrong or not templates:
            raise ConfigError(
                f"Prompt templates {list(wrong)} must hold exactly one {{}} each, where the text "
                "goes, and there must be one."
            )
        return embed_ensemble(texts, self.clip, templates=templates).to(self.device)

    def rank_labels(
        self,
        features: Float[Tensor, "videos embedding"],
        labels: Sequence[str],
        *,
        top_k: int = 5,
        templates: Sequence[str] | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Per feature row the best labels with their share of the softmax, best first.

        Raises:
            ConfigError: `top_k` below 1, or a template without a `{}`.
            DataError: Fewer than two labels, or one twice.
        """
        if top_k < 1:
            raise ConfigError(f"top_k={top_k} must be at least 1.")
        labels = tuple(labels)
        rows = self._encode_labels(labels, templates)
        shares = torch.softmax(self.logit_scale * features @ rows.T, dim=-1)  # [N, K]
        best = shares.topk(min(top_k, len(labels)), dim=-1)
        return [
            [(labels[i], score) for i, score in zip(indices, scores, strict=True)]
            for indices, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def classify(
        self,
        videos: str | Path | Sequence[str | Path],
        labels: Sequence[str],
        *,
        top_k: int = 5,
        templates: Sequence[str] | None = None,
        num_frames: int | None = None,
    ) -> tuple[Prediction, ...]:
        """Say which labels fit videos best.

        Args:
            videos: One file or several.
            labels: What there is to choose from, at least two.
            top_k: Labels per video.
            templates: Prompts that labels are put into; None takes those trained with.
            num_frames: See `decode_video`.

        Returns:
            An outcome per file, in order; a file that gave no frames has a `failure`.

        Raises:
            ConfigError: `top_k` or `num_frames` below 1, or a template without a `{}`.
            DataError: Fewer than two labels, or one twice.
        """
        self._encode_labels(tuple(labels), templates)  # refused before any video is paid for
        encoded = self.encode_video(videos, num_frames=num_frames)
        ranked = self.rank_labels(encoded.features, labels, top_k=top_k, templates=templates)
        return tuple(
            Prediction(
                path=path,
                labels=tuple(label for label, _ in pairs) if failure is None else (),
                scores=tuple(score for _, score in pairs) if failure is None else (),
                failure=failure,
            )
            for path, pairs, failure in zip(encoded.paths, ranked, encoded.failures, strict=True)
        )

    def close(self) -> None:
        """End the decoding process; a later call starts another."""
        self._process.close()

    def __enter__(self) -> "VideoModel":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _encode_labels(
        self, labels: tuple[str, ...], templates: Sequence[str] | None
    ) -> Float[Tensor, "labels embedding"]:
        """The last list is kept: whoever classifies asks for the same one again."""
        key = (labels, tuple(templates or self.parts.templates))
        if self._texts is None or self._texts[0] != key:
            if len(set(labels)) < max(2, len(labels)):
                twice = sorted({label for label in labels if labels.count(label) > 1})
                raise DataError(
                    f"{len(labels)} labels, {twice} more than once; it takes at least two "
                    "different ones to tell videos apart."
                )
            self._texts = (key, self.encode_text(labels, templates=key[1]))
        return self._texts[1]


def _find_device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r} is none that torch knows: {error}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name!r}: torch finds no GPU here; take device='cpu'.")
    return device
