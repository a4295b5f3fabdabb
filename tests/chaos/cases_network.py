"""Two hosts in network namespaces, and the cable between them pulled."""

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Generator

from tests.chaos.bench import Bench, Skipped, case
from tests.chaos.cases_cluster import Life
from tests.chaos.raylets import Cluster

TWO = {"head": {"cpu": 1}, "far": {"cpu": 1}}
SPEC = {
    "resources": {"engine": "loop", "workers": 2, "cpu": 1, "device": "cpu"},
    "early_stopping": {"rungs": [500, 1500], "factor": 3, "fork": None, "order": "number"},
}
DEAD_AFTER = {"RAY_health_check_failure_threshold": "15", "RAY_gcs_rpc_server_reconnect_timeout_s": "60"}
"""The head gives a node up about 15 s after it last heard of it."""


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Cable:
    """Two namespaces and a veth pair; nothing of the machine's own network is touched."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        self.near, self.far = f"mcn{tag}", f"mcf{tag}"
        self._ends = f"vn{tag}", f"vf{tag}"

    def lay(self) -> None:
        for name in (self.near, self.far):
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            self._ends[0],
            "netns",
            self.near,
            "type",
            "veth",
            "peer",
            "name",
            self._ends[1],
            "netns",
            self.far,
        )
        for name, end, host in zip((self.near, self.far), self._ends, (1, 2), strict=True):
            ip("-n", name, "addr", "add", f"10.77.0.{host}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")

    def pull(self) -> None:
        ip("-n", self.far, "link", "set", self._ends[1], "down")

    def plug(self) -> None:
        ip("-n", self.far, "link", "set", self._ends[1], "up")

    def remove(self) -> None:
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def cable() -> Generator[Cable]:
    if os.geteuid() != 0:
        raise Skipped("network namespaces need root")
    laid = Cable()
    try:
        laid.lay()
        yield laid
    finally:
        laid.remove()


def cut(bench: Bench, seconds: float) -> None:
    """A sweep over two hosts; the cable is out for so long in the middle of it."""
    with cable() as between:
        place = bench.place(SPEC, pace=0.3)
        within = {"head": ["ip", "netns", "exec", between.near], "far": ["ip", "netns", "exec", between.far]}
        cluster = Cluster(place, TWO, within, {"head": "10.77.0.1", "far": "10.77.0.2"}, DEAD_AFTER)
        place.prefix = within["head"]
        life = Life(place, cluster, bench.random)
        try:
            life.trains(3000, 120.0)
            between.pull()
            out = time.monotonic()
            while time.monotonic() - out < seconds:
                time.sleep(0.2)
            between.plug()
            grew = life.trains(500, 120.0)
            code = life.end(300.0)
            place.look()
        finally:
            between.plug()
            cluster.stop()
        after = [r for r in place.records() if r["type"] in ("attach", "fault")]
        went = "went on" if grew else "ended"
        bench.note(f"out for {seconds:g} s: {len(after)} attach and fault records; the sweep {went} after it")
        bench.judge(place, 1, code, failures=life.told)


@case(
    "N1",
    "cable out for 10 s",
    "two hosts in network namespaces; the link of the worker's host down for 10 s in the middle of training",
)
def short_cut(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        cut(bench, 10.0)


@case(
    "N2",
    "cable out until the node is declared dead",
    "as before for 30 s; the head gives a node up after 15 s, the raylet is started again when it has ended",
)
def long_cut(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        cut(bench, 30.0)
