"""A check-up before a run: the recipe, its inputs and places, this machine, the cluster.

Reads the configuration and composes; facts and rules are `lssl_ray/doctor`, questions to nodes
`cluster/doctor.py`. Nothing is trained, nothing stays behind.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lssl_ray.config import RunConfig, load_config
from lssl_ray.diagnosing.inputs import (
    Inputs,
    check_clip,
    check_concepts,
    check_evaluation,
    check_manifest,
)
from lssl_ray.diagnosing.machine import examine_machine
from lssl_ray.diagnosing.nodes import examine_cluster
from lssl_ray.diagnosing.places import (
    check_free_space,
    check_run_folder,
    check_store,
    check_tracking,
)
from lssl_ray.doctor.findings import CheckUp, Finding, Report
from lssl_ray.doctor.folders import lending_folder
from lssl_ray.folder import resolve_paths

NO_RECIPE = "no recipe was given (--config)"
NO_RAY = "without Ray (--local)"


@dataclass(frozen=True)
class DoctorRequest:
    """What to check.

    Attributes:
        config: A recipe; None checks the machine or cluster alone.
        overrides: `dotted.key=value` over the recipe.
        local: Whether Ray is left out.
        deadline_seconds: The longest that nodes may take to answer.
    """

    config: Path | None
    overrides: tuple[str, ...]
    local: bool
    deadline_seconds: float


def diagnose(request: DoctorRequest, *, on_phase: Callable[[str], None]) -> Report:
    """Check everything that can be checked; what fails is a finding and the rest goes on.

    Args:
        request: What to check.
        on_phase: Told what begins.
    """
    up = CheckUp()
    config = _read_configuration(up, request)
    inputs = Inputs()
    with ExitStack() as stack:
        if config is None:
            up.skip(
                NO_RECIPE if _names_no_recipe(request) else "the recipe can't be used", "inputs"
            )
        else:
            on_phase("Reading CLIP, concepts and manifests")
            _check_inputs(up, config, inputs)
            on_phase("Trying folders, stores and tracking")
            _check_places(up, config, inputs, stack)
        if request.local:
            on_phase("Looking at this machine")
            up.skip(NO_RAY, "ray")
            examine_machine(up, config, inputs)
        else:
            on_phase("Asking Ray and its nodes")
            examine_cluster(up, config, inputs, deadline_seconds=request.deadline_seconds)
    return up.report()


def _read_configuration(up: CheckUp, request: DoctorRequest) -> RunConfig | None:
    if _names_no_recipe(request):
        return None
    read: list[RunConfig] = []

    def check() -> Finding:
        read.append(resolve_paths(load_config(request.config, request.overrides)))
        return Finding("configuration", "ok", f"{request.config or 'from --set alone'} is valid")

    up.run("configuration", check)
    return read[0] if read else None


def _check_inputs(up: CheckUp, config: RunConfig, inputs: Inputs) -> None:
    up.run("clip", partial(check_clip, config, inputs))
    up.run("concepts", partial(check_concepts, config, inputs))
    up.run("manifest", partial(check_manifest, config, inputs))
    if config.evaluation.manifests and inputs.answers is None:
        up.skip("the concepts can't be read", "evaluation")
    elif config.evaluation.manifests:
        up.run("evaluation", partial(check_evaluation, config, inputs))


def _check_places(up: CheckUp, config: RunConfig, inputs: Inputs, stack: ExitStack) -> None:
    folder = Path(config.run.folder)

    def check_folder() -> Finding:
        stack.enter_context(lending_folder(folder))
        return check_run_folder(folder, inputs)

    up.run("run folder", check_folder)
    if inputs.folder is None or inputs.clip is None:
        up.skip("run folder or CLIP can't be used", "free space")
    else:
        up.run("free space", partial(check_free_space, config, inputs))
    if config.run.storage is not None:
        up.run("run.storage", partial(check_store, config.run.storage))
    up.run("tracking", partial(check_tracking, config))


def _names_no_recipe(request: DoctorRequest) -> bool:
    return request.config is None and not request.overrides
