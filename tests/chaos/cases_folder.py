"""Faults of what a sweep stands on: files, clocks, its own code, a second driver, its trials' configs, leaks."""

import time
from pathlib import Path

import psutil

from sweeps import history, journal
from tests.chaos.bench import Bench, case
from tests.chaos.places import SPEC, Place, finish, name_of


@case(
    "8",
    "divergence",
    "a learning rate of 1e30 in one trial of three, other numbers beside it; held against trials that train alone",
)
def divergence(bench: Bench) -> None:
    spec = {
        "space": {**SPEC["space"], "lr": [0.01, 0.1, 1e30]},
        "model": {"width": 32, "activation": "relu"},
        "early_stopping": None,
        "budget": {"trials": 24},
        "search": {**SPEC["search"], "algorithm": "random"},
    }
    alone = {**spec, "search": {**spec["search"], "group_size": 1}}
    for _ in range(bench.times(1)):
        place = bench.place(spec)
        code = finish(place, place.start())
        lost = [trial for trial in place.trials().values() if trial.state == "diverged"]
        told = [f"{trial.id} diverged at a small learning rate" for trial in lost if trial.params["lr"] < 1]
        told += [f"{trial.id} has the objective {trial.objective}" for trial in lost if trial.objective is not None]
        bench.judge(place, len(lost), code, spec=alone, failures=told)


@case(
    "12",
    "corrupt checkpoint",
    "driver killed; then the newest checkpoint of each group has a byte flipped, is cut, emptied",
)
def corrupt_checkpoint(bench: Bench) -> None:
    kinds = ["flip", "cut", "empty"]
    for turn in range(bench.times(1)):
        place = bench.place()
        done = 0
        driver = place.start()
        for kind in kinds[turn:] + kinds[:turn]:
            before = place.updates()
            if not place.wait_for(lambda place=place, before=before: place.updates() > before + 5000, 90, driver):
                break
            place.kill_driver(driver)
            done += spoil(place, kind, bench)
            driver = place.start()
        code = finish(place, driver)
        bench.judge(place, done, code, bounded=False)  # the newest is gone, so an older rung it is


def spoil(place: Place, kind: str, bench: Bench) -> int:
    """Damage the newest checkpoint of each group."""
    done = 0
    for group in (0, 1):
        found = sorted((place.folder / "checkpoints").glob(f"group-{group:03d}-*"))
        for path in found[-1:]:
            data = bytearray(path.read_bytes())
            if kind == "flip":
                data[bench.random.randrange(len(data))] ^= 1 << bench.random.randrange(8)
            path.write_bytes({"flip": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}[kind])
            done += 1
    return done


@case(
    "13",
    "torn tail of the journal",
    "a killed sweep's journal cut at each of its last 200 bytes and read; some of them resumed to the end",
)
def torn_journal(bench: Bench) -> None:
    place = bench.place()
    driver = place.start()
    place.wait_for(lambda: place.updates() > 8000, 90, driver)
    place.kill_driver(driver)
    path = place.folder / "journal.jsonl"
    data = path.read_bytes()
    whole, told = journal.read(path), []
    torn = place.root / "torn.jsonl"
    for cut in range(1, 201):
        torn.write_bytes(data[:-cut])
        kept = len(data[:-cut].splitlines(keepends=True)) - (not data[:-cut].endswith(b"\n"))
        expected = journal.scan(b"".join(data.splitlines(keepends=True)[:kept]))[0]
        writer = journal.Journal(torn)
        if writer.records != expected or expected != whole[: len(expected)]:
            told.append(f"cut by {cut} bytes: {len(writer.records)} records, should be {len(expected)}")
        history.fold(writer.records)
        writer.append([{"type": "close", "time": 0.0, "reason": "failed"}])
        writer.close()
        if journal.read(torn)[:-1] != expected:
            told.append(f"cut by {cut} bytes: what is written then cannot be read")
    bench.count(200, told)
    for cut in sorted(bench.random.sample(range(1, 201), bench.times(2))):
        current = path.read_bytes()
        path.write_bytes(current[:-cut])
        driver = place.start()
        before = place.updates()
        place.wait_for(lambda before=before: place.updates() > before + 3000, 60, driver)
        if cut != 200 and driver.poll() is None:
            place.kill_driver(driver)
    code = finish(place, place.start())
    bench.judge(place, bench.times(2), code)


