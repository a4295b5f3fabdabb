"""A row of S13 Table 1 in full: nine columns at six learning rates, 750,000 updates of 200, as one stack of 54 trials.

In pieces: each run of the same command goes on where the last one stopped (`--minutes`), from `state.npz` in the
folder; `table.json` beside it has the table, what it is made of, and the machines. Stands alone: PyTorch, numpy and
this checkout are enough for MNIST; the look-alikes of the other two rows also need pyarrow, that of Faces scipy.

As the paper has it (SCIENCE 1.3): sparse init, mu by eq. 5, at most .9 in the last 1,000 updates; of each column the
learning rate with the least final error on all training examples counts. Measured is one seed: all trials begin with
the same weights and see the same batches. Those that diverge are dropped and named. `--updates` rehearses with fewer,
the steps of mu and the last phase shortened in proportion.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's trainers, whatever is installed

from trainers import tasks
from trainers.checkpoint import pack, unpack
from trainers.config import PRECISIONS, TASKS, InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.data import Data
from trainers.devices import described
from trainers.memory import broken
from trainers.stack import StackedEngine
from trainers.state import TrialState
from trainers.tasks import Split, Task, files, mnist

UPDATES, BATCH, MU_STEP, TAIL = 750_000, 200, 250, 1_000
RATES = (0.05, 0.01, 0.005, 0.001, 0.0005, 0.0001)
COLUMNS: Mapping[str, tuple[str, float]] = {
    "0 (SGD)": ("sgd", 0.0),
    ".9N": ("nag", 0.9), ".99N": ("nag", 0.99), ".995N": ("nag", 0.995), ".999N": ("nag", 0.999),
    ".9M": ("cm", 0.9), ".99M": ("cm", 0.99), ".995M": ("cm", 0.995), ".999M": ("cm", 0.999),
}  # fmt: skip
SOURCE = "Sutskever, Martens, Dahl, Hinton 2013, PMLR 28(3):1139-1147, Table 1"
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "mnist": (2.1, 1.0, 0.73, 0.75, 0.80, 1.0, 0.77, 0.84, 0.90),
    "curves": (0.48, 0.16, 0.096, 0.091, 0.074, 0.15, 0.10, 0.10, 0.10),
    "faces": (36.4, 14.2, 8.5, 7.8, 7.7, 15.3, 8.7, 8.3, 9.3),
}
"""Of each row the training squared error in every column, in their order."""
TASK_OF = {"mnist": "mnist-ae", "curves": "curves", "faces": "faces"}
REPORTS = 150
STEP_S = 5.0
"""Between two looks at the clock."""


@dataclass(frozen=True)
class Plan:
    """What the numbers depend on: a folder holds the run of one plan."""

    row: str
    updates: int
    precision: str
    encoder: tuple[int, ...]
    examples: int | None
    seed: int

    @property
    def every(self) -> int:
        """Updates between two measurements."""
        return max(1, self.updates // REPORTS)

    def trials(self) -> list[TrialConfig]:
        """Column by column, rate by rate."""
        share = self.updates / UPDATES
        mu_step, tail = (max(1, round(whole * share)) for whole in (MU_STEP, TAIL))
        info = TASKS[TASK_OF[self.row]]
        widths = self.encoder + self.encoder[-2::-1]
        hidden = tuple("linear" if at == len(self.encoder) - 2 else "sigmoid" for at in range(len(widths) - 2))
        net, init, seed = NetConfig(widths, hidden, info.loss), InitConfig("sparse"), SeedConfig(self.seed)
        return [
            TrialConfig(
                number, net, init, MethodConfig(kind, lr, mu, mu_step, tail_updates=tail), self.updates, BATCH, seed
            )
            for number, ((kind, mu), lr) in enumerate(product(COLUMNS.values(), RATES))
        ]


class Folder:
    """A run's files, and what is known of it so far."""

    def __init__(self, path: Path, plan: Plan) -> None:
        """Take up what is there. Raises ValueError if it is another plan's, or damaged."""
        self._table, self._state, self.plan = path / "table.json", path / "state.npz", plan
        self.update = 0
        self.states: dict[int, TrialState] | None = None
        """Of the trials that had not diverged, None before a first piece has ended."""
        self.pieces: list[dict[str, Any]] = []
        self.errors: list[tuple[int, list[float | None]]] = []
        """Training squared error of every trial at an update; None of those that diverged."""
        self.diverged: dict[int, int] = {}
        """The update at which a trial did."""
        self.source = ""
        path.mkdir(parents=True, exist_ok=True)
        if not self._state.exists():
            return
        found = json.loads(self._table.read_text())
        mine = json.loads(json.dumps(asdict(plan)))
        if found["plan"] != mine:
            other = {name: value for name, value in found["plan"].items() if value != mine.get(name)}
            raise ValueError(f"{path}: holds a run with {other}: give the same, or another --folder")
        self.states = unpack(self._state.read_bytes())
        # The table is written first: a run that was killed before the states were is taken up where they are.
        self.update = min((state.update for state in self.states.values()), default=found["update"])
        self.pieces = [each for each in found["pieces"] if each["to"] <= self.update]
        self.errors = [(update, errors) for update, errors in found["errors"] if update <= self.update]
        self.diverged = {int(n): at for n, at in found["diverged"].items() if int(n) not in self.states}

    def keep(self, states: dict[int, TrialState]) -> None:
        """Write both files, each whole or not at all."""
        found = {
            "plan": asdict(self.plan), "data": self.source, "update": self.update, "published_in": SOURCE,
            "table": self.table(), "curves": self.curves(), "pieces": self.pieces,
            "diverged": self.diverged, "errors": self.errors,
        }  # fmt: skip
        text = json.dumps(found, indent=1, allow_nan=False)
        for path, content in ((self._table, text.encode()), (self._state, pack(states))):
            partly = path.with_name(f"{path.name}.part")
            with partly.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partly.replace(path)

    def table(self) -> dict[str, dict[str, Any]]:
        """Of each column the least error over rates at the last measurement, and what was published."""
        update, errors = self.errors[-1] if self.errors else (0, [])
        found = {}
        for place, name in enumerate(COLUMNS):
            best = _best(errors, place)
            numbers = range(place * len(RATES), (place + 1) * len(RATES))
            found[name] = {
                "measured": None if best is None else errors[best],
                "measured_after_updates": update,
                "at_lr": None if best is None else RATES[best % len(RATES)],
                "published": PUBLISHED[self.plan.row][place],
                "diverged": {str(RATES[n % len(RATES)]): self.diverged[n] for n in numbers if n in self.diverged},
            }
        return found

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Of each column [update, least error over rates]; nothing where all rates had diverged."""
        return {
            name: [(u, errors[best]) for u, errors in self.errors if (best := _best(errors, place)) is not None]
            for place, name in enumerate(COLUMNS)
        }

    def show(self, look_alike: bool) -> None:
        """Print the table."""
        whole = self.update == self.plan.updates == UPDATES
        sofar = "" if whole else f", NOT the {UPDATES:,} of the paper"
        print(f"\n{self.plan.row}: training squared error after {self.update:,} updates{sofar}")
        print(f"data: {self.source}; products: {self.plan.precision}; seed {self.plan.seed}, measured here")
        if look_alike or self.plan.examples or self.plan.encoder != TASKS[TASK_OF[self.plan.row]].encoder:
            print("Not the paper's data or net: measured and published are not comparable.")
        print(
            f"published: {SOURCE}\n{'column':8} {'measured':>10} {'at lr':>7} {'after':>8} {'published':>10}  diverged"
        )
        for name, cell in self.table().items():
            lost = ", ".join(f"{lr} at {update:,}" for lr, update in cell["diverged"].items())
            value = "all lost" if len(cell["diverged"]) == len(RATES) else "not yet"
            value = value if cell["measured"] is None else f"{cell['measured']:.4g}"
            rate, after = cell["at_lr"] or "", f"{cell['measured_after_updates']:,}"
            print(f"{name:8} {value:>10} {rate:>7} {after:>8} {cell['published']:>10}  {lost}".rstrip())


def _best(errors: Sequence[float | None], column: int) -> int | None:
    """The trial of a column with the least error, if any has one."""
    mine = range(column * len(RATES), min(len(errors), (column + 1) * len(RATES)))
    known = {number: error for number in mine if (error := errors[number]) is not None}
    return min(known, key=lambda number: known[number], default=None)


def data_of(plan: Plan, folder: Path | None) -> Task:
    """The row's training examples. Raises ValueError where they are not, or cannot be made here."""
    name = TASK_OF[plan.row]
    if plan.row != "mnist":
        chosen = {"examples": plan.examples} | ({"file": str(folder)} if folder else {})
        try:
            return tasks.load(name, chosen)
        except ModuleNotFoundError as error:
            raise ValueError(f"--row {plan.row}: needs the package {error.name}; --row mnist does not") from None
    folder = folder or files.prepared("mnist")
    if folder is None:
        raise ValueError(
            f"--row mnist: no data: give the folder of {', '.join(mnist.FILES)} as --data, or set "
            "MUSWEEP_DATA to the folder that holds it as mnist"
        )
    read = mnist.read(folder)
    inputs = read.inputs[: plan.examples or read.counts[0]]
    split = Split(inputs, inputs)
    source = "images in the format of MNIST" if read.look_alike else "MNIST"  # and not whose folder it was in
    return Task(TASKS[name], split, split, split, f"{source}, {len(inputs):,} examples", read.look_alike, False)


