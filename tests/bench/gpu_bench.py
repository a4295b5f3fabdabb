"""Trials on one GPU: whether they are right, how fast they are, and how near that is to what the card can do.

Stands alone: PyTorch, numpy and this checkout are enough. Parts, each stored as soon as it is known (`--json`):

equality: updates of the stacked engine in float64 against `trainers.serial` on the CPU, from the same states.
peaks: the card's fastest matrix products and copies, measured here, not looked up.
speed: trial-updates per second of K trials, launched one kernel at a time (eager) and as a CUDA graph, and of the
usual PyTorch body, alone and several processes at once. Median of rounds, the device waited for around each.

How near: an update needs `NetConfig.flops` times the batch, and moves at least what `traffic` counts. The larger of
both over the peaks is the least time that it could take; the table has both as shares of the time that it took, and
`binds` names the larger. If that is under a third neither binds, but the start of kernels or products too small for
the card.
"""

# ruff: noqa: E402 - what is imported is found from this file's own place

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))  # this checkout's trainers, whatever is installed
sys.path.append(str(HERE.parent))

from gpu_cases import CASES, QUICK, Case, Usual, autoencoder, random_task, recurrent, trial

from trainers.config import PRECISIONS, NetConfig
from trainers.data import Data
from trainers.devices import described
from trainers.memory import broken
from trainers.serial import SerialTrial
from trainers.stack import StackedEngine
from trainers.stack_replay import Record, graphed, plain
from trainers.state import TrialState, initial_state

BOUNDS = (1e-12, 1e-10)
"""Of a difference in float64, relative to the weights; the second is for a GPU, whose products add up otherwise."""
BOUND_FLOAT32 = 1e-4
"""Likewise, after so many updates in float32."""
IN_A_ROW = 40
"""Updates that are recorded whole, not only one by one."""
ROUNDS = 5
KS = (1, 4, 16, 64, 256, 512)
WEIGHTS_PER_TRIAL = 5
"""Copies of its weights that a stack keeps of a trial: theta and velocity at rest and in training, and a point."""
HEAD = (
    f"{'net':11} {'K':>4} {'way':12} {'products':8}{'updates/s':>12} {'over one':>9} {'TFLOP/s':>8} {'GB/s':>8}"
    "  arithm. memory  binds"
)
EQUAL: tuple[tuple[str, NetConfig, tuple[str, ...]], ...] = (
    ("autoencoder, momentum", autoencoder("logistic", 30, 24, 9), ("sgd", "cm", "nag")),
    ("linear outputs, momentum", autoencoder("squared", 17, 33, 6), ("nag", "cm", "sgd")),
    ("softmax, adam", NetConfig((20, 33, 32, 10), ("relu", "softsign"), "softmax"), ("adam", "adamw")),
    ("residual, diagonal", NetConfig((12, 16, 16, 5), ("tanh", "tanh"), "softmax", eta=(0.7,)), ("diagonal",)),
    ("recurrent, momentum", recurrent(2, 20, 1, 12), ("nag", "cm", "sgd")),
    ("recurrent, every step, adam", recurrent(7, 20, 6, 12, every=True), ("adamw", "adam")),
)


# ---- equality


def differences(
    name: str, net: NetConfig, kinds: Sequence[str], device: str, updates: int, in_step: bool
) -> dict[str, Any]:
    """Trials of several methods against the serial ones: one update from their states, and many in a row.

    Of one seed and at one update (`in_step`), or not. Also many in float32, whose kernels are others on a GPU.
    """
    case, task = Case(name, net, 8), random_task(net, 60)
    here, there, single = (Data(task, *at) for at in (("cpu", "float64"), (device, "float64"), (device, "float32")))
    configs = [
        trial(case, number, kinds[number % len(kinds)], 0.02, 0 if in_step else number % 2) for number in range(5)
    ]
    twins = [SerialTrial(config, here) for config in configs]
    for twin in twins:
        twin.advance(4 if in_step else twin.config.number % 3 * 4)
    record = graphed if device.startswith("cuda") else plain

    def engine(data: Data) -> StackedEngine:
        made = StackedEngine(net, case.batch, data, configs[0].method.family, record=record)
        for twin in twins:
            made.add(twin.config, twin.state())
        return made

    again = engine(there)
    each = _advanced(again, twins, 1)
    for _ in range(updates - 1):
        for twin in twins:
            again.remove(twin.config.number)
            again.add(twin.config, twin.state())
        each = max(each, _advanced(again, twins, 1))
    many, rounded = (_advanced(engine(data), twins, IN_A_ROW) for data in (there, single))
    bounds = BOUNDS if device.startswith("cuda") else BOUNDS[:1]
    found = {"one_update": each, "in_a_row": many, "in_a_row_float32": rounded}
    within = next((bound for bound in bounds if max(each, many) < bound and rounded < BOUND_FLOAT32), None)
    return {"case": f"{name}, {'in step' if in_step else 'apart'}", **found, "within": within}


