"""How often the comparison is wrong, and how often it finds what is there: simulated verdicts, JSON and a table.

Two arms of 6, 10 or 20 runs. Log errors have mean 0 and standard deviation SD times a shape of mean 0 and deviation 1;
some runs are stuck with a given chance. What is counted is the verdict of `sweeps.compare.contrast`, all of it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.compare import Outcomes, contrast, contrasts
from sweeps.comparison import Contrast

MARGIN = 0.1
Shape = Callable[[np.random.Generator, int], Any]

SHAPES: dict[str, Shape] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "skewed": lambda rng, n: rng.standard_exponential(n) - 1,
    "skewed, heavy tail": lambda rng, n: (rng.lognormal(0, 1, n) - math.exp(0.5)) / math.sqrt(math.e**2 - math.e),
    "skewed, other way": lambda rng, n: 1 - rng.standard_exponential(n),
    "two basins": lambda rng, n: (
        (rng.standard_normal(n) + 4 * (rng.random(n) < 0.3) - 1.2) / math.sqrt(1 + 16 * 0.3 * 0.7)
    ),
}
"""Laws of mean 0 and deviation 1."""


@dataclass(frozen=True)
class Case:
    """One line of the table: two arms and which verdicts are counted."""

    what: str
    """null, gap, margin, ..."""
    shape: str = "normal"
    stuck: tuple[float, float] = (0.0, 0.0)
    """Chance of a stuck run of a and of b."""
    sd: tuple[float, float] = (0.15, 0.15)
    """Of the log error of a's and of b's finishers."""
    ratio: float = 1.0
    """True ratio of geometric means, a over b."""
    count: tuple[str, ...] = ("better", "worse")

    def outcomes(self, rng: np.random.Generator, seeds: int) -> tuple[Outcomes, Outcomes]:
        """One simulated pair of arms."""
        arms = []
        for name, stuck, sd, middle in zip("ab", self.stuck, self.sd, (math.log(self.ratio), 0.0), strict=True):
            logs = middle + sd * SHAPES[self.shape](rng, seeds)
            lost = rng.random(seeds) < stuck
            values = tuple(float(each) for each in np.exp(logs))
            arms.append(Outcomes(name, name, values, tuple(bool(each) for each in lost)))
        return arms[0], arms[1]


EQUIVALENT = ("equivalent",)
BETTER = ("better",)
STUCK = (0.2, 0.3, 0.5)


def _gap(sd: float) -> float:
    return math.exp(-2 * sd)


REQUIRED = [
    *(Case("null", shape) for shape in SHAPES),
    *(Case("null", stuck=(p, p)) for p in STUCK),
    *(Case("gap of 2 sd", shape, ratio=_gap(0.15), count=BETTER) for shape in SHAPES),
    *(Case("gap of 2 sd", stuck=(p, p), ratio=_gap(0.15), count=BETTER) for p in STUCK),
    *(Case("at the margin", shape, sd=(0.05, 0.05), ratio=1 + MARGIN, count=EQUIVALENT) for shape in SHAPES),
    *(Case("at the margin", stuck=(p, p), sd=(0.05, 0.05), ratio=1 + MARGIN, count=EQUIVALENT) for p in STUCK),
]
"""What the project promises at 10 seeds; kept for all of these but a gap where half of the runs are stuck."""

FURTHER = [
    *(Case("null", "skewed", stuck=(p, p)) for p in (0.05, 0.3)),
    *(Case("null, spread 1 to 3", shape, sd=(0.1, 0.3)) for shape in SHAPES),
    Case("null, spread 1 to 3", stuck=(0.3, 0.3), sd=(0.1, 0.3)),
    *(Case("at the margin", sd=(sd, sd), ratio=1 + MARGIN, count=EQUIVALENT) for sd in (0.02, 0.08, 0.12)),
    Case("at the margin, spread 1 to 3", sd=(0.03, 0.09), ratio=1 + MARGIN, count=EQUIVALENT),
    Case("at the margin, spread 1 to 3", "skewed", sd=(0.03, 0.09), ratio=1 + MARGIN, count=EQUIVALENT),
    Case("at the margin of failures", stuck=(0.0, 0.4), sd=(0.02, 0.02), count=EQUIVALENT),
    Case("at the margin of failures", stuck=(0.2, 0.6), sd=(0.02, 0.02), count=EQUIVALENT),
    *(Case("equal, told so", sd=(sd, sd), count=EQUIVALENT) for sd in (0.02, 0.05, 0.1)),
    Case("equal, told so", stuck=(0.2, 0.2), sd=(0.02, 0.02), count=EQUIVALENT),
    *(Case("gap of 1 sd", shape, ratio=math.exp(-0.15), count=BETTER) for shape in ("normal", "skewed")),
    Case("gap of 2 sd, small sd", sd=(0.03, 0.03), ratio=_gap(0.03), count=BETTER),
    Case("fails less", stuck=(0.1, 0.7), count=BETTER),
    Case("fails less", stuck=(0.0, 0.5), count=BETTER),
    Case("fails more, ends lower: better or worse", stuck=(0.6, 0.0), ratio=_gap(0.15)),
]


def rates(case: Case, seeds: int, simulations: int, seed: int = 0) -> dict[str, Any]:
    """The share of simulated verdicts that are counted, its standard error, and the share of each verdict."""
    rng = np.random.default_rng([seed, seeds])
    found = Counter(contrast(*case.outcomes(rng, seeds), margin=MARGIN).verdict for _ in range(simulations))
    rate = sum(found[verdict] for verdict in case.count) / simulations
    verdicts = {verdict: count / simulations for verdict, count in found.most_common()}
    error = math.sqrt(max(rate * (1 - rate), 1 / simulations) / simulations)
    return {**asdict(case), "seeds": seeds, "rate": rate, "error": round(error, 5), "verdicts": verdicts}


def family(seeds: int, simulations: int, secondary: int = 3, seed: int = 1) -> dict[str, Any]:
    """How often any of several secondary contrasts with one arm is told apart though all are equal."""
    rng, case = np.random.default_rng([seed, seeds]), Case("null")
    wrong = 0
    for _ in range(simulations):
        rival = case.outcomes(rng, seeds)[0]
        pairs = [(case.outcomes(rng, seeds)[0], rival) for _ in range(secondary)]
        wrong += any(_apart(each) for each in contrasts(pairs, margin=MARGIN, primary=None))
    return {"what": f"null, any of {secondary} secondary", "seeds": seeds, "rate": wrong / simulations}


def _apart(found: Contrast) -> bool:
    return found.verdict in ("better", "worse")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rates as lines of text."""
    for row in rows:
        stuck = "" if not any(row.get("stuck", ())) else f", stuck {row['stuck'][0]:.2g} and {row['stuck'][1]:.2g}"
        spread = f", sd {row['sd'][0]:g} and {row['sd'][1]:g}" if "sd" in row else ""
        counted = " or ".join(row.get("count", ("better", "worse")))
        words = f"{row['what']}: {row.get('shape', 'normal')}{spread}{stuck}"
        yield f"{row['seeds']:3d} seeds  {row['rate']:7.2%} {counted:16s}  {words}"


def _row(job: tuple[Case | None, int, int]) -> dict[str, Any]:
    case, seeds, simulations = job
    found = family(seeds, simulations) if case is None else rates(case, seeds, simulations)
    return {**found, "simulations": simulations, "required": case in REQUIRED and seeds == 10}


def main() -> None:
    """Simulate, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 10, 20])
    parser.add_argument("--simulations", type=int, nargs="+", default=[1_000, 2_500, 500], help="for each of --seeds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    jobs = [
        (case, seeds, simulations)
        for seeds, simulations in zip(arguments.seeds, arguments.simulations, strict=True)
        for case in (*REQUIRED, *FURTHER, None)
    ]
    rows = []
    with ProcessPoolExecutor(arguments.workers) as workers:
        for row in workers.map(_row, jobs):
            rows.append(row)
            print(*table([row]), flush=True)
    if arguments.json:
        machine = {"versions": {name: version(name) for name in ("scipy", "numpy", "musweep")}}
        arguments.json.write_text(json.dumps({"margin": MARGIN, **machine, "rates": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
