"""Order: every video once per epoch, whoever works and wherever the run was interrupted."""

from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.video.order import (
    ClipVisit,
    RunPlan,
    compute_epoch_order,
    compute_num_steps,
    compute_share,
)

seeds = st.integers(0, 2**32)


@st.composite
def plans(draw: st.DrawFn) -> RunPlan:
    num_videos = draw(st.integers(1, 30))
    num_positions = draw(st.integers(1, 4 * num_videos))
    return RunPlan(num_videos=num_videos, num_positions=num_positions, seed=draw(seeds))


def visit_all(
    plan: RunPlan, start: int, *, workers: int, clips_per_step: int
) -> list[list[ClipVisit]]:
    """What all workers see from a position to the end: a list per step, in rank order."""
    steps = []
    for step_start in range(start, plan.num_positions, clips_per_step):
        visits = []
        for rank in range(workers):
            share = compute_share(clips_per_step, rank=rank, num_workers=workers)
            visits += plan.compute_visits(step_start + share.start, step_start + share.stop)
        steps.append(visits)
    return steps


@given(num_videos=st.integers(1, 200), seed=seeds, epoch=st.integers(0, 1000))
def test_compute_epoch_order_is_a_permutation_and_a_pure_function(
    num_videos: int, seed: int, epoch: int
) -> None:
    order = compute_epoch_order(num_videos, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(num_videos))
    assert order.tolist() == compute_epoch_order(num_videos, seed=seed, epoch=epoch).tolist()


def test_compute_epoch_order_differs_by_epoch_and_seed() -> None:
    orders = {
        tuple(compute_epoch_order(50, seed=seed, epoch=epoch).tolist())
        for seed in (0, 1, 2)
        for epoch in (0, 1, 2)
    }
    assert len(orders) == 9


@given(clips_per_step=st.integers(1, 100), data=st.data())
def test_compute_share_all_clips_once_in_rank_order_and_evenly(
    clips_per_step: int, data: st.DataObject
) -> None:
    workers = data.draw(st.integers(1, clips_per_step))
    shares = [
        compute_share(clips_per_step, rank=rank, num_workers=workers) for rank in range(workers)
    ]
    assert [clip for share in shares for clip in share] == list(range(clips_per_step))
    sizes = {len(share) for share in shares}
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@given(plan=plans(), workers=st.integers(1, 5), clips_per_step=st.integers(1, 20))
def test_run_plan_any_workers_see_each_video_once_per_epoch(
    plan: RunPlan, workers: int, clips_per_step: int
) -> None:
    steps = visit_all(plan, 0, workers=workers, clips_per_step=clips_per_step)
    assert steps == visit_all(plan, 0, workers=1, clips_per_step=clips_per_step)
    visits = [visit for step in steps for visit in step]
    assert [visit.position for visit in visits] == list(range(plan.num_positions))
    for epoch in range(plan.num_positions // plan.num_videos):
        seen = [visit.video for visit in visits if visit.epoch == epoch]
        assert sorted(seen) == list(range(plan.num_videos))
    rest = [v.video for v in visits if v.epoch == plan.num_positions // plan.num_videos]
    assert len(set(rest)) == len(rest) == plan.num_positions % plan.num_videos


@given(plan=plans(), a=st.integers(0, 150), b=st.integers(0, 150))
def test_run_plan_visits_do_not_depend_on_how_they_are_asked_for(
    plan: RunPlan, a: int, b: int
) -> None:
    start, stop = sorted((a, b))
    whole = plan.compute_visits(0, plan.num_positions)
    assert plan.compute_visits(start, stop) == whole[start:stop]


@given(num_positions=st.integers(1, 1000), global_batch=st.integers(1, 100))
def test_compute_num_steps_is_just_enough(num_positions: int, global_batch: int) -> None:
    num_steps = compute_num_steps(num_positions, global_batch=global_batch)
    assert (num_steps - 1) * global_batch < num_positions <= num_steps * global_batch