def _advanced(engine: StackedEngine, twins: Sequence[SerialTrial], updates: int) -> float:
    """Make so many updates of both; returns the largest distance, relative to the weights."""
    engine.advance({twin.config.number: twin.update + updates for twin in twins})
    for twin in twins:
        twin.advance(updates)
    return max(distance(engine.state(twin.config.number), twin.state()) for twin in twins)


def distance(state: TrialState, twin: TrialState) -> float:
    """Norm of the difference over norm of the weights, the larger of theta's and the running means'."""
    assert state.update == twin.update
    pairs = [(state.params, twin.params), (state.velocity, twin.velocity), (state.second or [], twin.second or [])]
    flat = [
        [torch.cat([t.flatten().cpu() for pair in each for t in pair]) for each in both] for both in pairs if both[1]
    ]
    apart = torch.stack([(one - other).norm() for one, other in flat]).max() / flat[0][1].norm()
    return float(apart.nan_to_num(nan=torch.inf))


# ---- what a device can do, and what an update asks of it


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(torch.device(device))


def rounds(run: Callable[[int], object], seconds: float, device: str) -> list[float]:
    """Seconds of one unit of `run(units)`, in each of some rounds that take about so many seconds in all."""

    def once(units: int) -> float:
        wait(device)
        start = time.perf_counter()
        run(units)
        wait(device)
        return (time.perf_counter() - start) / units

    once(4)  # libraries and recordings make themselves ready
    units = 4
    for _ in range(2):  # the second time with recordings of many updates
        fit = int(seconds / ROUNDS / max(1e-9, once(units)))
        units = max(1, min(8192, fit - fit % (256 if fit >= 256 else 32 if fit >= 32 else 1)))
    return [once(units) for _ in range(ROUNDS)]


def peaks(device: str, quick: bool, precisions: Sequence[str], seconds: float) -> dict[str, float]:
    """FLOP/s of the fastest large matrix product of each precision, and bytes/s read and written by a large copy."""
    found = dict.fromkeys(precisions, 0.0)
    for precision, n in product(precisions, (256,) if quick else (4096, 8192, 16384)):
        a, b, out = (torch.randn(n, n, device=device) for _ in range(3))
        if precision == "bf16":
            a, b, out = a.bfloat16(), b.bfloat16(), out.bfloat16()
        multiply = partial(torch.mm, a, b, out=out)
        products_in(precision)
        spent = rounds(lambda times, call=multiply: [call() for _ in range(times)], seconds, device)
        found[precision] = max(found[precision], 2 * n**3 / min(spent))
    source = torch.randn(1 << (20 if quick else 29), device=device)
    target = torch.empty_like(source)
    spent = rounds(lambda times: [target.copy_(source) for _ in range(times)], seconds, device)
    return {**found, "copy": 2 * source.nbytes / min(spent)}


