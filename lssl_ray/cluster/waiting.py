"""What a run waits for while nothing of it moves: said in words, from what Ray's nodes have."""

from collections.abc import Mapping, Sequence

from lssl_ray.cluster.capacity import MIB, Need, NodeRoom, count_fitting


def describe_missing_workers(
    need: Need,
    *,
    num_wanted: int,
    num_there: int,
    rooms: Sequence[NodeRoom],
    free: Mapping[str, float],
) -> str:
    """Why training does not start: which resources workers wait for.

    Args:
        need: Of one worker.
        num_wanted: Workers that training needs to start.
        num_there: Workers that run.
        rooms: The living nodes.
        free: Of the whole cluster, Ray's resource to amount.
    """
    fitting = count_fitting([need], rooms, most=num_wanted)
    missing = num_wanted - num_there
    if fitting < num_wanted:
        way_out = (
            "start nodes that have it, or go on with fewer workers (cluster.num_workers, "
            "cluster.cpus_per_worker)"
        )
    elif all(free.get(name, 0.0) >= missing * part for name, part in need.resources.items()):
        way_out = "there is room for them, Ray is starting them"
    else:
        way_out = "wait for others' work to end, or end it"
    return (
        f"{num_there} of {num_wanted} training workers run. Each needs {_describe_need(need)}; "
        f"{fitting} fit on the cluster ({_describe_cluster(need, rooms, free)}): {way_out}."
    )


def describe_missing_steps(
    worker: Need,
    decoder: Need,
    *,
    num_workers: int,
    num_decoders: int,
    rooms: Sequence[NodeRoom],
    free: Mapping[str, float],
) -> str:
    """Why workers run and no step is done: are there decoders, and room for them.

    Args:
        worker: Need of one.
        decoder: Need of one.
        num_workers: Workers that run.
        num_decoders: As configured.
        rooms: The living nodes.
        free: Of the whole cluster, Ray's resource to amount.
    """
    fitting = next(
        count
        for count in range(num_decoders, -1, -1)
        if count_fitting([worker] * num_workers + [decoder] * count, rooms, most=1) or not count
    )
    way_out = (
        "loading, compiling and the first batch take their time"
        if fitting == num_decoders
        else "start nodes that have it, or lower cluster.num_decoders"
    )
    return (
        f"The workers run, and no step is done. {num_decoders} decoders feed them, each needs "
        f"{_describe_need(decoder)}; beside the workers {fitting} fit on the cluster "
        f"({_describe_cluster(decoder, rooms, free)}): {way_out}."
    )


def _describe_need(need: Need) -> str:
    amounts = ", ".join(_describe_amount(*item) for item in sorted(need.resources.items()))
    labels = f" on a node with {dict(need.labels)}" if need.labels else ""
    return f"{amounts}{labels}"


def _describe_cluster(need: Need, rooms: Sequence[NodeRoom], free: Mapping[str, float]) -> str:
    """The needed resources only, in all and free, and the nodes that have the labels."""
    there = ", ".join(
        f"{_describe_amount(name, sum(room.resources.get(name, 0.0) for room in rooms))} in all, "
        f"{_describe_amount(name, free.get(name, 0.0))} free"
        for name in sorted(need.resources)
    )
    num_labelled = sum(need.labels.items() <= room.labels.items() for room in rooms)
    labelled = f", {num_labelled} with these labels" if need.labels else ""
    return f"{len(rooms)} nodes{labelled}: {there}"


def _describe_amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / MIB:.0f} MiB"
    return f"{amount:g} {name}"
