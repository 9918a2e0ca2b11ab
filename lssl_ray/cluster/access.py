"""Who may reach the Ray that this process has joined: its dashboard's address, and its token."""

import urllib.error
import urllib.request

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled

from lssl_ray.doctor.nodes import Access

HTTP_SECONDS = 5.0
_REFUSED = (401, 403)


def read_access() -> Access:
    """What Ray says of itself, and what its job server does without a token."""
    dashboard = ray._private.worker._global_node.webui_url or None
    return Access(
        dashboard=dashboard,
        is_token_asked=None if dashboard is None else ask_without_token(dashboard),
        is_token_on=bool(is_token_auth_enabled()),
    )


def ask_without_token(dashboard: str) -> bool | None:
    """Whether the job server refuses who has no token; None when it can't be asked."""
    # Never through a proxy: it is a neighbour.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = dashboard if "://" in dashboard else f"http://{dashboard}"
    try:
        with opener.open(f"{url}/api/jobs/", timeout=HTTP_SECONDS):
            return False
    except urllib.error.HTTPError as error:
        return True if error.code in _REFUSED else None
    except OSError:
        return None
