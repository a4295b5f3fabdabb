"""What 50 live pages cost: how soon they come, what memory they take, what they cost a sweep that runs beside them.

    python -m tests.bench.serve_load --json FILE [--clients 50] [--seconds 30] [--no-sweep]

The folder holds a sweep of 10,000 trials that goes on growing while it is looked at. Each client does what a browser
does: it opens a page, follows its server-sent events, and fetches the page's main part when something is told, once a
second at most; now and then it opens another page. All of it is on loopback; clients share the machine's cores with the
service, which runs niced, as `musweep serve` does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import aiohttp
import psutil

from sweeps.journal import Journal, Record, read
from sweeps.lease import Lease
from tests.bench.machine import describe
from tests.bench.machine import load as load_average
from tests.bench.made_sweep import START, Made

ROOT = Path(__file__).parents[2]
TRIALS, REPORTS, METRICS = 10_000, 20, 4
LIVE = 300
"""Trials of the big sweep that end while it is watched."""
OPEN_ANOTHER_S = 8.0
SPEC = """
name: beside
task: {name: curves, examples: 2000}
model: {depth: 5, width: 32}
training: {updates: 1500, batch: 50, reports: 60, method: nag, lr: 0.01}
space:
  lr: {type: float, low: 0.001, high: 0.1, scale: log}
  mu_max: {type: float, low: 0.5, high: 0.99, scale: one_minus_log}
search: {algorithm: random, seed: 1, group_size: 4}
budget: {trials: 5000}
early_stopping: null
resources: {workers: 2, engine: loop}
mlflow: {enabled: false}
"""


def pages(big: str) -> dict[str, str]:
    """The addresses of live pages, by what they are."""
    return {
        "home": "/",
        "sweeps": "/sweeps",
        "sweep": f"/sweeps/{big}",
        "table, sorted": f"/sweeps/{big}?sort=lr&order=down&page=7",
        "table, filtered": f"/sweeps/{big}?q=method:nag+lr<0.05&state=complete",
        "trial": f"/sweeps/{big}/trials/4321",
        "compare": f"/compare?sweep={big}",
        "queue": "/queue",
    }


@dataclass
class Seen:
    """What clients met."""

    full: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    part: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unchanged: int = 0
    events: int = 0
    failed: list[str] = field(default_factory=list)


# -- the big sweep ---------------------------------------------------------------------------------------------------


def make_big(folder: Path) -> tuple[Path, list[list[Record]]]:
    """A sweep of 10,000 trials, and the commits of the last of them, which are still to come."""
    made = Made(TRIALS, METRICS, REPORTS, "big")
    path = made.write(folder / "big")
    lines = (path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    to_come = [json.loads(line[9:]) for line in lines[-LIVE - 1 : -1]]
    (path / "journal.jsonl").write_bytes(b"".join(lines[: -LIVE - 1]))
    return path, to_come


def feed(path: Path, to_come: list[list[Record]], seconds: float) -> None:
    """Be the driver of the big sweep: hold its lease, write its journal and status, a few commits a second."""
    with Lease(path) as lease:
        journal = Journal(path / "journal.jsonl", epoch=lease.epoch)
        versions = {"torch": "2.13.0"}
        journal.append([{"type": "open", "time": START, "format": 1, "sweep_id": "big", "epoch": lease.epoch,
                         "versions": versions}])  # fmt: skip
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        for n, commit in enumerate(to_come):
            journal.append(commit)
            status = {"schema_version": 1, "phase": "searching", "time": time.time(), "beat": n, "updates_per_s": 1e4,
                      "trials": {"running": 1, "complete": TRIALS - LIVE + n, "budget": TRIALS}}  # fmt: skip
            temporary = path / ".status.tmp"
            temporary.write_text(json.dumps(status))
            temporary.replace(path / "status.json")
            time.sleep(max(0.0, began + (n + 1) * seconds / len(to_come) - time.monotonic()))
        journal.append([{"type": "close", "time": START, "reason": "interrupted"}])
        journal.close()


# -- the service and its clients ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(root: Path, state: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`musweep serve` as a user starts it, on a free port."""
    words = [sys.executable, "-m", "cluster.cli", "serve", str(root), "--port", "0", "--rate", "100000"]
    env = {
        **os.environ,
        "XDG_STATE_HOME": str(state),
        "PYTHONPATH": str(ROOT),
        "MUSWEEP_CLUSTERS": str(state / "c.yaml"),
    }
    (state / "c.yaml").write_text("{}\n")
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True, cwd=state)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split(" at ")[1].split("/ ")[0], psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        process.wait(30)
        print(f"the service left in {time.monotonic() - began:.1f} s with {process.returncode}", file=sys.stderr)