@case("17", "the same sweep started twice", "a second driver while the first works, and two at the same moment")
def twice(bench: Bench) -> None:
    for turn in range(bench.times(2)):
        place = bench.place()
        first = place.start()
        if turn % 2 == 0:
            place.wait_for(lambda place=place: place.updates() > 1000, 90, first)
        second = place.start()
        codes = sorted([finish(place, first), finish(place, second)])
        words = place.log.read_text()
        told = [] if codes == [0, 2] else [f"exit codes {codes}, should be 0 and 2"]
        if "Traceback" in words:
            told.append(f"a traceback: {place.tail(1)}")
        bench.judge(place, 1, 0, failures=told)


@case(
    "19",
    "wall clock jumps",
    "time.time in all processes a day ahead, then a day behind, each in the middle of training",
)
def clocks(bench: Bench) -> None:
    for first in (86_400.0, -86_400.0)[: bench.times(1)]:
        place = bench.place()
        place.clock(0.0)
        driver = place.start()
        jumped = 0
        for goal, offset in ((3000, first), (9000, -first), (15_000, 0.0)):
            if (
                place.wait_for(lambda place=place, goal=goal: place.updates() > goal, 90, driver)
                and driver.poll() is None
            ):
                place.clock(offset)
                jumped += 1
        bench.judge(place, jumped, finish(place, driver))
    for offset in (-86_400.0, 86_400.0)[: bench.times(1, 0)]:  # and with a worker lost in between
        place = bench.place()
        place.clock(0.0)
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 5000, 90, driver)
        place.clock(offset)
        before = place.updates()
        place.wait_for(lambda place=place, before=before: place.updates() > before + 5000, 90, driver)
        place.kill_driver(driver)
        bench.judge(place, 2, finish(place, place.start()))


BAD = """
def train(trial):
    if trial.params["lr"] < {limit}:
        raise ValueError(f"lr {{trial.params['lr']}} is too small for this trainer")
    for update in range(1, trial.updates + 1):
        if trial.due(update):
            trial.report(update, loss=trial.params["lr"] + 1 / update)
"""


@case(
    "21",
    "bad config of one trial, of all",
    "a trainer of the user's own that raises for about one trial in twenty; then one that raises for all",
)
def bad_config(bench: Bench) -> None:
    place = bench.place(trainer_spec(40))
    (place.root / "mine.py").write_text(BAD.format(limit=0.05))
    place.env["PYTHONPATH"] = f"{place.environment()['PYTHONPATH']}:{place.root}"
    code = finish(place, place.start())
    trials = place.trials().values()
    bad = {t.number for t in trials if t.params["lr"] < 0.05}
    told = (
        []
        if bad == {t.number for t in trials if t.state == "failed"}
        else ["other trials failed than those that should"]
    )
    bench.judge(place, len(bad) or 1, code, compare=False, failures=told)

    place = bench.place(trainer_spec(200))
    (place.root / "mine.py").write_text(BAD.format(limit=9.0))
    place.env["PYTHONPATH"] = f"{place.environment()['PYTHONPATH']}:{place.root}"
    code = finish(place, place.start())
    words = place.log.read_text()
    ran = len(place.trials())
    told = [] if code == 2 else [f"all trials bad: exit code {code}, should be 2"]
    if words.count("Traceback") > 1:
        told.append(f"all trials bad: {words.count('Traceback')} tracebacks")
    if ran == 200:
        told.append("all trials bad: it went through all 200 trials instead of stopping early")
    place.quiesce(10)
    bench.note(f"all bad: {ran} of 200 trials were tried before it stopped")
    bench.count(1, told)


def trainer_spec(trials: int) -> dict:
    """What a spec says of a trainer of the user's own; None takes a key away."""
    return {
        "task": None,
        "trainer": "mine:train",
        "model": None,
        "objective": "loss",
        "training": {"updates": 20, "reports": 4},
        "space": {"lr": {"type": "float", "low": 0.0, "high": 1.0}},
        "search": {"algorithm": "random", "seed": 3},
        "budget": {"trials": trials},
        "early_stopping": None,
        "resources": {"workers": 2},
    }


@case(
    "23",
    "code changed between run and resume",
    "the version of the code is another at the resume: it goes on and records both",
)
def code_changed(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        place = bench.place(versions={"git": "a" * 40})
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 5000, 90, driver)
        place.kill_driver(driver)
        place.plan(pace=0.08, record=True, versions={"git": "b" * 40})
        code = finish(place, place.start())
        opened = [record["versions"].get("git") for record in journal.of_type(place.records(), "open")]
        told = [] if opened == ["a" * 40, "b" * 40] else [f"the journal's open records name {opened}"]
        bench.judge(place, 1, code, failures=told)


