"""Notices of preemption: what AWS and Google say to a machine that they are about to take away.

A poller of the cloud's metadata server, without Ray: what is done about a notice is handed in
(`cluster/preemption.py` drains the node). Not for Kubernetes, which ends a pod with SIGTERM.
"""

import http.client
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, Protocol

from lssl_ray.errors import ClusterError

AWS_SERVER = "http://169.254.169.254"
GOOGLE_SERVER = "http://metadata.google.internal"
REQUEST_SECONDS = 2.0
# Google gives a preempted machine 30 s; AWS gives 2 min and asks for a look every 5 s.
POLL_SECONDS = {"aws": 5.0, "gcp": 2.0}
GOOGLE_PREEMPTION_SECONDS = 30.0
# The shortest that Google promises for host maintenance that ends the machine.
GOOGLE_MAINTENANCE_SECONDS = 60.0
TOKEN_SECONDS = 21_600
FAILURES_BEFORE_WARNING = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """The cloud takes this machine.

    Attributes:
        reason: What the cloud said.
        deadline: When, as Unix seconds.
    """

    reason: str
    deadline: float


class NoticeSource(Protocol):
    """Asks one cloud."""

    def read(self) -> Notice | None:
        """The notice, or None while there is none.

        Raises:
            OSError: The metadata server can't be reached, or answers what it should not.
        """


class AwsNotices:
    """Spot interruptions of AWS, over IMDSv2 (a session token, then the question).

    Args:
        server: The metadata server.
    """

    def __init__(self, server: str = AWS_SERVER) -> None:
        self._server = server
        self._token: str | None = None

    def read(self) -> Notice | None:
        """The interruption notice, if there is one."""
        try:
            return self._read()
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
        # The token's time was up, or the machine was stopped and started.
        self._token = None
        return self._read()

    def _read(self) -> Notice | None:
        if self._token is None:
            seconds = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            self._token = _ask(f"{self._server}/latest/api/token", seconds, method="PUT")
        token = {"X-aws-ec2-metadata-token": self._token}
        try:
            text = _ask(f"{self._server}/latest/meta-data/spot/instance-action", token)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        try:
            said = json.loads(text)
            when = datetime.strptime(said["time"], "%Y-%m-%dT%H:%M:%SZ")
            reason = f"AWS spot: {said['action']}"
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"spot/instance-action answered {text!r}: {error!r}") from error
        return Notice(reason, when.replace(tzinfo=timezone.utc).timestamp())


class GoogleNotices:
    """Preemption and host maintenance of Google Compute Engine.

    Args:
        server: The metadata server.
        clock: Now, as Unix seconds; Google names no time.
    """

    def __init__(
        self, server: str = GOOGLE_SERVER, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._instance = f"{server}/computeMetadata/v1/instance"
        self._clock = clock

    def read(self) -> Notice | None:
        """The preemption, or maintenance that ends the machine; migration is none."""
        flavor = {"Metadata-Flavor": "Google"}
        if _ask(f"{self._instance}/preempted", flavor).strip() == "TRUE":
            return Notice("GCP: preempted", self._clock() + GOOGLE_PREEMPTION_SECONDS)
        event = _ask(f"{self._instance}/maintenance-event", flavor).strip()
        if event.startswith("TERMINATE"):
            return Notice(f"GCP: {event}", self._clock() + GOOGLE_MAINTENANCE_SECONDS)
        return None


def build_source(cloud: Literal["aws", "gcp"]) -> NoticeSource:
    """Who is asked on that cloud."""
    return AwsNotices() if cloud == "aws" else GoogleNotices()


def watch_notices(
    source: NoticeSource,
    act: Callable[[Notice], None],
    *,
    poll_seconds: float,
    stop: threading.Event,
) -> Notice | None:
    """Wait for a notice and act on it, once.

    A server that answers at first and then fails is asked again at every turn: the notice may come
    yet. It is told when it begins and when it ends.

    Args:
        source: Who is asked.
        act: What to do; when it raises a ClusterError it is tried again until the deadline.
        poll_seconds: Between two questions.
        stop: Ends the waiting.

    Returns:
        The notice that was acted on; None when stopped.

    Raises:
        ClusterError: The first question got no answer (not on that cloud?), or the deadline came
            before `act` succeeded.
    """
    notice = _ask_first(source)
    failures = 0
    while notice is None:
        if stop.wait(poll_seconds):
            return None
        try:
            notice = source.read()
        except OSError as error:
            failures += 1
            if failures == FAILURES_BEFORE_WARNING:
                logger.warning("%d questions without an answer: %s", failures, error)
            continue
        if failures >= FAILURES_BEFORE_WARNING:
            logger.warning("The metadata server answers again, after %d failures", failures)
        failures = 0
    logger.warning("%s; %.0f s left", notice.reason, notice.deadline - time.time())
    while True:
        try:
            act(notice)
            return notice
        except ClusterError as error:
            if time.time() + poll_seconds >= notice.deadline:
                raise
            logger.warning("Not drained yet: %s", error)
        if stop.wait(poll_seconds):
            return None


def _ask_first(source: NoticeSource) -> Notice | None:
    try:
        return source.read()
    except OSError as error:
        raise ClusterError(
            f"The metadata server gives no answer: {error}. Notices of preemption come only to "
            "machines of that cloud; choose the right --cloud (aws, gcp), or start no watcher."
        ) from error


def _ask(url: str, headers: dict[str, str], *, method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    # A proxy of the environment would be another machine's metadata.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=REQUEST_SECONDS) as answer:
            return bytes(answer.read(65_536)).decode("utf-8")
    except (http.client.HTTPException, UnicodeDecodeError) as error:
        # What is no HTTP, or was cut, is no OSError to Python.
        raise OSError(f"{url} answered what can't be read: {error!r}") from error