def products_in(precision: str) -> None:
    """Have plain PyTorch's float32 matrix products made in tf32 from now on, or not."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def traffic(net: NetConfig, batch: int) -> tuple[int, int]:
    """Bytes that an update of one NAG trial in float32 moves at least, if no cache keeps any: of state, of activations.

    Of a weight 7 numbers: the point is read by both passes and written for the next update, theta and the velocity
    are read and written. Of a unit and example 6: its output is written, read by the next layer and by its gradient,
    its delta is written and read by two products.
    """
    hidden, outputs = sum(net.widths[1:-1]), net.widths[-1]
    steps = max(1, net.steps)
    units = steps * hidden + (steps if net.every_step else 1) * outputs
    return 4 * 7 * net.parameters, 4 * 6 * units * batch


def judged(case: Case, rate: float, precision: str, peak: dict[str, float]) -> dict[str, Any]:
    """What so many trial-updates per second come to, and which peak they are nearest to."""
    flops, (state, activations) = case.net.flops * case.batch, traffic(case.net, case.batch)
    shares = {
        "arithmetic": rate * flops / peak[precision],
        "memory": rate * (state + activations) / peak["copy"],
    }
    nearest = max(shares, key=lambda name: shares[name])
    return {
        "tflops": rate * flops / 1e12,
        "gbytes_per_s": rate * (state + activations) / 1e9,
        "state_gbytes_per_s": rate * state / 1e9,
        "shares": shares,
        "binds": nearest if shares[nearest] > 1 / 3 else "neither",
    }


# ---- speed


def stack(case: Case, k: int, data: Data, precision: str, record: Record | None) -> StackedEngine:
    """K trials, NAG and CM in turn, that see the same batches."""
    engine = StackedEngine(case.net, case.batch, data, precision=precision, record=record)
    state = initial_state(trial(case, 0, "nag", 1e-6), device=data.device)
    for number in range(k):
        engine.add(trial(case, number, ("nag", "cm")[number % 2], 1e-6), state)
    return engine


def stacked_rate(
    case: Case, k: int, data: Data, precision: str, record: Record | None, seconds: float
) -> dict[str, Any]:
    """Trial-updates per second of a stack, or why there are none."""
    device, weights = str(data.device), 4 * k * case.net.parameters * WEIGHTS_PER_TRIAL
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        if weights > (limit := torch.cuda.mem_get_info()[1]):
            return {"note": f"does not fit: {weights / 2**30:.0f} GiB of weights, the card has {limit / 2**30:.0f}"}
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            engine = stack(case, k, data, precision, record)
            spent = rounds(
                lambda n: engine.advance({number: engine.update(number) + n for number in range(k)}), seconds, device
            )
    except torch.OutOfMemoryError:
        return {"note": "does not fit: out of memory"}
    notes = [str(each.message) for each in told if issubclass(each.category, UserWarning)]
    lost = sum(engine.diverged_at(number) is not None for number in range(k))
    notes += [f"{lost} trials diverged: not to be trusted"] if lost else []
    found: dict[str, Any] = {"note": notes[0]} if notes else {}
    if device.startswith("cuda"):
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return {**found, "rates": sorted(k / each for each in spent)}


def together(case: Case, processes: int, precision: str, seconds: float, device: str) -> dict[str, Any]:
    """Trial-updates per second of so many processes at once, each with the usual body of one trial."""
    command = [sys.executable, __file__, "--worker", case.name, "--device", device, "--seconds", str(seconds)]
    started = [
        subprocess.Popen([*command, "--precision", precision], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        pipes = [(one.stdin, one.stdout) for one in started]
        ready = all(out is not None and out.readline() == "ready\n" for _, out in pipes)
        if not ready:
            return {"note": "a process ended before it could begin"}
        for into, _ in pipes:
            assert into is not None
            into.write("go\n")
            into.flush()
        rates = [out.readline() for _, out in pipes if out is not None]
        return {"rates": [sum(map(float, rates))]} if all(rates) else {"note": "a process ended before the others"}
    finally:
        for one in started:
            one.kill()
            one.communicate()


def work(case: Case, precision: str, seconds: float, device: str) -> None:
    """Be one of the processes of `together`."""
    products_in(precision)
    usual = Usual(case, Data(random_task(case.net, 2000), device), precision, fused=True)
    usual.run(10)
    wait(device)
    print("ready", flush=True)
    sys.stdin.readline()
    start, made = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        usual.run(20)
        wait(device)
        made += 20
    print(made / (time.perf_counter() - start), flush=True)


# ---- the run


class Book:
    """What was found, on the screen as a table and in a file after every part."""

    def __init__(self, path: Path | None, device: str, settings: dict[str, Any]) -> None:
        self._path = path
        self.found: dict[str, Any] = {
            "machine": described(device), "settings": settings, "equality": [], "peaks": {}, "cells": [],
        }  # fmt: skip

    def keep(self) -> None:
        if self._path is not None:
            partly = self._path.with_name(f"{self._path.name}.part")
            partly.write_text(json.dumps(self.found, indent=1) + "\n")
            partly.replace(self._path)

    def cell(self, case: Case, k: int, way: str, precision: str, measured: dict[str, Any], alone: float | None) -> None:
        rates = measured.pop("rates", None)
        row = {"net": case.name, "batch": case.batch, "K": k, "way": way, "precision": precision, **measured}
        line = f"{case.name:11} {k:4} {way:12} {precision:8}"
        if rates:
            rate = statistics.median(rates)
            row |= {"trial_updates_per_s": rate, "best": max(rates)}
            row |= judged(case, rate, precision, self.found["peaks"])
            row["over_one_process"] = rate / alone if alone else None
            over = f"{rate / alone:8.2f}x" if alone else " " * 9
            shares = "  ".join(f"{100 * share:5.1f}%" for share in row["shares"].values())
            line += f"{rate:12,.0f} {over} {row['tflops']:8.2f} {row['gbytes_per_s']:8.1f}  {shares}  {row['binds']}"
        print(f"{line}  {row.get('note', '')}".rstrip(), flush=True)
        self.found["cells"].append(row)
        self.keep()


def speeds(book: Book, case: Case, precision: str, arguments: argparse.Namespace, until: float) -> None:
    """One net's rows of the table."""
    device, seconds = arguments.device, arguments.seconds
    if time.monotonic() > until:
        book.cell(case, 0, "all", precision, {"note": "left out: no time (--minutes)"}, None)
        return
    data = Data(random_task(case.net, 500 if arguments.quick else 10_000), device)
    products_in(precision)
    usual = {name: Usual(case, data, precision, bool(name)) for name in ("", ", fused")}
    rates = {name: [1 / each for each in rounds(one.run, seconds, device)] for name, one in usual.items()}
    alone = max(map(statistics.median, rates.values()))  # all are held against the faster one
    for name, each in rates.items():
        book.cell(case, 1, f"usual{name}", precision, {"rates": each}, alone)
    if arguments.processes > 1 and time.monotonic() < until:
        found = together(case, arguments.processes, precision, max(1.0, seconds), device)
        book.cell(case, arguments.processes, "processes", precision, found, alone)
    graph = device.startswith("cuda")
    ways: dict[str, Record | None] = {"eager": plain, "graph": graphed} if graph else {"host": None, "eager": plain}
    for k in arguments.ks:
        for way, record in ways.items():
            if case.net.steps and precision != "float32":
                found = {"note": "recurrent nets are trained in float32 only"}
            elif time.monotonic() > until:
                found = {"note": "left out: no time (--minutes)"}
            else:
                found = stacked_rate(case, k, data, precision, record, seconds)
            book.cell(case, k, way, precision, found, alone)
            gc.collect()
            if graph:
                torch.cuda.empty_cache()


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    names = [case.name for case in CASES + QUICK]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="file for the result, written again after every part")
    parser.add_argument("--quick", action="store_true", help="tiny nets, a fraction of a second each")
    parser.add_argument("--only", nargs="+", choices=names, help="nets to measure")
    parser.add_argument("--ks", nargs="+", type=int, help="numbers of trials")
    parser.add_argument("--seconds", type=float, help="for each row of the table")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further row is begun")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float32"])
    parser.add_argument("--processes", type=int, help="at once on the device, one trial each; 0: leave out")
    parser.add_argument("--worker", choices=names, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if reason := broken(arguments.device):
        parser.error(f"--device {arguments.device}: {reason}; on a CPU: --device cpu --quick")
    if not arguments.device.startswith("cuda") and arguments.precision != ["float32"]:
        parser.error(
            f"--precision {' '.join(arguments.precision)}: on {arguments.device} only float32; take --device cuda"
        )
    arguments.ks = arguments.ks or ([1, 3] if arguments.quick else list(KS))
    arguments.seconds = arguments.seconds or (0.02 if arguments.quick else 1.5)
    if arguments.processes is None:
        arguments.processes = 0 if arguments.quick else 8
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, store; returns 1 if the engine does not equal the serial trainer."""
    arguments = parsed(words)
    device = arguments.device
    if arguments.worker:
        case = next(case for case in CASES + QUICK if case.name == arguments.worker)
        work(case, arguments.precision[0], arguments.seconds, device)
        return 0
    until = time.monotonic() + 60 * arguments.minutes
    shown = {name: getattr(arguments, name) for name in ("quick", "ks", "seconds", "precision", "processes")}
    book = Book(arguments.json, device, shown)
    print(json.dumps(book.found["machine"]))
    for (name, net, kinds), in_step in product(EQUAL, (True, False)):
        row = differences(name, net, kinds, device, 3 if arguments.quick else 12, in_step)
        told = f"one update {row['one_update']:.0e}, {IN_A_ROW} in a row {row['in_a_row']:.0e}"
        verdict = f"within {row['within']:.0e}" if row["within"] else "NOT EQUAL"
        print(f"{row['case']:36} {told}, in float32 {row['in_a_row_float32']:.0e}: {verdict}", flush=True)
        book.found["equality"].append(row)
        book.keep()
    book.found["peaks"] = peaks(device, arguments.quick, arguments.precision, arguments.seconds / 3)
    for name, value in book.found["peaks"].items():
        print(f"peak      {name:8} {value / 1e12:8.2f} {'TB/s' if name == 'copy' else 'TFLOP/s'}")
    book.keep()
    print(HEAD)
    named = [case for case in CASES + QUICK if case.name in (arguments.only or ())]
    for case, precision in product(named or (QUICK if arguments.quick else CASES), arguments.precision):
        speeds(book, case, precision, arguments, until)
    return 0 if all(row["within"] for row in book.found["equality"]) else 1


if __name__ == "__main__":
    sys.exit(main())
