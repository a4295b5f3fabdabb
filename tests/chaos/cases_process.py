"""Faults of processes: workers, drivers, what they hold, and signals."""

import json
import random
import signal
import subprocess
import time

from sweeps import history
from tests.chaos.bench import Bench, case
from tests.chaos.places import Place, finish, moment, send


def kill_workers(place: Place, driver: "subprocess.Popen[bytes]", order: random.Random, most: int) -> int:
    """SIGKILL random workers at random moments while they train; return how many."""
    killed = 0
    while killed < most and driver.poll() is None:
        moment(order, 0.3, 2.0)
        if place.updates() and (found := place.workers()):
            killed += send(order.choice(found), signal.SIGKILL)
    return killed


@case("1", "worker killed in a step", "SIGKILL of a random worker at random moments of training")
def worker_killed(bench: Bench) -> None:
    for _ in range(bench.times(3)):
        place = bench.place()
        driver = place.start()
        killed = kill_workers(place, driver, bench.random, bench.times(5, 2))
        bench.judge(place, killed, finish(place, driver))


@case(
    "2",
    "worker killed while it writes a checkpoint",
    "the writer dies at half of the bytes, before fsync, before rename, after rename",
)
def checkpoint_killed(bench: Bench) -> None:
    places = ["half", "before fsync", "before rename", "after rename"]
    for turn in range(bench.times(2)):
        place = bench.place(checkpoint=places[turn:] + places[:turn])
        code = finish(place, place.start())
        bench.judge(place, place.fired("checkpoint"), code, bounded="kept")  # what was hit is no checkpoint


def drive_through(place: Place, order: random.Random, kills: int, low: float, high: float) -> tuple[int, int]:
    """Kill the driver so often, each time so long after its start; return how often it was, and the last exit code."""
    done = 0
    driver = place.start()
    while done < kills:
        moment(order, low, high)
        if driver.poll() is not None:
            break
        place.kill_driver(driver)
        done += 1
        driver = place.start()
    return done, finish(place, driver)


@case("3", "driver killed, then resumed", "SIGKILL of the driver at random moments, the same command again")
def driver_killed(bench: Bench) -> None:
    for _ in range(bench.times(2)):
        place = bench.place()
        killed, code = drive_through(place, bench.random, bench.times(3, 2), 6.0, 14.0)
        bench.judge(place, killed, code)


@case(
    "4",
    "driver killed while it resumes",
    "SIGKILL of the driver within 0 to 4 s of its start, in the middle of a sweep",
)
def resume_killed(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        place = bench.place()
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 5000, 90, driver)
        place.kill_driver(driver)
        killed, code = drive_through(place, bench.random, bench.times(5, 2), 0.0, 4.0)
        bench.judge(place, killed + 1, code)


@case(
    "7", "out of memory in one group", "MemoryError, and torch.OutOfMemoryError, in any step of more than three trials"
)
def memory(bench: Bench) -> None:
    for kind in ("memory", "allocate")[: bench.times(2)]:
        place = bench.place(**{kind: {"above": 3}})
        code = finish(place, place.start())
        bench.judge(place, place.fired("memory"), code, bounded=False)


@case("9", "hung step", "a step that sleeps for ever; a worker stopped by SIGSTOP")
def hung(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        place = bench.place({"resources": {**WATCHED}}, hang={"at": 1000, "times": bench.times(2, 1)})
        code = finish(place, place.start())
        bench.judge(place, place.fired("hang"), code, spec=None)
    for _ in range(bench.times(1, 0)):
        place = bench.place({"resources": {**WATCHED}})
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 3000, 90, driver)
        stopped = sum(send(worker, signal.SIGSTOP) for worker in place.workers()[:1])
        bench.judge(place, stopped, finish(place, driver))


WATCHED = {"engine": "loop", "workers": 2, "patience": "15s"}


@case(
    "10",
    "slow worker",
    "each step of one worker takes twenty times as long; halving by order of arrival, then by number",
)
def straggler(bench: Bench) -> None:
    stopping = {"rungs": [500, 1500], "factor": 3, "fork": None, "order": "arrival"}
    for _ in range(bench.times(1)):
        place = bench.place({"early_stopping": stopping}, slow=1.6)
        code = finish(place, place.start())
        fast, slow = rounds(place)
        told = [f"rounds beside each other, fast {fast}, slow {slow}: it waited"] if fast < 3 * slow else []
        bench.judge(place, place.fired("slow"), code, compare=False, failures=told)
        bench.note(f"by arrival, rounds of the fast group and of the slow one at the same time: {fast}, {slow}")
    for _ in range(bench.times(1, 0)):
        place = bench.place(slow=0.4)
        bench.judge(place, place.fired("slow") or 1, finish(place, place.start()))


