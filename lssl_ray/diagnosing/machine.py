"""Checks of one machine that does everything itself, without Ray."""

from functools import partial

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.diagnosing.inputs import Inputs, measure_checkpoint, measure_worker_mib
from lssl_ray.diagnosing.places import HERE
from lssl_ray.doctor.decoding import choose_videos, judge_decoding, try_clips
from lssl_ray.doctor.facts import Question, collect_facts
from lssl_ray.doctor.findings import CheckUp, Finding
from lssl_ray.doctor.gpus import (
    GpuNode,
    has_gpu_device,
    judge_bf16,
    judge_gpus,
    judge_unused_gpus,
)
from lssl_ray.doctor.machines import (
    judge_cores,
    judge_memory,
    judge_open_files,
    judge_temp,
    judge_versions,
)
from lssl_ray.video.manifest import Manifest


def examine_machine(up: CheckUp, config: RunConfig | None, inputs: Inputs) -> None:
    """Releases, limits, cores, memory, GPUs, and decoding in this process."""
    is_asked = (config is not None and config.cluster.use_gpu) or has_gpu_device()
    facts = collect_facts(Question(gpus=is_asked))
    up.run("versions", lambda: judge_versions(facts, {}))
    up.run("open files", lambda: judge_open_files({HERE: facts}))
    up.run("temporary files", lambda: judge_temp({HERE: facts}))
    num_workers = 0 if config is None else 1
    gpus = {HERE: GpuNode(None, facts.gpus)}
    examine_gpus(up, config, gpus, num_least=num_workers, num_most=num_workers)
    if config is None:
        return
    examine_room(up, config, inputs, num_workers=1)
    if inputs.manifest is None:
        up.skip("the manifest can't be read", "decoding")
    else:
        up.run("decoding", partial(_check_decoding, config, inputs.manifest))


def examine_room(up: CheckUp, config: RunConfig, inputs: Inputs, *, num_workers: int) -> None:
    """Cores and memory of this machine, when it does everything itself.

    Args:
        up: Gets the findings.
        config: Of the run.
        inputs: As far as read.
        num_workers: Training processes.
    """
    facts, cluster = collect_facts(Question()), config.cluster
    wanted = num_workers * cluster.cpus_per_worker + cluster.num_decoders
    up.run("cores", lambda: judge_cores(facts, num_wanted=wanted))
    if inputs.clip is None:
        up.skip("CLIP can't be loaded", "memory")
        return
    clip = inputs.clip

    def check() -> Finding:
        each = 0.0 if cluster.use_gpu else measure_worker_mib(measure_checkpoint(config, clip))
        return judge_memory(
            facts,
            decoders_mib=float(cluster.num_decoders * cluster.decode_memory_mib),
            workers_mib=num_workers * each,
        )

    up.run("memory", check)


def examine_gpus(
    up: CheckUp,
    config: RunConfig | None,
    nodes: dict[str, GpuNode],
    *,
    num_least: int,
    num_most: int,
    can_grow: bool = False,
) -> None:
    """GPUs of the machines that train.

    Args:
        up: Gets the findings.
        config: Of the run; None looks at what is there, for 0 workers.
        nodes: By name.
        num_least: Workers that a run needs to start.
        num_most: Workers that it would take.
        can_grow: Whether an autoscaler may add nodes.
    """
    asked = any(node.facts is not None for node in nodes.values())
    if (config is None and not asked) or (config is not None and not config.cluster.use_gpu):
        up.run("gpus", lambda: judge_unused_gpus(nodes))
        return
    up.run(
        "gpus",
        lambda: judge_gpus(nodes, num_least=num_least, num_most=num_most, can_grow=can_grow),
    )
    if config is not None and config.clip.precision == "bf16":
        up.run("bf16", lambda: judge_bf16(nodes))


def _check_decoding(config: RunConfig, manifest: Manifest) -> Finding:
    trials = try_clips(
        choose_videos(manifest),
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        seed=config.run.seed,
    )
    return judge_decoding(trials, where=HERE)