async def client(n: int, url: str, big: str, until: float, seen: Seen) -> None:
    """One browser."""
    chosen, draw = list(pages(big).items()), random.Random(n)
    connector = aiohttp.TCPConnector(limit=8)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        await asyncio.sleep(draw.uniform(0, 2))
        while time.monotonic() < until:
            name, path = draw.choices(chosen, [2, 2, 4, 2, 2, 1, 1, 1])[0]
            await fetch(session, name, path, seen.full[name], seen, {})
            stay = min(until, time.monotonic() + OPEN_ANOTHER_S * draw.uniform(0.5, 1.5))
            await follow(session, name, path, big, stay, seen)


async def fetch(
    session: aiohttp.ClientSession, name: str, path: str, took: list[float], seen: Seen, headers: dict[str, str]
) -> str:
    """Ask for a page; return its tag."""
    began = time.perf_counter()
    try:
        async with session.get(path, headers=headers, timeout=aiohttp.ClientTimeout(60)) as answer:
            await answer.read()
            took.append(time.perf_counter() - began)
            if answer.status == 304:
                seen.unchanged += 1
            elif answer.status != 200:
                seen.failed.append(f"{name}: {answer.status}")
            return answer.headers.get("ETag", headers.get("If-None-Match", ""))
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.failed.append(f"{name}: {type(error).__name__}")
        return ""


async def follow(session: aiohttp.ClientSession, name: str, path: str, big: str, until: float, seen: Seen) -> None:
    """Stay on a page: fetch its main part again when something is told, as its script does, once a second at most."""
    told = asyncio.Event()
    events = f"/api/v1/sweeps/{big}/events" if path.startswith("/sweeps/") else "/api/v1/events"
    hearing = asyncio.create_task(hear(session, events, told, seen))
    tag, last = "", time.monotonic()
    try:
        async with asyncio.timeout(max(0.01, until - time.monotonic())):
            while True:
                await told.wait()
                told.clear()
                await asyncio.sleep(max(0.0, last + 1.0 - time.monotonic()) + random.random() * 0.2)
                headers = {"X-Part": "main", **({"If-None-Match": tag} if tag else {})}
                tag = await fetch(session, name, path, seen.part[name], seen, headers)
                last = time.monotonic()
    except TimeoutError:
        return
    finally:
        hearing.cancel()


async def hear(session: aiohttp.ClientSession, events: str, told: asyncio.Event, seen: Seen) -> None:
    """Follow a stream of events."""
    with contextlib.suppress(aiohttp.ClientError):
        async with session.get(events, timeout=aiohttp.ClientTimeout(None)) as stream:
            async for line in stream.content:
                if line.startswith(b"event: sweep"):
                    seen.events += 1
                    told.set()


async def clients(count: int, url: str, big: str, seconds: float) -> Seen:
    """So many browsers at once."""
    seen, until = Seen(), time.monotonic() + seconds
    await asyncio.gather(*(client(n, url, big, until, seen) for n in range(count)))
    return seen


def spread(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(1e3 * value for value in values)
    return {
        "requests": len(ordered),
        **{f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 1) for p in (50, 95, 99)},
        "longest": round(ordered[-1], 1),
    }


def look(
    root: Path, state: Path, path: Path, to_come: list[list[Record]], count: int, seconds: float
) -> dict[str, Any]:
    """Have clients look while the big sweep grows."""
    with serving(root, state) as (url, process):
        began = time.perf_counter()
        asyncio.run(_first(url))
        first_s = time.perf_counter() - began
        before, cpu = process.memory_info().rss, sum(process.cpu_times()[:2])
        words = [sys.executable, "-m", "tests.bench.serve_load", "--feed", str(path), "--seconds", str(seconds)]
        feeder = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert feeder.stdin is not None
        assert feeder.stdout is not None
        feeder.stdin.write(json.dumps(to_come) + "\n")
        feeder.stdin.flush()
        assert feeder.stdout.readline() == "ready\n"  # it has read the journal, as a driver does that goes on
        time.sleep(2.0)
        feeder.stdin.write("go\n")
        feeder.stdin.flush()
        busy, others = psutil.cpu_times(), process.cpu_times()
        seen = asyncio.run(clients(count, url, "big", seconds))
        after, cpu = process.memory_info().rss, sum(process.cpu_times()[:2]) - cpu
        now = psutil.cpu_times()
        used = sum(now) - now.idle - now.iowait - (sum(busy) - busy.idle - busy.iowait)
        mine = sum(process.cpu_times()[:2]) - sum(others[:2])
        feeder.wait(60)
        feeder.stdin.close()
        feeder.stdout.close()
    everything = [value for kind in (seen.full, seen.part) for values in kind.values() for value in values]
    return {
        "clients": count, "seconds": seconds, "first_page_s": round(first_s, 2), "all": spread(everything),
        "pages": {name: spread(values) for name, values in sorted(seen.full.items())},
        "parts": {name: spread(values) for name, values in sorted(seen.part.items())},
        "unchanged": seen.unchanged, "events": seen.events, "failed": seen.failed[:10], "failures": len(seen.failed),
        "rss_mib_before": round(before / 2**20), "rss_mib_after": round(after / 2**20),
        "cores_of_service": round(cpu / seconds, 3), "cores_of_all_else": round((used - mine) / seconds, 2),
    }  # fmt: skip


