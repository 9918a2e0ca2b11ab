"""A validator on Ray: one actor, beside the driver where that node has a core for it."""

from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lssl_ray.validation.serving import EvaluationServer
from lssl_ray.validation.validator import ValidatorEndedError, Verdict, read_reply


@ray.remote(num_cpus=1, max_restarts=0)
class ValidatorActor:
    """Evaluates the checkpoints of one run."""

    def __init__(self, run_folder: str) -> None:
        self._server = EvaluationServer(Path(run_folder))

    def evaluate(self, checkpoint: str) -> dict[str, Any]:
        """See `EvaluationServer.evaluate`."""
        return self._server.evaluate(checkpoint)


class RayValidator:
    """Starts the actor when made; see `validation.validator.Validator`.

    Args:
        run_folder: On storage that the actor's node reaches.
        gpu_share: Of a GPU; 0 for none.
        only_here: Other nodes don't reach the run folder: on this one, with or without a core left.
    """

    def __init__(self, run_folder: Path, *, gpu_share: float, only_here: bool = False) -> None:
        # Soft: a head node without cores is no reason to evaluate nothing.
        here = NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=not only_here
        )
        actor = cast(Any, ValidatorActor).options(
            scheduling_strategy=here, num_gpus=gpu_share, num_cpus=0 if only_here else 1
        )
        self._actor = actor.remote(str(run_folder))

    def evaluate(self, checkpoint: Path) -> Verdict:
        """Ask the actor, and wait for its answer."""
        try:
            reply = ray.get(self._actor.evaluate.remote(str(checkpoint)))
        except RayError as error:
            lines = str(error).strip().splitlines()
            said = lines[-1] if lines else ""
            raise ValidatorEndedError(f"the evaluating actor ended: {said}") from error
        return read_reply(reply)

    def interrupt(self) -> None:
        """Kill the actor: whoever waits for its answer is told that it ended."""
        ray.kill(self._actor)

    def close(self) -> None:
        """Kill the actor."""
        ray.kill(self._actor)