class Piece:
    """Part of a run, in this process."""

    def __init__(self, folder: Folder, task: Task, device: str) -> None:
        plan, self.folder, self.device = folder.plan, folder, device
        folder.source = task.source
        self.data = Data(task, device)
        trials = plan.trials()
        self.engine = StackedEngine(trials[0].net, BATCH, self.data, precision=plan.precision)
        for trial in trials:
            if folder.states is None:
                self.engine.add(trial)
            elif trial.number in folder.states:
                self.engine.add(trial, folder.states[trial.number])
        folder.states = None  # the engine has copies
        self._told = {**described(device), "from": folder.update}
        self._began = time.monotonic()

    def train(self, deadline: float, save_every_s: float) -> None:
        """Train to the end or until then, a few updates at least."""
        folder, plan = self.folder, self.folder.plan
        size, saved = 4, time.monotonic()
        while folder.update < plan.updates and self.engine.numbers():
            report = folder.update - folder.update % plan.every + plan.every
            end = min(plan.updates, report, folder.update + size)
            start = time.monotonic()
            self.engine.advance(dict.fromkeys(self.engine.numbers(), end))
            size = max(1, int(STEP_S * (end - folder.update) / max(1e-6, time.monotonic() - start)))
            size -= size % 256 if size > 256 else 0  # whole recordings
            folder.update = end
            if end in (report, plan.updates):
                self._measure()
            if time.monotonic() > deadline:
                break
            if time.monotonic() - saved > save_every_s:
                self.save()
                saved = time.monotonic()
        self.save()

    def _measure(self) -> None:
        """Add a row of errors; let go of what has diverged."""
        folder, engine = self.folder, self.engine
        numbers = engine.numbers()
        for number in numbers:
            if (at := engine.diverged_at(number)) is not None:
                folder.diverged[number] = at
                engine.remove(number)
        errors: list[float | None] = [None] * len(COLUMNS) * len(RATES)
        numbers = engine.numbers()
        measured = engine.evaluate(numbers, self.data.train)["squared_error"].tolist() if numbers else []
        for number, error in zip(numbers, measured, strict=True):
            errors[number] = error if math.isfinite(error) else None
        folder.errors.append((folder.update, errors))
        known = [error for error in errors if error is not None]
        print(
            f"{folder.update:8,} updates  {len(numbers)} trials  least error {min(known, default=math.nan):.4g}  "
            f"{time.monotonic() - self._began:.0f} s",
            flush=True,
        )

    def save(self) -> None:
        """Keep where all trials stand."""
        told = {**self._told, "to": self.folder.update, "seconds": round(time.monotonic() - self._began, 1)}
        self.folder.pieces = [each for each in self.folder.pieces if each["to"] <= told["from"]] + [told]
        self.folder.keep({number: self.engine.state(number) for number in self.engine.numbers()})


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=list(TASK_OF), default="mnist")
    parser.add_argument("--folder", type=Path, help="where the run is kept; default runs/table1-ROW")
    parser.add_argument("--minutes", type=float, default=9.5, help="of this piece, reading and writing included")
    parser.add_argument("--save-minutes", type=float, default=4.0, help="between two writings within a piece")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of products")
    parser.add_argument("--data", type=Path, help="folder of MNIST's files, or the .mat file of another row")
    parser.add_argument("--updates", type=int, default=UPDATES, help="for a rehearsal")
    parser.add_argument("--examples", type=int, help="for a rehearsal: only the first so many")
    parser.add_argument("--encoder", type=int, nargs="+", help="for a rehearsal: widths after the inputs'")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(words)
    for name, least in (("updates", 1), ("examples", BATCH)):
        if (value := getattr(arguments, name)) is not None and value < least:
            parser.error(f"--{name} {value}: {least} or more")
    if reason := broken(arguments.device):
        parser.error(f"--device {arguments.device}: {reason}; on a CPU: --device cpu")
    arguments.error = parser.error
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Train a piece and print the table so far; returns 0 when the run is complete, else 3."""
    began = time.monotonic()
    arguments = parsed(words)
    row = arguments.row
    encoder = TASKS[TASK_OF[row]].encoder
    if arguments.encoder:
        encoder = (encoder[0], *arguments.encoder)
    plan = Plan(row, arguments.updates, arguments.precision, encoder, arguments.examples, arguments.seed)
    try:
        folder = Folder(arguments.folder or Path("runs", f"table1-{row}"), plan)
        task = data_of(plan, arguments.data)
    except ValueError as error:
        arguments.error(str(error))
    piece = Piece(folder, task, arguments.device)
    # What it takes to write all states, at 200 MB/s, and to look at the clock.
    weights = sum(trial.net.parameters for trial in plan.trials())
    deadline = began + 60 * arguments.minutes - 8 * weights / 2e8 - 2 * STEP_S
    piece.train(deadline, 60 * arguments.save_minutes)
    folder.show(task.look_alike)
    done = folder.update == plan.updates or not piece.engine.numbers()
    print("\ncomplete" if done else "\nnot complete: the same command goes on from here")
    return 0 if done else 3


if __name__ == "__main__":
    sys.exit(main())
