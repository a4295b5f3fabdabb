"""Faults of PostgreSQL behind a line that breaks: under MLflow and Optuna, under the queue and its dispatchers."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator

import yaml

from tests.chaos import oracle
from tests.chaos.bench import Bench, Skipped, case
from tests.chaos.cases_mlflow import reconcile
from tests.chaos.places import Place, finish
from tests.chaos.proxies import TcpProxy

POSTGRES = os.environ.get("MUSWEEP_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
STATES = {"complete": "COMPLETE", "stopped": "PRUNED", "diverged": "PRUNED", "skipped": "PRUNED", "failed": "FAIL"}


@contextlib.contextmanager
def postgres() -> Generator[str]:
    """A database of one's own on the server there is."""
    import sqlalchemy

    name = f"musweep_chaos_{secrets.token_hex(4)}"
    admin = sqlalchemy.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    try:
        with admin.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    except sqlalchemy.exc.OperationalError as error:
        raise Skipped(f"no PostgreSQL at {POSTGRES.rpartition('@')[2]}") from error
    try:
        yield POSTGRES.rpartition("/")[0] + f"/{name}"
    finally:
        with admin.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def study(place: Place, url: str) -> list[str]:
    """What Optuna's database says that the journal does not: trials, their ends and objectives."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    try:
        found = optuna.load_study(study_name=place.folder.name, storage=storage).trials
    finally:
        storage.engine.dispose()
    shown = {t.number: (t.state.name, t.value if t.state.name == "COMPLETE" else None) for t in found}
    said = {n: (STATES[t.state], t.objective if t.state == "complete" else None) for n, t in place.trials().items()}
    wrong = [number for number in shown.keys() | said.keys() if shown.get(number) != said.get(number)]
    return [f"the study says something else of {len(wrong)} trials: {wrong[:5]}"] if wrong else []


@case(
    "16b",
    "PostgreSQL restarted, or its line stalls",
    "under MLflow and Optuna: a TCP proxy ends all connections and refuses new ones for seconds, then lets bytes stand",
)
def postgres_line(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        with postgres() as url, postgres() as studies:  # MLflow and Optuna each want a database of their own
            address = url.partition("@")[2].partition("/")[0]
            proxy = TcpProxy(int(address.partition(":")[2] or 5432))
            try:
                place = bench.place()
                line, shown = (one.replace(address, f"127.0.0.1:{proxy.port}") for one in (url, studies))
                place.respec({"mlflow": {"uri": line}})
                place.env["MUSWEEP_DATABASE"] = shown
                driver = place.start()
                injected = 0
                for mode, goal in (("refuse", 3000), ("stall", 9000)):
                    if place.wait_for(lambda place=place, goal=goal: place.updates() > goal, 120, driver):
                        proxy.mode = mode
                        injected += 1
                        place.wait_for(lambda: False, bench.random.uniform(2, 5), driver)
                        proxy.mode = "pass"
                code = finish(place, driver, 300)
                told = [*reconcile(place), *study(place, studies)]
                bench.judge(place, injected, code, failures=told, mlflow=url)
            finally:
                proxy.close()


class Office:
    """A queue in PostgreSQL, reached through a line that can be cut, for sweeps on this machine one after another."""

    def __init__(self, place: Place, url: str, port: int) -> None:
        address = url.partition("@")[2].partition("/")[0]
        self.place, self.url, self.storage = place, url, place.root / "shared"
        self.line = url.replace(address, f"127.0.0.1:{port}")
        target = {"kind": "local", "storage": str(self.storage), "queue": True, "room": {"sweeps": 1}}
        (place.root / "clusters.yaml").write_text(yaml.safe_dump({"here": {**target, "database": self.line}}))
        place.env |= {
            "MUSWEEP_CLUSTERS": str(place.root / "clusters.yaml"),
            "XDG_STATE_HOME": str(place.root / "state"),
        }

    def say(self, *words: str) -> str:
        """One command of musweep, to its end."""
        command = [sys.executable, "-m", "cluster.cli", *words]
        done = subprocess.run(
            command, cwd=self.place.root, env=self.place.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.returncode}: {done.stderr[-300:]}")
        return done.stdout

    def dispatcher(self) -> "subprocess.Popen[bytes]":
        words = ["queue", "run", "--to", "here", "--poll", "0.3", "--ttl", "5", "--until-empty"]
        return self.place.spawn([sys.executable, "-m", "cluster.cli", *words])

    def entries(self) -> list[dict]:
        return list(json.loads(self.say("queue", "--to", "here", "--all", "--json")))

    def begun(self) -> list:
        """Folders of sweeps that have journals, the first one first."""
        found = self.storage.glob("*/journal.jsonl")
        return [path.parent for path in sorted(found, key=lambda path: path.stat().st_ctime)]

    def updates(self, folder_number: int) -> int:
        folders = self.begun()
        if len(folders) <= folder_number:
            return 0
        self.place.folder = folders[folder_number]
        return self.place.updates()


@case(
    "Q",
    "the queue's dispatcher killed, its database away",
    "two sweeps in a queue in PostgreSQL, room for one; the leading dispatcher killed, all lines ended, then stalled",
)
def queue(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        with postgres() as url:
            proxy = TcpProxy(int(url.partition("@")[2].partition("/")[0].partition(":")[2] or 5432))
            place = bench.place({"mlflow": {"enabled": False}}, record=False)
            office = Office(place, url, proxy.port)
            try:
                for _again in range(2):
                    office.say("submit", str(place.root / "spec.yaml"), "--to", "here", "--again")
                first = office.dispatcher()
                place.wait_for(lambda office=office: office.updates(0) > 2000, 120, first)
                second = office.dispatcher()
                first.send_signal(signal.SIGKILL)
                first.wait()
                injected = 1
                for mode, sweep in (("refuse", 0), ("stall", 1)):
                    seen = place.wait_for(lambda office=office, sweep=sweep: office.updates(sweep) > 5000, 180, second)
                    proxy.mode = mode if seen else "pass"
                    injected += seen
                    place.wait_for(lambda: False, bench.random.uniform(4, 8), second)
                    proxy.mode = "pass"
                code = finish(place, second, 240)
                told = [f"the second dispatcher ended with {code}: {place.tail(2)}"] if code else []
                told += wrong_of(bench, office)
            finally:
                proxy.close()
                place.close()
            bench.outcome.identical = not any("differ" in words for words in told)
            bench.count(injected, told)


def wrong_of(bench: Bench, office: Office) -> list[str]:
    """What is wrong with the queue and its sweeps."""
    entries = office.entries()
    told = [f"{e['id']} is {e['state']}: {e['why']}" for e in entries if e["state"] != "finished"]
    told += [f"{e['id']} was started {e['starts']} times" for e in entries if e["starts"] != 1]
    if len(folders := office.begun()) != 2:
        told.append(f"{len(folders)} sweeps began, should be 2")
    for folder in folders:
        told += oracle.complaints(folder, office.place.spec["budget"]["trials"], bench.undisturbed(), None)
    if left := Counter(process.name() for process in office.place.workers()):
        told.append(f"workers were left: {dict(left)}")
    return told
