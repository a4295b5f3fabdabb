import heapq
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.choosing import KINDS, Choice, Room, Rules, choose, held, need, of
from cluster.queue import Entry
from tests.cluster.queued import entry, running

GPUS8 = Room(cpus=64, gpus=8)


def started(choice: Choice) -> list[str]:
    return [each.id for each in choice.start]


def test_higher_priority_goes_first_and_equals_by_place() -> None:
    waiting = [entry(1), entry(2, priority=5), entry(3, priority=5), entry(4, priority=-1)]
    assert started(choose(waiting, Room(cpus=3), Rules(), [])) == ["s2", "s3", "s1"]


def test_within_a_priority_the_owner_who_holds_least_goes_first() -> None:
    waiting = [entry(seq) for seq in range(1, 5)] + [entry(seq, owner="bob") for seq in range(5, 9)]
    assert started(choose(waiting, Room(cpus=4), Rules(), [])) == ["s1", "s5", "s2", "s6"]
    assert started(choose(waiting, Room(cpus=4), Rules(), [running(0, cpus=2)])) == ["s5", "s6"]


def test_shares_are_of_each_owner_s_own_quota() -> None:
    rules = Rules(owners={"ann": Room(cpus=8), "bob": Room(cpus=2)})
    under_way = [running(1, cpus=2), running(2, cpus=1, owner="bob")]  # a quarter of ann's, half of bob's
    waiting = [entry(3, owner="bob"), entry(4)]
    assert started(choose(waiting, Room(cpus=16), rules, under_way)) == ["s4", "s3"]


def test_a_sweep_that_waits_for_room_says_who_holds_it() -> None:
    holding = [running(1, gpus=6, priority=5), running(2, gpus=1), running(3, gpus=1), running(4)]
    choice = choose([entry(5, gpus=2)], GPUS8, Rules(), holding)
    assert choice.why == {
        "s5": "waiting for 2 GPUs: 8 of 8 are held by s1 (priority 5), s2 (priority 0), s3 (priority 0)"
    }


def test_a_waiting_head_lets_lower_ones_have_only_what_it_cannot_use() -> None:
    head = entry(2, priority=1, gpus=8, cpus=8)
    behind = [entry(3, gpus=1), entry(4, cpus=60), entry(5, cpus=50)]
    choice = choose([head, *behind], GPUS8, Rules(), [running(1, gpus=1, cpus=4)])
    assert started(choice) == ["s5"]  # 64 - 4 - 8 CPUs are of no use to the head
    assert choice.why["s3"] == "behind s2 (priority 1), which waits for 8 CPUs and 8 GPUs"


def test_equal_ones_overtake_a_waiting_head_a_few_times_only() -> None:
    rules, under_way = Rules(backfill=3), [running(1, gpus=4)]
    small = [entry(seq, gpus=1) for seq in range(3, 8)]
    choice = choose([entry(2, gpus=8), *small], GPUS8, rules, under_way)
    assert started(choice) == ["s3", "s4", "s5"]
    assert [each.passing for each in choice.start] == [("s2",)] * 3
    choice = choose([entry(2, gpus=8, passed=3), *small[3:]], GPUS8, rules, under_way)
    assert started(choice) == []


def test_quota_of_an_owner_keeps_back_that_owner_only() -> None:
    rules = Rules(owners={"ann": Room(gpus=4)}, anyone=Room(gpus=6))
    waiting = [entry(2, gpus=2, priority=9), entry(3, gpus=1), entry(4, gpus=4, owner="bob")]
    choice = choose(waiting, GPUS8, rules, [running(1, gpus=3)])
    assert started(choice) == ["s4"]
    assert choice.why == {
        "s2": "quota: ann may have 4 GPUs at once and has 3: s1 (priority 0)",
        "s3": "quota: behind s2 (priority 9), which waits for 1 CPU and 2 GPUs",  # else her small ones would starve it
    }


def test_what_can_never_start_says_so_and_holds_up_nobody() -> None:
    rules = Rules(target=Room(gpus=6), owners={"ann": Room(gpus=4)})
    waiting = [
        entry(1, gpus=9, owner="bob", priority=3),
        entry(2, gpus=7, owner="bob", priority=3),
        entry(3, gpus=5, priority=3),
        entry(4, gpus=4),
    ]
    choice = choose(waiting, GPUS8, rules, [])
    assert started(choice) == ["s4"]
    assert choice.why == {
        "s1": "needs 9 GPUs; there are 8 in all",
        "s2": "quota: all may have 6 GPUs at once; this needs 7 GPUs",
        "s3": "quota: ann may have 4 GPUs at once; this needs 5 GPUs",
    }


