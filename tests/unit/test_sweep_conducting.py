"""How many trials Tune is given at once, and what is asked of a cluster that could grow."""

from typing import Any

from ray.tune.search import Searcher

from lssl_ray.cluster.conducting import ConductedSearch
from lssl_ray.cluster.trial import TrialTask
from lssl_ray.sweep.scores import Score


class ListedConductor:
    """Gives so many trials."""

    def __init__(self, num_trials: int) -> None:
        self.num_left = num_trials

    def draw_trial(self) -> TrialTask | None:
        if not self.num_left:
            return None
        self.num_left -= 1
        return TrialTask(f"t{self.num_left}", ("true",), ".", "run", "log", "-loss/total")

    def count_left(self) -> int:
        return self.num_left

    def note_score(self, trial_id: str, score: Score) -> None: ...

    def note_retry(self, trial_id: str, reason: str) -> None: ...

    def note_end(self, trial_id: str, status: str, reason: str) -> None: ...


class MovingRoom:
    """Room that a test changes; notes what is asked for."""

    def __init__(self, num_trials: int) -> None:
        self.num_trials = num_trials
        self.asked: list[int] = []

    def count(self) -> int:
        return self.num_trials

    def ask(self, num_trials: int) -> None:
        self.asked.append(num_trials)


def suggest(search: ConductedSearch, *names: str) -> list[str]:
    """What Tune gets for trials of these names of its own: a trial, a wait or the end."""

    def describe(answer: Any) -> str:
        if answer is None:
            return "wait"
        return "end" if answer == Searcher.FINISHED else str(answer["trial_id"])

    return [describe(search.suggest(name)) for name in names]


def test_no_more_trials_are_given_than_there_is_room_for_and_the_rest_is_asked_for() -> None:
    room = MovingRoom(2)
    search = ConductedSearch(ListedConductor(5), room)
    assert suggest(search, "a", "b", "c") == ["t4", "t3", "wait"]
    assert room.asked == [3]


def test_an_ended_trial_makes_room_for_one() -> None:
    search = ConductedSearch(ListedConductor(5), MovingRoom(2))
    suggest(search, "a", "b")
    search.on_trial_complete("a", error=True)
    search.on_trial_complete("a")  # told twice
    assert suggest(search, "c", "d") == ["t2", "wait"]


def test_nodes_that_come_and_go_change_how_many_trials_run() -> None:
    room = MovingRoom(1)
    search = ConductedSearch(ListedConductor(5), room)
    assert suggest(search, "a", "b") == ["t4", "wait"]
    room.num_trials = 3
    assert suggest(search, "b", "c") == ["t3", "t2"]
    room.num_trials = 1
    search.on_trial_complete("a")
    search.on_trial_complete("b")
    assert suggest(search, "d") == ["wait"]
    search.on_trial_complete("c")
    assert suggest(search, "d") == ["t1"]


def test_nothing_is_asked_for_when_no_trial_is_left() -> None:
    room = MovingRoom(1)
    search = ConductedSearch(ListedConductor(1), room)
    assert suggest(search, "a", "b") == ["t0", "wait"]
    search.on_trial_complete("a")
    assert suggest(search, "b") == ["end"]
    assert room.asked == [0, 0]
