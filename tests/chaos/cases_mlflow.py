"""Faults of MLflow: down, slow, lying, its SQLite file locked."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request

from sweeps import journal
from tests.chaos.bench import Bench, case
from tests.chaos.places import PACE_S, Place, finish
from tests.chaos.proxies import HttpProxy, free_port


class Server:
    """A real MLflow server over the place's own SQLite file."""

    def __init__(self, place: Place, port: int) -> None:
        self.place, self.port = place, port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.place.root}/mlflow.db",
            "--artifacts-destination", str(self.place.root / "artifacts"),
        ]  # fmt: skip
        self.place.env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes that no sweep needs
        self.process = self.place.spawn(words, self.place.root / "server.log")
        for _ in range(600):
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2),
            ):
                return
            time.sleep(0.1)
        raise RuntimeError("mlflow server did not start")

    def send(self, signum: signal.Signals) -> None:
        """To the server and its own children."""
        assert self.process is not None
        os.killpg(self.process.pid, signum)

    def stop(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)
        self.process.wait()


def served(bench: Bench, port: int, pace: float = PACE_S) -> Place:
    """A place whose sweep tells a server; the database lies where the oracle looks."""
    place = bench.place(pace=pace)
    uri = {"mlflow": {"uri": f"http://127.0.0.1:{port}"}}
    place.respec(uri)
    return place


def reconcile(place: Place) -> list[str]:
    """`musweep sync`, as a person would once the server answers again."""
    words = [sys.executable, "-m", "cluster.cli", "sync", str(place.folder)]
    process = place.spawn(words, place.root / "sync.log")
    code = finish(place, process, 180)
    return [] if code == 0 else [f"sync ended with {code}: {(place.root / 'sync.log').read_text()[-300:]}"]


def rate(place: Place, start: float, stop: float) -> float:
    """Reports of groups per second between two moments of the journal."""
    reports = journal.of_type(place.records(), "report")
    return sum(start < report["time"] <= stop for report in reports) / max(1e-9, stop - start)


@case(
    "14",
    "MLflow server down",
    "started late; stopped by SIGSTOP in the middle for two minutes; killed and started again; never there",
)
def server_down(bench: Bench) -> None:
    long = bench.times(120, 8)
    place = served(bench, free_port(), pace=PACE_S if bench.quick else 3.0)
    server = Server(place, int(place.spec["mlflow"]["uri"].rpartition(":")[2]))
    server.start()
    driver = place.start()
    place.wait_for(lambda: place.updates() > 6000, 120, driver)
    began = time.time()
    server.send(signal.SIGSTOP)
    place.wait_for(lambda: False, long, driver)
    ended = time.time()
    alive = driver.poll() is None
    server.send(signal.SIGCONT)
    code = finish(place, driver, 400)
    rows = list(journal.of_type(place.records(), "report"))
    before, meanwhile = rate(place, rows[0]["time"], began), rate(place, began, min(ended, rows[-1]["time"]))
    bench.note(f"stopped for {ended - began:.0f} s, the sweep {'went on' if alive else 'ended'} meanwhile")
    bench.note(f"reports of groups a second: {before:.2f} before, {meanwhile:.2f} while it was stopped")
    told = reconcile(place)
    server.stop()
    bench.judge(place, 1, code, failures=told)

    place = served(bench, free_port())
    server = Server(place, int(place.spec["mlflow"]["uri"].rpartition(":")[2]))
    driver = place.start()
    place.wait_for(lambda: place.updates() > 3000, 120, driver)
    server.start()
    code = finish(place, driver)
    told = reconcile(place)
    server.stop()
    bench.judge(place, 1, code, failures=told)

    for _ in range(bench.times(1)):
        place = served(bench, free_port())
        server = Server(place, int(place.spec["mlflow"]["uri"].rpartition(":")[2]))
        server.start()
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 3000, 120, driver)
        server.stop()
        place.wait_for(lambda: False, bench.random.uniform(2, 6), driver)
        server.start()
        code = finish(place, driver)
        told = reconcile(place)
        server.stop()
        bench.judge(place, 1, code, failures=told)

    place = served(bench, free_port())
    code = finish(place, place.start())  # it finishes although nobody ever answered
    server = Server(place, int(place.spec["mlflow"]["uri"].rpartition(":")[2]))
    server.start()
    told = reconcile(place)
    server.stop()
    bench.judge(place, 1, code, failures=told)


@case(
    "15",
    "MLflow answers 500, 429, late, or not at all",
    "an HTTP proxy that by seed does so to four requests of ten; late: 10 s; not at all: carried out, reply dropped",
)
def bad_answers(bench: Bench) -> None:
    for turn in range(bench.times(2)):
        port = free_port()
        proxy = HttpProxy(port, bench.seed * 100 + turn, slow_s=10.0 if not bench.quick else 3.0)
        try:
            place = served(bench, proxy.port)
            server = Server(place, port)
            server.start()
            code = finish(place, place.start(), 400)
            done = dict(proxy.done)
            proxy.share = 0.0
            told = reconcile(place)
            server.stop()
        finally:
            proxy.close()
        bench.note(f"{', '.join(f'{n} x {kind}' for kind, n in done.items())}")
        bench.judge(place, sum(done.values()), code, failures=told)


@case(
    "16",
    "SQLite locked",
    "another process holds BEGIN EXCLUSIVE on MLflow's database for 60 s in the middle of the sweep",
)
def locked(bench: Bench) -> None:
    for turn in range(bench.times(1)):
        place = bench.place(pace=PACE_S if bench.quick or turn else 0.8)
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 2000, 120, driver)
        holder = sqlite3.connect(place.root / "mlflow.db", isolation_level=None, timeout=30)
        holder.execute("BEGIN EXCLUSIVE")
        place.wait_for(lambda: False, 10 if bench.quick or turn else 60, driver)
        trained = driver.poll() is None
        holder.execute("ROLLBACK")
        holder.close()
        code = finish(place, driver)
        bench.note(f"the sweep {'trained on' if trained else 'ended'} while the database was locked")
        told = reconcile(place)
        bench.judge(place, 1, code, failures=told)
