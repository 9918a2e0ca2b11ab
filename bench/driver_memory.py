"""What Ray Data's coordinator on the driver's node keeps per unit, with and without segments.

Units of one missing video each pass through the real source, decode actors and split, so that
nothing but bookkeeping is measured: memory of the coordinator at the start and end of every
segment, and the pause between segments.

    python bench/driver_memory.py --units 20000 --segment-units 5000
"""

import argparse
import tempfile
import time
from pathlib import Path

import psutil
import ray

from lssl_ray.cluster.data import ClipStream
from lssl_ray.cluster.desk import open_desk
from lssl_ray.cluster.train import iterate_blocks
from lssl_ray.video.manifest import VideoRecord, build_manifest
from lssl_ray.video.order import RunPlan
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe


def build_stream(units: int, segment_units: int, decoders: int) -> ClipStream:
    view = ViewKind(count=1, num_frames=1, size=8, area=(0.5, 1.0), window_share=1.0)
    return ClipStream(
        plan=RunPlan(num_videos=1, num_positions=units, seed=0),
        start_position=0,
        num_steps=units,
        num_workers=1,
        clips_per_step=1,
        recipe=ViewRecipe(
            global_views=view,
            local_views=view,
            window_seconds=1.0,
            flip_probability=0.0,
            jitter_probability=0.0,
            jitter_strength=(0.0, 0.0, 0.0),
            grey_probability=0.0,
        ),
        settings=DecodeSettings(deadline_seconds=30.0, recycle_after=10**6, short_side=64),
        num_decoders=decoders,
        decode_memory_mib=1024,
        max_segment_units=segment_units,
    )


def find_coordinator() -> psutil.Process:
    """The youngest of Ray Data's coordinators below this process; older ones are about to end."""
    children = psutil.Process().children(recursive=True)
    found = [child for child in children if "SplitCoordinator" in " ".join(child.cmdline())]
    return max(found, key=psutil.Process.create_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--segment-units", type=int, default=5_000)
    parser.add_argument("--decoders", type=int, default=1)
    options = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=options.decoders + 2,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _memory=2**34,
    )
    stream = build_stream(options.units, options.segment_units, options.decoders)
    video = VideoRecord(
        video_id="none",
        path="/nowhere.mp4",
        label=None,
        split=None,
        status="ok",
        reason=None,
        detail=None,
        num_frames=8,
        fps=8.0,
        duration_seconds=1.0,
        width=64,
        height=64,
        codec="",
        rotation=0,
        reader="decord",
        size_bytes=0,
        mtime_ns=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        desk = open_desk(Path(folder), build_manifest([video], root="/"), decode_labels={})
        bounds = {stream.segment_units(number).start for number in range(stream.num_segments)}
        ends = {bound - 1 for bound in bounds} | {options.units - 1}
        print("| unit | seconds | coordinator USS, MiB |\n|--:|--:|--:|")
        started = last = time.perf_counter()
        pauses = []
        for unit, _ in enumerate(iterate_blocks(stream, rank=0, desk=desk)):
            now = time.perf_counter()
            if unit in bounds:
                pauses.append(now - last)
            last = now
            if unit in bounds or unit in ends:
                uss = find_coordinator().memory_full_info().uss / 2**20
                print(f"| {unit} | {now - started:.1f} | {uss:.1f} |", flush=True)
        print(f"Seconds before the first unit of each segment: {[round(p, 2) for p in pauses]}")
        print(f"{options.units / (last - started):.0f} units/s over all")
    ray.shutdown()


if __name__ == "__main__":
    main()
