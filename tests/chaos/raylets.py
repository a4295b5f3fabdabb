"""A Ray cluster on this machine: each node a `ray start` in a session of its own, to be killed and started."""

import contextlib
import secrets
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.chaos.places import Place, send
from tests.chaos.proxies import free_port

FAST = {
    "RAY_enable_worker_prestart": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
    "RAY_gcs_server_request_timeout_seconds": "10",
}
"""Of the nodes: Ray takes half a minute to give one up; here there is less time. A driver has Ray's own patience."""


class Cluster:
    """A head and other nodes by name; `nodes` says what each declares."""

    def __init__(
        self,
        place: Place,
        nodes: dict[str, dict[str, float]],
        prefix: dict[str, list[str]] | None = None,
        address: dict[str, str] | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.place, self.nodes = place, nodes
        self.prefix, self.ip = prefix or {}, address or {}
        self.port = free_port()
        self.head = next(iter(nodes))
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._from: dict[str, int] = {}
        self.settings = {**FAST, **(settings or {})}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        place.env |= {"RAY_ADDRESS": self.address, **token}

    @property
    def address(self) -> str:
        return f"{self.ip.get(self.head, '127.0.0.1')}:{self.port}"

    def start(self, name: str) -> None:
        """Start a node, the head before all others."""
        has = self.nodes[name]
        words = [
            *self.prefix.get(name, []), str(Path(sys.executable).parent / "ray"), "start", "--block",
            f"--node-ip-address={self.ip.get(name, '127.0.0.1')}",
            f"--num-cpus={has.get('cpu', 0):g}", f"--num-gpus={has.get('gpu', 0):g}", "--object-store-memory=80000000",
            "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
            "--disable-usage-stats", "--include-log-monitor=false",
        ]  # fmt: skip
        log = self.place.root / f"{name}.log"
        self._from[name] = log.stat().st_size if log.exists() else 0
        if name == self.head:
            words += [
                "--head",
                f"--port={self.port}",
                "--include-dashboard=false",
                f"--ray-client-server-port={free_port()}",
            ]
        else:
            words += [f"--address={self.address}"]
        env = self.place.env
        self.place.env = {k: v for k, v in env.items() if k != "RAY_ADDRESS"} | self.settings
        try:
            self.running[name] = self.place.spawn(words, log)
        finally:
            self.place.env = env

    def start_all(self) -> None:
        """Start every node, one after the other: together they would take the same names for their sockets."""
        for name in self.nodes:
            for _ in range(3):
                self.start(name)
                if self.settled(name, 60.0):
                    break
                self.kill(name)
            else:
                raise RuntimeError(f"{name} did not start: {(self.place.root / f'{name}.log').read_text()[-300:]}")

    def settled(self, name: str, timeout_s: float) -> bool:
        """Whether a node that was started runs; waits until it does, has ended, or the time is over."""
        until = time.monotonic() + timeout_s
        while not self.up(name) and self.alive(name) and time.monotonic() < until:
            time.sleep(0.2)
        return self.up(name) and self.alive(name)

    def up(self, name: str) -> bool:
        """Whether the node that was started last under this name says that it runs."""
        return (self.place.root / f"{name}.log").read_bytes()[self._from[name] :].count(b"Ray runtime started") > 0

    def family(self, name: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            node = psutil.Process(self.running[name].pid)
            return [node, *node.children(recursive=True)]
        return []

    def kill(self, name: str) -> None:
        """SIGKILL all processes of a node at once, as when its machine loses power."""
        family = self.family(name)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.running[name].wait()
        psutil.wait_procs(family, timeout=10)

    def kill_gcs(self) -> bool:
        """SIGKILL the head's control store only."""
        import signal

        for process in self.family(self.head):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("gcs_server"):
                    return send(process, signal.SIGKILL)
        return False

    def alive(self, name: str) -> bool:
        return name in self.running and self.running[name].poll() is None

    def stop(self) -> None:
        for name in list(self.running):
            self.kill(name)
        self.running.clear()
