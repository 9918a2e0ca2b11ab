"""Which parts of a video encoder stay as CLIP gave them: chosen by module, never by name."""

from torch import nn

from lssl_ray.errors import ConfigError
from lssl_ray.model.space_time import VideoEncoder


def freeze_encoder(encoder: VideoEncoder, *, spatial: bool, num_blocks: int) -> None:
    """Take gradients away from parts of an encoder, in place.

    Args:
        encoder: All of it may train.
        spatial: Only what time added trains: temporal attention, its norm and output in every
            block, and the temporal embedding.
        num_blocks: First blocks that stay as they are, temporal parts included. From 1 on, the stem
            stays too (patches, embeddings of class, position and time, first norm): nothing below
            the first trained block needs gradients.

    Raises:
        ConfigError: More blocks than there are, or nothing left to train.
    """
    blocks = encoder.blocks
    if not 0 <= num_blocks <= len(blocks):
        raise ConfigError(
            f"model.freeze_blocks={num_blocks}: this image tower has {len(blocks)} blocks; choose "
            f"0 to {len(blocks)}."
        )
    if spatial:
        encoder.requires_grad_(False)
        encoder.temporal_embedding.requires_grad_(True)
        for block in blocks:
            for module in (block.temporal_norm, block.temporal_attn, block.temporal_out):
                module.requires_grad_(True)
    if num_blocks:
        stem: tuple[nn.Module | nn.Parameter, ...] = (
            encoder.conv1,
            encoder.class_embedding,
            encoder.positional_embedding,
            encoder.temporal_embedding,
            encoder.ln_pre,
        )
        for part in (*stem, *blocks[:num_blocks]):
            part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            f"model.freeze_spatial=true with model.freeze_blocks={num_blocks} leaves nothing to "
            f"train; freeze fewer than {len(blocks)} blocks, or set model.freeze_spatial=false."
        )
