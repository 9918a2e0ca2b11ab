"""The settings of where a run computes: Ray, workers, decoders, and the nodes they are put on."""

from typing import Annotated, Literal

from pydantic import Field

from lssl_ray.config.section import Count, Section

# What a decode actor with its child takes before any video; see docs/data_path.md.
DECODER_START_MIB = 768


class ClusterSection(Section):
    """Where and how wide the run is."""

    address: Literal["local", "auto"] = Field(
        default="local",
        description="`local` starts Ray here; `auto` joins RAY_ADDRESS (set by ray job submit).",
    )
    num_workers: Count = Field(default=1, description="Training processes.")
    use_gpu: bool = Field(default=False, description="One GPU per worker.")
    cpus_per_worker: Count = Field(default=1, description="Cores, and torch threads, per worker.")
    num_decoders: Count = Field(default=1, description="Decoding processes, one core each.")
    decode_memory_mib: Annotated[int, Field(ge=DECODER_START_MIB + 256)] = Field(
        default=2048,
        description=f"Memory set aside per decoder, MiB; what is above {DECODER_START_MIB} is the "
        "most that a video may take.",
    )
    decode_labels: dict[str, str] = Field(
        default={}, description="Ray node labels that decoders need, e.g. {pool: cpu}."
    )
    train_labels: dict[str, str] = Field(
        default={}, description="Ray node labels that training workers need."
    )
    segment_units: Count = Field(
        default=10_000,
        description="Worker-steps after which the data pipeline starts anew: bounds the memory "
        "of the driver's node.",
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        default=3, description="Worker failures to recover from before giving up."
    )
