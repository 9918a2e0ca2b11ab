"""The settings of the training videos: which, and how they are opened."""

from typing import Annotated

from pydantic import Field

from lssl_ray.config.section import Count, Positive, Section, Share


class DataSection(Section):
    """Unlabelled training videos."""

    manifest: str = Field(description="Parquet manifest from `lssl-ray data index`.")
    split: str | None = Field(
        default=None, description="Train on the manifest's videos of this split only; null: on all."
    )
    hold_back: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="So many usable videos, chosen by their id, are never trained on and serve "
        "the label-free scores (held_back/...).",
    )
    max_bad_fraction: Share = Field(
        default=0.05, description="Share of undecodable clips above which the run ends."
    )
    decode_deadline_seconds: Positive = Field(
        default=30.0, description="Longest time one video may take before its decoder is killed."
    )
    decode_short_side: Annotated[int, Field(ge=32)] = Field(
        default=512, description="Larger pictures are reduced to this short side on decoding, px."
    )
    recycle_decoder_after: Count = Field(
        default=500, description="Videos after which a decoder process is replaced."
    )
    audit: bool = Field(
        default=False, description="File each step's clips by position (audit.jsonl), to check."
    )