async def _first(url: str) -> None:
    """The first page of the big sweep, for which its journal is read."""
    async with aiohttp.ClientSession(url) as session, session.get("/sweeps/big") as answer:
        await answer.read()


# -- the sweep beside it -----------------------------------------------------------------------------------------------


def slowdown(root: Path, state: Path, count: int, windows: int, window_s: float) -> dict[str, Any]:
    """A sweep's speed while clients look and while none does, in turns of seconds: others' work averages out."""
    spec, folder = state / "beside.yaml", root / "beside"
    spec.write_text(SPEC)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with serving(root, state) as (url, process):
        asyncio.run(_first(url))
        words = [sys.executable, "-m", "cluster.cli", "run", str(spec), "--out", str(folder)]
        with (state / "beside.out").open("w") as out:
            sweep = subprocess.Popen(words, env=env, stdout=out, stderr=out, cwd=state)
        words = [sys.executable, "-m", "tests.bench.serve_load", "--look", url, "--clients", str(count)]
        lookers = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, text=True
        )  # niced, too: browsers are elsewhere
        assert lookers.stdin is not None
        try:
            until = time.monotonic() + 120
            while len(_updates(folder)) < 20:
                assert sweep.poll() is None, (state / "beside.out").read_text()[-2000:]
                assert time.monotonic() < until
                time.sleep(0.5)
            turns = []
            for n in range(windows):
                lookers.stdin.write("on\n" if n % 2 else "off\n")
                lookers.stdin.flush()
                time.sleep(1.0)  # what was under way ends
                began, cpu, theirs = time.time(), _cpu(process.pid), _cpu(lookers.pid)
                time.sleep(window_s)
                spent = _cpu(process.pid) - cpu, _cpu(lookers.pid) - theirs
                turns.append((n % 2 == 1, began, time.time(), spent))
        finally:
            lookers.terminate()
            sweep.send_signal(signal.SIGINT)
            sweep.wait(90)
            lookers.wait(30)
            lookers.stdin.close()
    done = _updates(folder)
    rates: dict[bool, list[float]] = {False: [], True: []}
    cores = list[tuple[float, ...]]()
    for watched, began, ended, spent in turns:
        rates[watched].append(sum(n for at, n in done if began <= at < ended) / (ended - began))
        cores += [tuple(each / (ended - began) for each in spent)] if watched else []
    of_service, of_clients = (fmean(column) for column in zip(*cores, strict=True))
    ratio = [1 - b / a for a, b in zip(rates[False], rates[True], strict=True) if a]
    error = stdev(ratio) / len(ratio) ** 0.5
    return {
        "window_s": window_s, "updates_per_s_alone": [round(x) for x in rates[False]],
        "updates_per_s_watched": [round(x) for x in rates[True]],
        "slowed_by": round(1 - sum(rates[True]) / sum(rates[False]), 4), "standard_error": round(error, 4),
        "cores_of_service": round(of_service, 3), "cores_of_clients": round(of_clients, 3),
    }  # fmt: skip


def _cpu(pid: int) -> float:
    """CPU seconds of a process."""
    return sum(psutil.Process(pid).cpu_times()[:2])


def _updates(folder: Path) -> list[tuple[float, int]]:
    """(time, updates) of each report of a trial."""
    seen: dict[int, int] = {}
    found = []
    for record in read(folder / "journal.jsonl"):
        for entry in record["trials"] if record["type"] == "report" else ():
            found.append((record["time"], entry["update"] - seen.get(entry["trial"], 0)))
            seen[entry["trial"]] = entry["update"]
    return found


async def look_in_turns(count: int, url: str) -> None:
    """So many browsers while stdin has said `on`, none while it has said `off`."""
    loop, looking = asyncio.get_running_loop(), list[asyncio.Task[None]]()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        looking, seen = [], Seen()
        if line.strip() == "on":
            looking = [asyncio.create_task(client(n, url, "big", time.monotonic() + 3600, seen)) for n in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--window-s", type=float, default=5.0)
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--feed", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--look", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.feed:
        feed(given.feed, json.loads(sys.stdin.readline()), given.seconds)
        return
    if given.look:
        os.nice(10)
        asyncio.run(look_in_turns(given.clients, given.look))
        return
    found: dict[str, Any] = {"machine": describe()}
    with tempfile.TemporaryDirectory(prefix="musweep-serve-") as place:
        root, state = Path(place) / "runs", Path(place) / "state"
        root.mkdir()
        state.mkdir()
        path, to_come = make_big(root)
        found["journal_mib"] = round((path / "journal.jsonl").stat().st_size / 2**20, 1)
        found["load"] = look(root, state, path, to_come, given.clients, given.seconds)
        print(json.dumps(found["load"], indent=1), file=sys.stderr)
        if not given.no_sweep:
            found["sweep_beside"] = slowdown(root, state, given.clients, given.windows, given.window_s)
    found["load_average_1m_after"] = load_average()
    text = json.dumps(found, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
