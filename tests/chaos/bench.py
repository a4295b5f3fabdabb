"""What cases share: places to disturb, the table of the undisturbed sweep, and the account of what was survived."""

import json
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import oracle
from tests.chaos.places import Place, finish


class Skipped(Exception):
    """What a case needs is not here."""


@dataclass
class Outcome:
    """What came of one case."""

    case: str
    title: str
    how: str
    injected: int = 0
    survived: int = 0
    lost_updates: int = 0
    """The most that one trial lost at once."""
    identical: bool | None = None
    """Whether every final table was the undisturbed one's, to the bit; None where there is none to compare with."""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def passed(self) -> bool:
        return not self.skipped and not self.failures and 0 < self.injected == self.survived


class Bench:
    """One case at work."""

    def __init__(self, outcome: Outcome, root: Path, seed: int, quick: bool, tables: dict[str, Any]) -> None:
        self.outcome, self.root, self.seed, self.quick = outcome, root, seed, quick
        self.random = random.Random(f"{outcome.case}/{seed}")
        self._tables = tables
        self._places: list[Place] = []

    def times(self, full: int, quick: int = 1) -> int:
        return quick if self.quick else full

    def place(self, spec: dict[str, Any] | None = None, **plan: Any) -> Place:
        """A new folder for a sweep, with MLflow's empty tables in it."""
        root = self.root / f"{self.outcome.case}-{len(self._places)}"
        root.mkdir()
        place = Place(root, spec, **plan)
        self._places.append(place)
        if place.spec.get("mlflow", {}).get("enabled", True) and "uri" not in place.spec.get("mlflow", {}):
            shutil.copy(self._empty_database(), root / "mlflow.db")
        return place

    def _empty_database(self) -> Path:
        path = self.root / "empty" / "mlflow.db"
        if not path.exists():
            import os
            import subprocess
            import sys

            path.parent.mkdir()
            code = f"from sweeps import tracking; tracking.connect('sqlite:///{path}')"
            subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ}, capture_output=True)
        return path

    def undisturbed(self, spec: dict[str, Any] | None = None) -> dict[int, Any]:
        """The table of the same sweep when nothing happens to it."""
        key = json.dumps(spec or {}, sort_keys=True)
        if key not in self._tables:
            root = self.root / f"undisturbed-{len(self._tables)}"
            root.mkdir()
            place = Place(root, {**(spec or {}), "mlflow": {"enabled": False}}, pace=0.0, record=False)
            code = finish(place, place.start())
            place.close()
            if code:
                raise RuntimeError(f"the undisturbed sweep failed with {code}: {place.tail()}")
            self._tables[key] = oracle.table(place.folder)
        return self._tables[key]

    def judge(
        self,
        place: Place,
        injected: int,
        code: int,
        *,
        spec: dict[str, Any] | None = None,
        compare: bool = True,
        mlflow: bool | str = True,
        bounded: bool | str = True,
        leftovers_s: float = 10.0,
        failures: list[str] | None = None,
    ) -> bool:
        """Hold a finished sweep against the oracle, and end what it left.

        Args:
            bounded: whether no trial may go back beyond its last rung; "kept": its last checkpoint that was whole.
        """
        found = list(failures or ())
        if code:
            found.append(f"the last command ended with {code}: {place.tail(2)}")
        undisturbed = self.undisturbed(spec) if compare else None
        database = f"sqlite:///{place.root}/mlflow.db" if mlflow is True else mlflow or None
        try:
            found += oracle.complaints(place.folder, place.spec["budget"]["trials"], undisturbed, database)
            most, _, beyond = oracle.losses(place.inside, place.folder, rungs=bounded != "kept")
            self.outcome.lost_updates = max(self.outcome.lost_updates, most)
            found += beyond[:2] if bounded else []
            if undisturbed is not None:
                same = not oracle.differences(oracle.table(place.folder), undisturbed)
                self.outcome.identical = same and self.outcome.identical is not False
        except Exception as error:
            found.append(f"the folder cannot be read: {type(error).__name__}: {error}")
        if left := place.quiesce(leftovers_s):
            found.append(f"processes were left after {leftovers_s:g} s: {sorted(set(left))}")
        place.close()
        return self.count(injected, found)

    def count(self, injected: int, failures: list[str]) -> bool:
        """Enter so many injections, all survived or all not."""
        self.outcome.injected += injected
        if not injected:
            failures = [*failures, "nothing was injected"]
        if failures:
            self.outcome.failures += failures
        else:
            self.outcome.survived += injected
        return not failures

    def note(self, words: str) -> None:
        self.outcome.notes.append(words)

    def close(self) -> None:
        for place in self._places:
            place.close()


Case = Callable[[Bench], None]
CASES: dict[str, tuple[str, str, Case]] = {}


def case(number: str, title: str, how: str) -> Callable[[Case], Case]:
    """Enter a case under its number in the list of faults."""

    def enter(function: Case) -> Case:
        assert number not in CASES, number
        CASES[number] = title, how, function
        return function

    return enter


def run_case(number: str, seed: int, quick: bool, tables: dict[str, Any], keep: Path | None = None) -> Outcome:
    """Run one case; whatever goes wrong is in its outcome."""
    title, how, function = CASES[number]
    outcome = Outcome(number, title, how)
    root = keep or Path(tempfile.mkdtemp(prefix="mc-"))
    root.mkdir(parents=True, exist_ok=True)
    bench = Bench(outcome, root, seed, quick, tables)
    started = time.monotonic()
    try:
        function(bench)
    except Skipped as reason:
        outcome.skipped = str(reason)
    except Exception as error:
        outcome.injected = max(outcome.injected, 1)
        outcome.failures.append(f"{type(error).__name__}: {error} ({traceback.format_exc().splitlines()[-3].strip()})")
    finally:
        bench.close()
        outcome.seconds = round(time.monotonic() - started, 1)
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
    return outcome


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "passed": outcome.passed}
