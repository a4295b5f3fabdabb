"""Faults of a cluster: nodes lost, the head lost, and thirty random moments over several sweeps on four raylets."""

import random
import signal
import subprocess
import time

from tests.chaos.bench import Bench, case
from tests.chaos.places import Place, finish, moment, send
from tests.chaos.raylets import Cluster

FOUR = {"head": {"cpu": 1}, "a": {"cpu": 1, "gpu": 1}, "b": {"cpu": 1, "gpu": 1}, "c": {"cpu": 1, "gpu": 1}}
SPREAD = {
    "resources": {"engine": "loop", "workers": 3, "cpu": 1, "gpu": 1, "device": "cpu"},
    "early_stopping": {"rungs": [500, 1500], "factor": 3, "fork": None, "order": "number"},
}
"""Placed by declared GPUs, trained on CPUs; the table must be that of two workers on one host."""
HEAD_S = 120.0


class Life:
    """A sweep on a cluster, its driver, and what has been done to them."""

    def __init__(self, place: Place, cluster: Cluster, order: random.Random) -> None:
        self.place, self.cluster, self.order = place, cluster, order
        self.told: list[str] = []
        self.done: list[str] = []
        cluster.start_all()
        self.driver: subprocess.Popen[bytes] = place.start()
        self.away: dict[str, float] = {}

    def trains(self, more: int = 1000, timeout_s: float = 90.0) -> bool:
        """Whether the journal gains so many updates; nodes that are due come back meanwhile."""
        before = self.place.updates()

        def gained() -> bool:
            self.bring_back()
            return self.place.updates() >= before + more

        return self.place.wait_for(gained, timeout_s, self.driver)

    def bring_back(self, all_: bool = False) -> None:
        for name, due in list(self.away.items()):
            if all_ or time.monotonic() >= due:
                if any(self.cluster.alive(other) and not self.cluster.up(other) for other in self.cluster.nodes):
                    return  # one is starting: see `start_all`
                del self.away[name]
                self.cluster.start(name)
        for name in self.cluster.nodes:  # a raylet that was declared dead ends by itself
            if name not in self.away and name != self.cluster.head and not self.cluster.alive(name):
                self.away[name] = time.monotonic() + 1.0

    def strike(self, kind: str) -> bool:
        if self.driver.poll() is not None:
            return False
        done = getattr(self, f"_{kind}")()
        self.done += [kind] * bool(done)
        return bool(done)

    def _worker(self) -> bool:
        found = self.place.workers()
        return bool(found) and send(self.order.choice(found), signal.SIGKILL)

    def _node(self) -> bool:
        up = [name for name in self.cluster.nodes if name != self.cluster.head and self.cluster.alive(name)]
        if not up:
            return False
        name = self.order.choice(up)
        self.cluster.kill(name)
        self.away[name] = time.monotonic() + self.order.uniform(0.5, 8.0)
        return True

    def _driver(self) -> bool:
        self.driver.kill()
        self.driver.wait()
        moment(self.order, 0.0, 2.0)
        self.driver = self.place.start()
        return True

    def _head(self) -> bool:
        """The control store dies. The driver must leave by itself, loudly; then an operator starts all again."""
        if not self.cluster.kill_gcs():
            return False
        started = time.monotonic()
        try:
            code = self.driver.wait(HEAD_S)
        except subprocess.TimeoutExpired:
            self.told.append(f"the driver had not left {HEAD_S:g} s after the head died: {self.place.tail(1)}")
            code = -99
            self.driver.kill()
            self.driver.wait()
        if code == 0 or "head" not in self.place.tail(5):
            self.told.append(f"the driver ended with {code} when its head died, saying: {self.place.tail(1)}")
        self.left_s = time.monotonic() - started
        self.away.clear()
        self.cluster.stop()
        self.place.quiesce(1.0)
        self.cluster.start_all()
        self.driver = self.place.start()
        return True

    def end(self, timeout_s: float = 240.0) -> int:
        until = time.monotonic() + timeout_s
        self.bring_back(all_=True)
        while time.monotonic() < until and self.driver.poll() is None:
            self.bring_back()
            time.sleep(0.3)
        code = finish(self.place, self.driver, 1.0)
        left = [] if self.place.wait_for(lambda: not self.place.workers(), 10.0) else self.place.workers()
        if left:
            self.told.append(f"{len(left)} workers were left on the cluster 10 s after the driver")
        self.cluster.stop()
        return code


@case(
    "5",
    "whole node lost",
    "four raylets; all processes of a random one with GPU killed at once, started again 0.5 to 8 s later",
)
def node_lost(bench: Bench) -> None:
    for _ in range(bench.times(2)):
        lives(bench, ["node"] * bench.times(3, 2))


@case(
    "6",
    "Ray's head killed",
    "SIGKILL of gcs_server only; the driver must leave by itself; then cluster and command are started again",
)
def head_lost(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        lives(bench, ["head"] * bench.times(2, 1))


@case(
    "C",
    "thirty random moments on four raylets",
    "SIGKILL of workers, whole nodes, the driver, the head, by seed, also while it recovers",
)
def moments(bench: Bench) -> None:
    left = bench.times(30, 3)
    while left:
        count = min(5, left)
        left -= count
        kinds = bench.random.choices(["worker", "node", "driver", "head"], (4, 4, 3, 1), k=count)
        if bench.quick:
            kinds = ["node", "driver", "worker"]
        lives(bench, kinds)


def lives(bench: Bench, kinds: list[str]) -> None:
    """One sweep, struck so often, and held against the oracle."""
    place = bench.place(SPREAD, pace=0.15 if bench.quick else 0.3)
    life = Life(place, Cluster(place, FOUR), bench.random)
    try:
        spread = life.trains(1000, 120.0)
        for kind in kinds:
            moment(bench.random, 0.0, 3.0)
            for _ in range(100):
                if life.strike(kind) or life.driver.poll() is not None:
                    break
                time.sleep(0.2)
                life.bring_back()
            if bench.random.random() < 0.7:  # else the next fault meets the recovery from this one
                life.trains()
        code = life.end()
    finally:
        life.cluster.stop()
    nodes = {record["node"] for record in place.records() if record["type"] == "attach"}
    bench.note(f"{', '.join(life.done)}; {len(nodes)} nodes had workers in all (one that is started again is another)")
    if not spread and not life.done:
        life.told.append("it did not begin to train in 120 s")
    bench.judge(place, len(life.done), code, failures=life.told)
