"""The settings of where a run computes: Ray, workers, decoders, and the nodes they are put on."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from lssl_ray.config.section import Count, NonNegative, Section

# What a decode actor with its child takes before any video; see docs/data_path.md.
DECODER_START_MIB = 768
# Tells a number of workers from a range; pydantic puts it into the place of an error.
NUMBER, RANGE = "(number)", "(range)"


def _find_tag(value: Any) -> str:
    return RANGE if isinstance(value, list | tuple) else NUMBER


NumWorkers = Annotated[
    Annotated[Count, Tag(NUMBER)] | Annotated[tuple[Count, Count], Tag(RANGE)],
    Discriminator(_find_tag),
]


class ClusterSection(Section):
    """Where and how wide the run is."""

    address: Literal["local", "auto"] = Field(
        default="local",
        description="`local` starts Ray here; `auto` joins RAY_ADDRESS (set by ray job submit).",
    )
    num_workers: NumWorkers = Field(
        default=1,
        description="Training processes; [1, 4]: as many as there is room for, and more or fewer "
        "while it runs. They share the same clips_per_step, whatever their number.",
    )
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
    resize_seconds: NonNegative = Field(
        default=60.0,
        description="Between looks for room for more workers, when num_workers is a range.",
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        default=3,
        description="Worker failures to recover from before giving up; workers of nodes that were "
        "drained are not counted.",
    )

    @property
    def fewest_workers(self) -> int:
        """Training processes that a run starts with, at least."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most_workers(self) -> int:
        """Training processes at once, at most."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]


def find_impossible_workers(cluster: ClusterSection, *, clips_per_step: int) -> list[str]:
    """Numbers of workers that can't be: `key: rule; remedy`."""
    fewest, most = cluster.fewest_workers, cluster.most_workers
    if fewest > most:
        return [f"cluster.num_workers: [{fewest}, {most}] must be [fewest, most]"]
    if most > clips_per_step:
        return [
            f"cluster.num_workers: {most} workers can't share optim.clips_per_step="
            f"{clips_per_step} clips; each needs one: use at most {clips_per_step} workers, or "
            "more clips per step"
        ]
    return []
