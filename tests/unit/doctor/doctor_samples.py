"""Made-up facts: two machines that are as they should be, to change in one thing."""

from dataclasses import replace
from typing import Any

from lssl_ray.doctor.facts import NodeFacts
from lssl_ray.doctor.nodes import AskedNode

VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0", "numpy": "2.4.0"}
GOOD = NodeFacts(
    versions=VERSIONS,
    code_digest="c0de",
    num_cores=8,
    memory_mib=32000.0,
    available_mib=30000.0,
    shm_mib=16000.0,
    open_files=65536,
    temp_free_mib=50000.0,
    temp_used_share=0.4,
    started=1000.0,
    answered=1001.0,
)


def build_facts(**changes: Any) -> NodeFacts:
    return replace(GOOD, **changes)


def build_node(name: str = "one", **changes: Any) -> AskedNode:
    """Asked at 999 and heard at 1002, by the clock of who asked."""
    node = AskedNode(
        name=name,
        node_id=f"{name}-id",
        labels={"pool": "train"},
        resources={"CPU": 8.0, "object_store_memory": 1000 * 2.0**20},
        facts=GOOD,
        failure=None,
        sent=999.0,
        received=1002.0,
    )
    return replace(node, **changes)
