"""A Ray that can't be started or joined is told as such, and a mistake of ours as what it is."""

from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from lssl_ray.cluster.doctor import JoinedRay
from lssl_ray.doctor.findings import Finding, run_check


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> JoinedRay:
    """Joining, where Ray raises the test's parameter."""

    def refuse(**_: Any) -> None:
        raise request.param

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return JoinedRay("auto", deadline_seconds=1.0)


# Ray 2.60 raises Exception itself when its processes don't start within 30 s, and an error of its
# own when a token is to be used and there is none.
@pytest.mark.parametrize(
    "failing",
    [
        Exception("node timed out"),
        ConnectionError("node timed out"),
        AuthenticationError("node timed out"),
    ],
    indirect=True,
)
def test_ray_that_does_not_start_is_a_problem(failing: JoinedRay) -> None:
    def join() -> Finding:
        with failing:
            raise AssertionError("Ray is not there")

    (finding,) = run_check("ray", join)
    assert finding.status == "problem"
    assert "node timed out" in finding.found
    assert "--local" in finding.found
    assert "RAY_AUTH_MODE" in finding.found  # what Ray does not say of a wrong token


@pytest.mark.parametrize("failing", [KeyError("typo")], indirect=True)
def test_mistake_in_starting_ray_is_not_called_a_slow_node(failing: JoinedRay) -> None:
    with pytest.raises(KeyError), failing:
        pass