def test_sweeps_at_once_are_a_quota_too() -> None:
    rules = Rules(target=Room(sweeps=2))
    choice = choose([entry(2), entry(3)], GPUS8, rules, [running(1)])
    assert started(choice) == ["s2"]
    assert choice.why["s3"] == "waiting for 1 sweep: 2 of 2 are held by s1 (priority 0), s2 (priority 0)"


def test_a_sweep_may_begin_with_fewer_workers() -> None:
    waiting = [entry(2, cpus=8, gpus=8, workers=8, least=2)]
    assert choose(waiting, GPUS8, Rules(), [running(1, gpus=5)]).start[0].workers == 3
    assert not choose(waiting, GPUS8, Rules(), [running(1, gpus=7)]).start
    assert choose(waiting, GPUS8, Rules(), []).start[0].workers == 8


def test_preemption_stops_as_few_of_the_lowest_and_latest_as_will_do() -> None:
    holding = [running(1, gpus=2), running(2, gpus=4, priority=1), running(3, gpus=2)]
    want = entry(4, gpus=4, priority=2)
    assert choose([want], GPUS8, Rules(), holding).stop == {}
    choice = choose([want], GPUS8, Rules(preempt=True), holding)
    assert choice.stop == {"s3": "s4", "s1": "s4"}
    assert choice.why["s4"].endswith("; s3, s1 is being stopped for it")
    leaving = [replace(each, wanted="queued") if each.id in choice.stop else each for each in holding]
    assert choose([want], GPUS8, Rules(preempt=True), leaving).stop == {}  # they are on their way
    big = entry(5, gpus=6, priority=2)  # the small ones alone would not do; s2 and one of them are enough
    assert choose([big], GPUS8, Rules(preempt=True), holding).stop == {"s3": "s5", "s2": "s5"}
    assert choose([entry(6, gpus=4)], GPUS8, Rules(preempt=True), holding).stop == {}  # not those of its own priority


def test_a_lost_node_stops_nothing_and_starts_nothing() -> None:
    choice = choose([entry(3, gpus=1), entry(4)], Room(cpus=8, gpus=2), Rules(), [running(1, gpus=4), running(2)])
    assert started(choice) == ["s4"]
    assert choice.why["s3"].startswith("waiting for 1 GPU: 4 of 2 are held by s1")


def test_what_waits_for_its_owners_quota_finds_room_when_that_is_free() -> None:
    rules = Rules(anyone=Room(cpus=6, gpus=2))
    higher = entry(4, owner="ann", priority=1, cpus=1.0, gpus=0.5)
    waiting = [
        entry(1, owner="ann", cpus=1.0),
        entry(2, owner="ann", cpus=2.0),
        higher,
        entry(5, owner="bob", cpus=1.0),
    ]
    choice = choose(waiting, Room(cpus=6, gpus=2), rules, [running(3, owner="ann", cpus=2.0, gpus=2.0)])
    assert sorted(started(choice)) == ["s1", "s5"]  # the last CPU is kept for s4
    assert choice.why["s2"] == "quota: behind s4 (priority 1), which waits for 1 CPU and 0.5 GPUs"


OWNERS = ("ann", "bob", "cat")
NO_LIMIT = float("inf")
capacities = st.builds(Room, cpus=st.sampled_from([6.0, 8.0, 16.0]), gpus=st.sampled_from([2.0, 4.0]))
quotas = st.just(Room()) | st.builds(
    Room,
    cpus=st.sampled_from([4.0, 6.0, NO_LIMIT]),
    gpus=st.sampled_from([1.0, 2.0, NO_LIMIT]),
    sweeps=st.sampled_from([1.0, 3.0, NO_LIMIT]),
)
jobs = st.builds(
    lambda owner, priority, cpus, gpus, workers, least, lasts, comes: (
        {
            "owner": owner, "priority": priority, "cpus": cpus, "gpus": gpus,
            "workers": workers, "least": min(least, workers),
        },
        lasts,
        comes,
    ),
    st.sampled_from(OWNERS), st.integers(0, 2), st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([0, 0.5, 1, 2, 3]),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(0, 9),
)  # fmt: skip
many_rules = st.builds(
    Rules,
    target=quotas,
    owners=st.dictionaries(st.sampled_from(OWNERS), quotas),
    anyone=quotas,
    backfill=st.integers(0, 3),
    preempt=st.booleans(),
)