@case(
    "24",
    "leaks",
    "1,000 short trials: files, threads, memory of driver, board and workers; /dev/shm; what a killed driver leaves",
)
def leaks(bench: Bench) -> None:
    spec = {
        "training": {"updates": 30, "reports": 2, "batch": 16, "eval_examples": 50, "mu_step": 10},
        "model": {"width": 8, "depth": 1},
        "space": {"lr": SPEC["space"]["lr"]}, "early_stopping": None, "search": {**SPEC["search"], "group_size": 8},
        "budget": {"trials": bench.times(1000, 300)},
    }  # fmt: skip
    shm = shared_memory()
    place = bench.place(spec, pace=0.25, record=False)
    driver = place.start()
    samples: list[dict[str, tuple[int, int, int]]] = []
    place.wait_for(lambda: sum(t.state == "complete" for t in place.trials().values()) > 50, 90, driver)
    while driver.poll() is None:
        found = {who: usage(process) for who, process in kinds(place, driver.pid).items()}
        samples += [found] * (len(found) == 4)  # driver, board, two workers: while they train
        time.sleep(0.5)
    told = slopes(samples) if len(samples) > 9 else [f"only {len(samples)} samples of all processes at work"]
    bench.note(
        f"{len(samples)} samples; files, threads, MiB more in the last third than in the first: {grown(samples)}"
    )
    code = finish(place, driver)
    bench.judge(place, 1, code, compare=False, mlflow=True, failures=told)
    if left := sorted(shared_memory() - shm):
        bench.note(f"/dev/shm has {len(left)} files more than before, perhaps of other programs: {left[:3]}")
    place = bench.place()
    driver = place.start()
    place.wait_for(lambda: place.updates() > 3000, 90, driver)
    driver.kill()
    driver.wait()
    started = time.monotonic()
    ours = place.wait_for(lambda: not place.named("musweep", "Board", "GroupWorker", "Trainable"), 10.0)
    while time.monotonic() - started < AGENTS_S and place.alive():
        time.sleep(0.5)
    left = sorted({name_of(process) for process in place.alive()})
    gone = f"{left} were there after" if left else "all its processes were gone within"
    bench.note(f"driver killed: {gone} {time.monotonic() - started:.0f} s")
    told = [] if ours else ["the board or workers outlive a killed driver by 10 s"]
    told += [f"processes outlive a killed driver by {AGENTS_S:g} s"] if left else []
    bench.judge(place, 1, finish(place, place.start()), failures=told)


AGENTS_S = 90.0
"""Agents of Ray's, two processes that hold nothing, try for a minute to tell a head that is gone that its node is."""


def kinds(place: Place, pid: int) -> dict[str, psutil.Process]:
    found = {"driver": psutil.Process(pid)} if psutil.pid_exists(pid) else {}
    for index, worker in enumerate(sorted(place.workers(), key=lambda p: p.pid)):
        found[f"worker {index}"] = worker
    for board in place.named("BoardActor")[:1]:
        found["board"] = board
    return found


def usage(process: psutil.Process) -> tuple[int, int, int]:
    """Open files, threads, MiB of memory."""
    try:
        return process.num_fds(), process.num_threads(), process.memory_info().rss >> 20
    except psutil.Error:
        return 0, 0, 0


def grown(samples: list[dict[str, tuple[int, int, int]]]) -> dict[str, tuple[int, ...]]:
    """How much files, threads and MiB grew from the first third of the time to the last, by process."""
    third = max(1, len(samples) // 3)
    found = {}
    for who in samples[len(samples) // 2] if samples else {}:
        first = [sample[who] for sample in samples[:third] if who in sample and any(sample[who])]
        last = [sample[who] for sample in samples[-third:] if who in sample and any(sample[who])]
        if first and last:
            found[who] = tuple(round(mean(last, i) - mean(first, i)) for i in range(3))
    return found


def mean(values: list[tuple[int, int, int]], index: int) -> float:
    return sum(value[index] for value in values) / len(values)


def slopes(samples: list[dict[str, tuple[int, int, int]]]) -> list[str]:
    return [
        f"{who} grew by {files} files, {threads} threads, {memory} MiB"
        for who, (files, threads, memory) in grown(samples).items()
        if files > 8 or threads > 8 or memory > 60
    ]


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").exists() else set()
