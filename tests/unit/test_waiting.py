"""What a run says that it waits for: numbers counted by hand on clusters made up here."""

from lssl_ray.cluster.capacity import Need, NodeRoom
from lssl_ray.cluster.waiting import describe_missing_steps, describe_missing_workers

MIB = 2**20
TRAIN = {"pool": "train"}


def build_room(*, cpus: float, gpus: float = 0.0, labels: dict[str, str] | None = None) -> NodeRoom:
    gpu = {"GPU": gpus} if gpus else {}
    return NodeRoom({"CPU": cpus, "memory": 4096.0 * MIB, **gpu}, labels or {})


def test_missing_workers_say_how_many_fit_and_what_the_cluster_has() -> None:
    text = describe_missing_workers(
        Need("worker", {"CPU": 1.0, "GPU": 1.0}),
        num_wanted=4,
        num_there=0,
        rooms=[build_room(cpus=8, gpus=2), build_room(cpus=16)],
        free={"CPU": 20.0, "GPU": 1.0},
    )
    assert text.startswith("0 of 4 ") and "; 2 fit " in text
    for part in ("1 CPU, 1 GPU", "2 GPU in all, 1 GPU free", "24 CPU in all, 20 CPU free"):
        assert part in text
    assert "memory" not in text and "cluster.num_workers" in text


def test_workers_are_counted_on_nodes_with_their_labels_only() -> None:
    text = describe_missing_workers(
        Need("worker", {"CPU": 2.0}, TRAIN),
        num_wanted=3,
        num_there=1,
        rooms=[build_room(cpus=64), build_room(cpus=5, labels=TRAIN)],
        free={"CPU": 64.0},
    )
    assert text.startswith("1 of 3 ") and "; 2 fit " in text
    assert "2 nodes, 1 with these labels" in text and str(TRAIN) in text


def test_workers_that_would_fit_wait_for_others_not_for_nodes() -> None:
    text = describe_missing_workers(
        Need("worker", {"CPU": 2.0}),
        num_wanted=2,
        num_there=0,
        rooms=[build_room(cpus=4)],
        free={},
    )
    assert "; 2 fit " in text and "0 CPU free" in text
    assert "others' work" in text and "cluster.num_workers" not in text


def test_workers_that_have_room_are_only_slow() -> None:
    ask = {"num_wanted": 2, "num_there": 1, "rooms": [build_room(cpus=4)]}
    worker = Need("worker", {"CPU": 2.0})
    text = describe_missing_workers(worker, free={"CPU": 2.0}, **ask)  # type: ignore[arg-type]
    assert "Ray is starting them" in text and "others' work" not in text
    text = describe_missing_workers(worker, free={"CPU": 1.0}, **ask)  # type: ignore[arg-type]
    assert "others' work" in text


def test_missing_steps_count_decoders_beside_the_workers() -> None:
    worker, decoder = Need("worker", {"CPU": 2.0}), Need("decoder", {"CPU": 1, "memory": 512 * MIB})
    rooms = [build_room(cpus=5)]
    ask = {"num_workers": 2, "rooms": rooms, "free": {"CPU": 1.0, "memory": 4096.0 * MIB}}
    text = describe_missing_steps(worker, decoder, num_decoders=3, **ask)  # type: ignore[arg-type]
    assert "3 decoders" in text and " 1 fit " in text and "512 MiB" in text
    assert "cluster.num_decoders" in text
    text = describe_missing_steps(worker, decoder, num_decoders=1, **ask)  # type: ignore[arg-type]
    assert " 1 fit " in text and "cluster.num_decoders" not in text


def test_missing_steps_without_room_for_any_decoder_say_so() -> None:
    text = describe_missing_steps(
        Need("worker", {"CPU": 2.0}),
        Need("decoder", {"CPU": 1.0}, {"pool": "decode"}),
        num_workers=1,
        num_decoders=4,
        rooms=[build_room(cpus=8)],
        free={"CPU": 6.0},
    )
    assert " 0 fit " in text and "1 nodes, 0 with these labels" in text