@dataclass
class Place:
    """A cluster in steps of one: sweeps come, start, end or are stopped for another; every choice is checked."""

    capacity: Room
    rules: Rules
    queued: dict[str, Entry] = field(default_factory=dict)
    under_way: dict[str, Entry] = field(default_factory=dict)
    ends: list[tuple[int, str]] = field(default_factory=list)
    remaining: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def step(self, now: int) -> None:
        while self.ends and self.ends[0][0] <= now:
            _, id_ = heapq.heappop(self.ends)
            self.under_way.pop(id_)
        for id_ in [each.id for each in self.under_way.values() if each.wanted]:
            left = self.under_way.pop(id_)  # it goes on later from where it was
            self.remaining[id_] = max(1, next(end for end, of_ in self.ends if of_ == id_) - now)
            self.ends = [each for each in self.ends if each[1] != id_]
            heapq.heapify(self.ends)
            self.queued[id_] = replace(left, state="queued", wanted="", granted=0)
        choice = choose(self.queued.values(), self.capacity, self.rules, list(self.under_way.values()))
        shuffled = list(reversed(self.queued.values()))
        assert choice == choose(shuffled, self.capacity, self.rules, list(self.under_way.values()))
        for each in choice.start:
            self._start(each.id, each.workers, each.passing, now)
        assert set(choice.why) == set(self.queued)
        assert all(choice.why.values())
        for id_, for_ in choice.stop.items():
            assert self.under_way[id_].priority < self.queued[for_].priority
            assert self.rules.preempt
            self.under_way[id_] = replace(self.under_way[id_], wanted="queued")

    def _start(self, id_: str, workers: int, passing: tuple[str, ...], now: int) -> None:
        chosen = self.queued.pop(id_)
        assert chosen.least <= workers <= chosen.workers
        self._no_higher_one_is_kept_waiting(chosen, need(chosen, workers))
        for overtaken in passing:
            head = self.queued[overtaken]
            assert head.priority == chosen.priority
            self.queued[overtaken] = replace(head, passed=head.passed + 1)
            assert self.queued[overtaken].passed <= self.rules.backfill
        self.under_way[id_] = replace(chosen, state="running", granted=workers)
        heapq.heappush(self.ends, (now + self.remaining[id_], id_))
        self.told.append(id_)
        self._nothing_is_exceeded()

    def _nothing_is_exceeded(self) -> None:
        holding = list(self.under_way.values())
        assert not self.capacity.least(self.rules.target).short(held(holding))
        for owner in OWNERS:
            assert not self.rules.of(owner).short(held(each for each in holding if each.owner == owner))

    def _no_higher_one_is_kept_waiting(self, chosen: Entry, taken: Room) -> None:
        """Whoever of higher priority waits lacks something else than what is now taken, or waits for its own quota."""
        total = self.capacity.least(self.rules.target)
        free = total - held(self.under_way.values())
        for other in self.queued.values():
            least = need(other, other.least)
            own = self.rules.of(other.owner)
            mine = own - held(each for each in self.under_way.values() if each.owner == other.owner)
            if other.priority <= chosen.priority or total.short(least) or own.short(least):
                continue
            if other.owner != chosen.owner and mine.short(least):
                continue
            if other.owner != chosen.owner and any(
                each.owner == other.owner and each.priority >= other.priority and each is not other
                for each in self.queued.values()
            ):
                continue  # it may wait for its owner's quota behind one of theirs
            rooms_of_both = [free, mine] if other.owner == chosen.owner else [free]
            for room in rooms_of_both:
                lacking = room.short(least)
                for kind in KINDS:
                    assert not (of(taken, kind) > 0 and kind in lacking), f"{chosen} takes {kind} that {other} lacks"
                    if of(taken, kind) > 0 and of(least, kind) > 0:
                        assert of(room, kind) - of(taken, kind) >= of(least, kind) - 1e-6


@settings(max_examples=150, deadline=None)
@given(st.lists(jobs, min_size=1, max_size=14), capacities, many_rules)
def test_a_cluster_is_shared_by_the_rules(listed: list[tuple[dict, int, int]], capacity: Room, rules: Rules) -> None:
    place = Place(capacity, rules)
    for now in range(20 + 10 * len(listed) * 12):
        for seq, (values, lasts, comes) in enumerate(listed):
            if comes == now:
                place.queued[f"s{seq}"] = entry(seq, **values)
                place.remaining[f"s{seq}"] = lasts
        place.step(now)
        if now > 20 and not place.under_way:
            break
    total = capacity.least(rules.target)
    for left in place.queued.values():  # all have ended but those that never could start
        least = need(left, left.least)
        assert total.short(least) or rules.of(left.owner).short(least)
    assert not place.under_way


@pytest.mark.parametrize("owners", [1, 40])
def test_a_long_queue_is_decided_at_once(owners: int) -> None:
    import time

    waiting = [entry(seq, owner=f"o{seq % owners}", priority=seq % 3, gpus=1 + seq % 8) for seq in range(1000)]
    began = time.process_time()
    choice = choose(waiting, Room(cpus=640, gpus=80), Rules(), [running(2000 + seq, gpus=1) for seq in range(40)])
    assert choice.start
    assert time.process_time() - began < 2.0
