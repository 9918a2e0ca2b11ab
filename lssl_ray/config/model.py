"""The settings of the video encoder: how CLIP's image tower is continued in time."""

from typing import Annotated, Literal

from pydantic import Field

from lssl_ray.config.section import Section


class ModelSection(Section):
    """The video encoder."""

    cls: Literal["per_frame", "shared"] = Field(
        default="per_frame", description="One CLS token per frame, or one per clip."
    )
    temporal_init: Literal["copy", "random"] = Field(
        default="copy", description="Temporal attention starts as the spatial one, or random."
    )
    freeze_spatial: bool = Field(default=False, description="Train only what time added to CLIP.")
    freeze_blocks: Annotated[int, Field(ge=0)] = Field(
        default=0, description="First blocks, and what comes before them, that don't train."
    )
    activation_checkpointing: bool = Field(
        default=False, description="Less memory in training for one more forward pass."
    )
    compile: bool = Field(
        default=False, description="torch.compile; needs a C++ compiler, on GPUs Triton."
    )