def rounds(place: Place) -> tuple[int, int]:
    """How often the fast and the slow worker trained while both did."""
    times: dict[int, list[float]] = {}
    for line in (place.inside / "trained.jsonl").read_text().splitlines():
        time_s, pid, _ = json.loads(line)
        times.setdefault(pid, []).append(time_s)
    both = sorted(times.values(), key=len)[-2:]
    start, stop = max(found[0] for found in both), min(found[-1] for found in both)
    counts = sorted(sum(start <= t <= stop for t in found) for found in both)
    return counts[1], counts[0]


@case(
    "18",
    "zombie worker",
    "SIGSTOP of a worker that no order to end reaches, SIGCONT 0 to 2 s after others have its trials",
)
def zombie(bench: Bench) -> None:
    for _ in range(bench.times(2)):
        place = bench.place({"resources": {**WATCHED}}, unreachable=True)
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 3000, 90, driver)
        found = place.workers()[:1]
        stopped = sum(send(worker, signal.SIGSTOP) for worker in found)
        moved = place.wait_for(lambda place=place: any(r.get("moved") for r in place.faults()), 120, driver)
        moment(bench.random, 0.0, 2.0)
        woken = sum(send(worker, signal.SIGCONT) for worker in found)
        told = [] if moved else ["nobody took its trials over in 120 s"]
        if woken != stopped:
            told.append("it was ended, and never woke")
        bench.judge(place, woken, finish(place, driver), failures=told)


@case("20", "signals to the driver", "SIGINT, SIGTERM, SIGINT twice, SIGHUP: exit code, all gone within 10 s, resumed")
def signals(bench: Bench) -> None:
    kinds = [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGHUP]]
    for kind in kinds:
        place = bench.place()
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 3000, 90, driver)
        for signum in kind:
            driver.send_signal(signum)
            time.sleep(0.3)
        name = " ".join(signum.name for signum in kind)
        code = finish(place, driver, 60)
        told = [] if code == 130 else [f"{name}: exit code {code}"]
        if left := place.quiesce(10.0):
            told.append(f"{name}: left after 10 s: {sorted(set(left))}")
        if "Traceback" in place.log.read_text():
            told.append(f"{name}: a traceback")
        bench.judge(place, len(kind), finish(place, place.start()), failures=told)


@case(
    "22",
    "exception in one slot of a group",
    "the training of one trial raises at an update, always; its group's other trials go on",
)
def one_slot(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        victims = sorted(bench.random.sample(range(12), 2))
        place = bench.place(**{"raise": {str(n): 300 for n in victims}})
        code = finish(place, place.start())
        one_lost(bench, place, code, victims, place.fired("raise"))


@case("22b", "a trial that kills its worker", "the process dies by SIGKILL whenever one trial passes an update")
def poison(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        victims = [bench.random.randrange(12)]
        place = bench.place(poison={str(n): 300 for n in victims})
        code = finish(place, place.start())
        one_lost(bench, place, code, victims, place.fired("poison"))


def one_lost(bench: Bench, place: Place, code: int, victims: list[int], injected: int) -> None:
    """Only the victims failed; trials asked before any of them ended are as undisturbed, to the bit.

    Later ones are judged at rungs against one trial fewer, so they may stop elsewhere: what they measured is compared.
    """
    told = [] if not code else [f"exit code {code}: {place.tail(2)}"]
    trials = place.trials()
    failed = sorted(n for n, trial in trials.items() if trial.state == "failed")
    if failed != victims:
        told.append(f"failed trials: {failed[:12]}, should be {victims}")
    running = [n for n, trial in trials.items() if trial.state not in history.END_STATES]
    if running or len(trials) != place.spec["budget"]["trials"]:
        told.append(f"{len(trials)} trials, running: {running}")
    undisturbed = bench.undisturbed()
    other = []
    for number, trial in trials.items():
        if number not in failed and number in undisturbed:
            rows = undisturbed[number][-1]
            from tests.chaos.oracle import bits

            if any(u in rows and rows[u] != {k: bits(v) for k, v in m.items()} for u, m in trial.metrics.items()):
                other.append(number)
    if other:
        told.append(f"neighbours with other bits: {other[:6]}")
    bench.outcome.identical = not other and bench.outcome.identical is not False
    if left := place.quiesce(10.0):
        told.append(f"left after 10 s: {sorted(set(left))}")
    place.close()
    bench.count(injected, told)
