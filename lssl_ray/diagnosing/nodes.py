"""Checks of a cluster: its nodes, what a run finds on them, who may reach it."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.diagnosing.inputs import Inputs
from lssl_ray.diagnosing.machine import examine_gpus, examine_room
from lssl_ray.doctor.decoding import choose_videos, judge_decoding
from lssl_ray.doctor.facts import Question, collect_facts, digest_file
from lssl_ray.doctor.findings import CheckUp, Finding
from lssl_ray.doctor.folders import judge_writing
from lssl_ray.doctor.gpus import GpuNode
from lssl_ray.doctor.machines import (
    judge_code,
    judge_open_files,
    judge_shared_memory,
    judge_temp,
    judge_versions,
)
from lssl_ray.doctor.nodes import (
    AskedNode,
    judge_answers,
    judge_clocks,
    judge_dashboard,
    judge_files,
    judge_labels,
    judge_room,
    judge_seen,
    judge_store,
    judge_token,
)
from lssl_ray.video.manifest import Manifest

if TYPE_CHECKING:
    from lssl_ray.cluster.doctor import JoinedRay

RUN_FOLDER = "run.folder"


@dataclass
class Asked:
    """What came back from the cluster so far.

    Attributes:
        nodes: The living ones.
        can_grow: Whether an autoscaler may start nodes.
        files: CLIP's files: setting to path.
    """

    nodes: list[AskedNode] = field(default_factory=list)
    can_grow: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)


def examine_cluster(
    up: CheckUp, config: RunConfig | None, inputs: Inputs, *, deadline_seconds: float
) -> None:
    """Start or join Ray as a run would, ask every node, judge the answers."""
    # Takes seconds to import, and --local is to work where it can't be.
    from lssl_ray.cluster.doctor import JoinedRay

    joined = JoinedRay(choose_address(config), deadline_seconds=deadline_seconds)
    with ExitStack() as stack:

        def join() -> Finding:
            stack.enter_context(joined)
            return Finding("ray", "ok", "started here, on loopback" if joined.is_own else "joined")

        asked = Asked()
        if not up.run("ray", join):
            up.skip("Ray can't be used", "nodes")
            return
        up.run("nodes", partial(_ask_nodes, config, inputs, joined, asked))
        if not asked.nodes:
            return
        _judge_machines(up, asked.nodes)
        up.run("access", lambda: _check_access(joined))
        _judge_gpus(up, config, asked)
        if config is not None:
            _judge_run(up, config, inputs, joined, asked)


def choose_address(config: RunConfig | None) -> str:
    """`local` or `auto`: as the recipe says, or by RAY_ADDRESS without one."""
    if config is not None:
        return config.cluster.address
    return "auto" if os.environ.get("RAY_ADDRESS") else "local"


def build_question(
    config: RunConfig | None,
    inputs: Inputs,
    files: Mapping[str, Path],
    node: Mapping[str, Any],
) -> Question:
    """What to ask a node, as Ray describes it, beside what it always tells."""
    has_gpu = bool(node["Resources"].get("GPU"))
    if config is None:
        return Question(gpus=has_gpu)
    cluster = config.cluster
    can_work = bool(node["Resources"].get("CPU") or has_gpu)
    if not can_work or not cluster.train_labels.items() <= node["Labels"].items():
        return Question()
    # With run.storage the run folder is the driver's alone.
    is_shared = inputs.folder is not None and config.run.storage is None
    return Question(
        gpus=has_gpu or cluster.use_gpu,
        folders={RUN_FOLDER: config.run.folder} if is_shared else {},
        files={str(path): str(path) for path in files.values()},
    )


def trains(node: AskedNode, config: RunConfig) -> bool:
    """Whether training workers may be placed on a node."""
    return node.fits(config.cluster.train_labels)


def _ask_nodes(
    config: RunConfig | None, inputs: Inputs, joined: "JoinedRay", asked: Asked
) -> Finding:
    if config is not None and inputs.clip is not None:
        asked.files = joined.list_clip_files(config)
    asked.nodes = joined.ask_nodes(partial(build_question, config, inputs, asked.files))
    asked.can_grow = joined.has_autoscaler()
    return judge_answers(asked.nodes)


def _judge_machines(up: CheckUp, nodes: list[AskedNode]) -> None:
    facts = {node.name: node.facts for node in nodes if node.facts is not None}
    if not facts:
        up.skip("no node gave an answer", "versions", "open files", "temporary files")
        return
    stores = {node.name: node.resources.get("object_store_memory", 0.0) / 2**20 for node in nodes}
    here = collect_facts(Question())
    up.run("versions", lambda: judge_versions(here, facts))
    up.run("code", lambda: judge_code(here, facts))
    up.run("clocks", lambda: judge_clocks(nodes))
    up.run("open files", lambda: judge_open_files(facts))
    up.run("temporary files", lambda: judge_temp(facts))
    up.run("shared memory", lambda: judge_shared_memory(facts, store_mib=stores))


def _check_access(joined: "JoinedRay") -> list[Finding]:
    access = joined.read_access()
    return [judge_dashboard(access), judge_token(access)]


def _judge_gpus(up: CheckUp, config: RunConfig | None, asked: Asked) -> None:
    examine_gpus(
        up,
        config,
        {
            node.name: GpuNode(int(node.resources.get("GPU", 0)), node.facts.gpus)
            for node in asked.nodes
            if node.facts is not None and (config is None or trains(node, config))
        },
        num_least=0 if config is None else config.cluster.fewest_workers,
        num_most=0 if config is None else config.cluster.most_workers,
        can_grow=asked.can_grow,
    )


def _judge_run(
    up: CheckUp, config: RunConfig, inputs: Inputs, joined: "JoinedRay", asked: Asked
) -> None:
    if joined.is_own:
        # It is given as many logical cores as a run asks for.
        examine_room(up, config, inputs, num_workers=config.cluster.most_workers)
    else:
        _judge_placement(up, config, joined, asked)
        _judge_sharing(up, config, inputs, joined, asked)
    if inputs.manifest is None:
        up.skip("the manifest can't be read", "object store", "decoding")
    else:
        _judge_data(up, config, inputs.manifest, asked.nodes, joined)


def _judge_placement(up: CheckUp, config: RunConfig, joined: "JoinedRay", asked: Asked) -> None:
    cluster, can_grow = config.cluster, asked.can_grow
    wanted = {
        "cluster.decode_labels": cluster.decode_labels,
        "cluster.train_labels": cluster.train_labels,
    }
    up.run("labels", lambda: judge_labels(wanted, asked.nodes, can_grow=can_grow))
    described = (
        f"{cluster.fewest_workers} workers of {cluster.cpus_per_worker} cores"
        f"{' and a GPU' if cluster.use_gpu else ''}, {cluster.num_decoders} decoders of a core "
        f"and {cluster.decode_memory_mib} MiB"
        f"{', a core for evaluation' if config.evaluation.every_checkpoints else ''}"
    )
    up.run(
        "room",
        lambda: judge_room(
            num_fitting=joined.count_fitting_runs(config), described=described, can_grow=can_grow
        ),
    )


def _judge_sharing(
    up: CheckUp, config: RunConfig, inputs: Inputs, joined: "JoinedRay", asked: Asked
) -> None:
    """Files that several nodes are to see, write or have alike."""
    files = asked.files
    training = [node for node in asked.nodes if node.facts is not None and trains(node, config)]
    on_train = dict(files)
    if inputs.folder is not None and config.run.storage is None:
        on_train[RUN_FOLDER] = Path(config.run.folder)
    if any(node.failure is not None for node in asked.nodes):
        up.skip("a node gave no answer, and would not now", "shared files")
    else:
        up.run(
            "shared files",
            lambda: judge_seen(
                joined.list_unshared(config, on_train_nodes=on_train, videos=inputs.manifest)
            ),
        )
    facts = {node.name: node.facts for node in training if node.facts is not None}
    tried = {name: one.folders[RUN_FOLDER] for name, one in facts.items() if one.folders}
    if tried:
        up.run("run folder on nodes", lambda: judge_writing("run folder on nodes", tried))
    if files and facts:
        here = {str(path): digest_file(path) for path in files.values()}
        there = {name: one.digests for name, one in facts.items()}
        up.run("weights on nodes", lambda: judge_files(here, there))
    if config.run.storage is not None and training:
        storage, node = config.run.storage, training[0]
        up.run(
            "run.storage on nodes",
            lambda: Finding(
                "run.storage on nodes",
                "ok",
                f"{joined.try_store_on(node, storage)} from {node.name}",
            ),
        )


def _judge_data(
    up: CheckUp,
    config: RunConfig,
    manifest: Manifest,
    nodes: list[AskedNode],
    joined: "JoinedRay",
) -> None:
    """Room for decoded blocks, and decoding on a node that would do it."""
    up.run(
        "object store",
        lambda: judge_store(
            nodes, wanted_mib=joined.compute_store_mib(config, num_videos=len(manifest))
        ),
    )
    labels = config.cluster.decode_labels
    decoding = [node for node in nodes if node.facts is not None and node.fits(labels)]
    if not decoding:
        up.skip("no node that decodes gave an answer", "decoding")
        return

    def check() -> Finding:
        trials = joined.try_clips_on(
            decoding[0],
            choose_videos(manifest),
            recipe=build.build_recipe(config),
            settings=build.build_decode_settings(config),
            seed=config.run.seed,
        )
        return judge_decoding(trials, where=decoding[0].name)

    up.run("decoding", check)
