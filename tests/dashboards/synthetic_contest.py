"""A made-up sweep with a search for HF, confirmed trials and the comparison that such a sweep ends with.

The statistics here are simple ones, only to have values that fit the trials; `sweeps.compare` is tested elsewhere.
"""

import json
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dashboards.view import View, read
from sweeps.comparison import Arm, Comparison, Contrast, Curve, PublishedValue, Share
from sweeps.history import Trial, load
from sweeps.journal import Journal, Record
from tests.dashboards.synthetic import Sweep, make

EXAMPLES = 5000
TRIVIAL = 16.0
T_975 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 14: 2.14, 19: 2.09}
HF_SPACE: dict[str, Any] = {
    "hf_damping": {"type": "float", "low": 0.1, "high": 100.0, "scale": "log"},
    "hf_cg_max": {"type": "int", "low": 10, "high": 300, "scale": "log"},
}
PUBLISHED = {
    "0 (SGD)": 0.48, ".9N": 0.16, ".99N": 0.096, ".995N": 0.091, ".999N": 0.074,
    ".9M": 0.15, ".99M": 0.10, ".995M": 0.10, ".999M": 0.10, "SGD_C": 0.16, "HF†": 0.058, "HF*": 0.11,
}  # fmt: skip


@dataclass
class Contest:
    """How the confirmed trials come out."""

    top: int = 3
    seeds: int = 10
    hf: bool = True
    gap: float = 0.78
    """Error of the best point over HF's, in the simulation."""
    sd: float = 0.09
    """Spread of log errors over seeds."""
    stuck: tuple[int, int] = (1, 0)
    """Runs of the best point and of HF that never leave the error of a constant."""
    diverged: tuple[int, int] = (0, 0)
    online: bool = False
    refusals: tuple[str, ...] = ()
    published: bool = True


def make_contest(folder: Path, sweep: Sweep | None = None, contest: Contest | None = None) -> Path:
    """A sweep folder with search, HF's search, both confirmed, and comparison.json; the comparison is also returned
    by `compared(folder)`."""
    sweep, contest = sweep or Sweep(), contest or Contest()
    make(folder, replace(sweep, close=None))
    spec = json.loads((folder / "spec.json").read_text())
    spec["confirm"] = {"top": contest.top, "seeds": contest.seeds, "each": [], "eval_examples": None}
    spec["baselines"] = [{"kind": "hf", "name": "hf", "share": 0.25, "match": "work", "space": {}, "training": {}}]
    spec["baselines"] += [{"kind": "published", "table": "s13-table1"}] if contest.published else []
    spec["baselines"] = spec["baselines"] if contest.hf else spec["baselines"][1:]
    spec["compare"] = {"metric": None, "against": None, "margin": 0.1, "stuck": None, "target": None}
    (folder / "spec.json").write_text(json.dumps(spec))
    rng = random.Random(11)
    view = read(folder)
    found = _Stages(view, sweep, rng)
    points = _best_points(view, contest.top)
    if contest.hf:
        for _ in range(max(6, sweep.trials // 4)):
            damping, steps = math.exp(rng.uniform(math.log(0.1), math.log(100))), rng.randint(10, 300)
            lost = 1 + 0.25 * abs(math.log10(damping / 5)) + 0.15 * abs(math.log10(steps / 120))
            best = points[0].objective or 1.0
            found.train("search:hf", {"hf_damping": damping, "hf_cg_max": steps}, "", 0, best / contest.gap * lost)
    hfs = min(found.of("search:hf"), key=lambda t: t["objective"], default=None)
    for place, point in enumerate(points):
        worth = (point.objective or 1.0) * 1.06 * 1.05**place
        shortfall = (contest.stuck[0], contest.diverged[0]) if place == 0 else (0, 0)
        found.confirm("confirm", point.params, point.point_id, worth, contest, shortfall)
    if hfs:
        worth = (points[0].objective or 1.0) * 1.06 / contest.gap
        shortfall = (contest.stuck[1], contest.diverged[1])
        found.confirm("confirm:hf", hfs["params"], hfs["point_id"], worth, contest, shortfall)
    found.records.append({"type": "close", "time": found.time, "reason": "finished"})
    journal = Journal(folder / "journal.jsonl")
    journal.append(found.records)
    journal.close()
    (folder / "comparison.json").write_text(json.dumps(comparison(folder, contest).to_dict()))
    return folder


def _best_points(view: View, top: int) -> list[Trial]:
    return [trial for trial in view.ranked if trial.state == "complete"][:top]


class _Stages:
    """Trials that come after the search, one after the other."""

    def __init__(self, view: View, sweep: Sweep, rng: random.Random) -> None:
        self.sweep, self.rng, self.metric = sweep, rng, view.metric
        self.number = len(view.trials)
        self.time = max(trial.ended_at or 0.0 for trial in view.trials)
        self.records: list[Record] = []
        self.ended: list[tuple[str, dict[str, Any]]] = []
        self.replicate = 1

    def of(self, stage: str) -> list[dict[str, Any]]:
        return [end for name, end in self.ended if name == stage and end["objective"] is not None]

    def confirm(
        self, stage: str, params: dict[str, Any], point: str, worth: float, contest: Contest, lost: tuple[int, int]
    ) -> None:
        for seed in range(contest.seeds):
            fate = "stuck" if seed < lost[0] else "diverged" if seed < sum(lost) else "complete"
            self.train(stage, params, point, self.replicate, worth * math.exp(self.rng.gauss(0, contest.sd)), fate)
            self.replicate += 1

    def train(
        self, stage: str, params: dict[str, Any], point: str, replicate: int, last: float, fate: str = "complete"
    ) -> None:
        """One trial from 16 to `last`, HF slower at first and faster later; stuck ones stay, diverged ones end."""
        hf, updates, number = "hf" in stage, self.sweep.updates, self.number
        point = point or f"h{number:05d}"
        method = {"kind": "hf"} if hf else {"kind": params.get("method", "nag"), "lr": params.get("lr", 0.01)}
        config = {"updates": updates, "batch": 100, "method": method}
        self.records.append({"type": "ask", "time": self.time, "trial": number, "params": params, "stage": stage,
                             "point_id": point, "replicate": replicate, "group": number % self.sweep.groups,
                             "config": config})  # fmt: skip
        step, pace, wall, value = math.ceil(updates / 20), (1.1 if hf else 0.8), 0.0, TRIVIAL
        for update in range(step, updates + 1, step):
            share = update / updates
            way = math.log(1 + 9 * share**1.6 if hf else 1 + 30 * share) / math.log(10 if hf else 31)
            value = TRIVIAL * (last / TRIVIAL) ** way * math.exp(self.rng.gauss(0, 0.01))
            value = TRIVIAL * math.exp(self.rng.gauss(0, 0.004)) if fate == "stuck" else value
            if fate == "diverged" and share > 0.4:
                break
            wall += pace
            self.time += 0.05
            entry = {"trial": number, "update": update, "metrics": {self.metric: value}, "score": value, "wall_s": pace}
            self.records.append({"type": "report", "time": self.time, "group": number % self.sweep.groups,
                                 "engine": "hf" if hf else "loop", "trials": [entry]})  # fmt: skip
        lost = fate == "diverged"
        end = {"type": "end", "time": self.time, "trial": number, "state": "diverged" if lost else "complete",
               "reason": "not finite" if lost else "", "stopped_at_rung": None,
               "objective": None if lost else value, "updates": updates, "work": updates * 100.0, "wall_s": wall,
               "engine": "hf" if hf else "loop", "group": number % self.sweep.groups}  # fmt: skip
        self.records.append(end)
        self.ended.append((stage, end | {"params": params, "point_id": point}))
        self.number += 1


def comparison(folder: Path, contest: Contest) -> Comparison:
    """The comparison of a folder's confirmed trials."""
    history, spec = load(folder), json.loads((folder / "spec.json").read_text())
    metric = spec["objective"]["metric"]
    stages: dict[tuple[str, str], list[Trial]] = {}
    for trial in history.trials.values():
        if trial.stage.startswith("confirm"):
            stages.setdefault((trial.stage, trial.point_id), []).append(trial)
    every = [trial for trials in stages.values() for trial in trials]
    ends = sorted(trial.objective for trial in every if trial.objective and trial.objective < 0.9 * TRIVIAL)
    target = ends[len(ends) * 3 // 4] if ends else None
    arms = tuple(
        _arm(i, stage, trials, _searched(history.trials.values(), stage, point), metric, target)
        for i, ((stage, point), trials) in enumerate(stages.items(), 1)
    )
    updates = max((trial.config["updates"] for trial in history.trials.values()), default=0)
    contrasts = _contrasts(arms, contest) if not contest.refusals else ()
    printed = tuple(
        PublishedValue("s13-table1", "Curves", column, value, "S13 Table 1, page 5", "training squared error",
                       "verified", False, "the data are a look-alike of CURVES")
        for column, value in PUBLISHED.items()
    )  # fmt: skip
    return Comparison(
        history.sweep_id, metric, "min", "curves", "look-alike of CURVES", updates, 100,
        0 if contest.online else EXAMPLES, "work", TRIVIAL, 0.9 * TRIVIAL, target, 0.1, arms, contrasts,
        printed if contest.published else (), contest.refusals,
    )  # fmt: skip


def compared(folder: Path) -> Comparison:
    """What comparison.json says."""
    return Comparison.from_dict(json.loads((folder / "comparison.json").read_text()))


def rewrite(folder: Path, **changes: Any) -> Comparison:
    """Change fields of comparison.json."""
    changed = replace(compared(folder), **changes)
    (folder / "comparison.json").write_text(json.dumps(asdict(changed)))
    return changed


def _searched(trials: Iterable[Trial], stage: str, point: str) -> float | None:
    mine = stage.replace("confirm", "search")
    return next((trial.objective for trial in trials if (trial.stage, trial.point_id) == (mine, point)), None)


def _arm(place: int, stage: str, trials: list[Trial], searched: float | None, metric: str, target: float | None) -> Arm:
    hf = stage != "confirm"
    stuck = [t for t in trials if t.objective is None or t.objective > 0.9 * TRIVIAL]
    finishers = [t for t in trials if t not in stuck]
    middle = _interval([t.objective for t in finishers if t.objective])
    params, n = trials[0].params, len(trials)
    kind = "hf" if hf else str(params.get("method", "nag"))
    shown = {"mu_max": "µ_max {:.4g}", "lr": "lr {:.3g}", "hf_damping": "damping {:.3g}", "hf_cg_max": "CG steps {}"}
    used = (words.format(params[name]) for name, words in shown.items() if name in params)
    label = ", ".join([kind.upper(), *used])
    reached = tuple(_reached(t, metric, target) for t in trials) if target else ()
    return Arm(
        "hf" if hf else f"p{place}", label, "hf" if hf else "point", stage, trials[0].point_id, params, kind,
        tuple(t.number for t in trials), tuple(t.objective for t in trials), _share(len(stuck), n),
        _share(sum(t.state == "diverged" for t in trials), n), *middle, searched,
        statistics.median(t.work for t in trials), statistics.median(t.wall_s for t in trials),
        _curve(finishers, metric), reached,
    )  # fmt: skip


def _reached(trial: Trial, metric: str, target: float) -> tuple[float, bool]:
    for update, row in sorted(trial.metrics.items()):
        if row[metric] <= target:
            return update * 100.0, True
    return trial.config["updates"] * 100.0, False  # also of one that diverged


def _curve(trials: list[Trial], metric: str) -> Curve:
    updates = sorted(trials[0].metrics) if trials else []
    columns = [sorted(trial.metrics[update][metric] for trial in trials) for update in updates]
    quarters = [statistics.quantiles(c, n=4) if len(c) > 1 else [c[0]] * 3 for c in columns]
    seconds = tuple((1.1 if trials[0].engine == "hf" else 0.8) * i for i, _ in enumerate(updates, 1))
    low, median, high = (tuple(quarter[i] for quarter in quarters) for i in range(3))
    return Curve(tuple(updates), tuple(u * 100.0 for u in updates), seconds, median, low, high)


def _share(count: int, of: int) -> Share:
    """Wilson 1927."""
    z, p = 1.959964, count / of
    centre = (p + z * z / 2 / of) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / 4 / of / of)
    return Share(count, of, p, max(0.0, centre - half), min(1.0, centre + half))


def _interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    if not values:
        return None, None, None
    logs = [math.log(value) for value in values]
    middle = statistics.mean(logs)
    half = _t(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def _t(freedom: int) -> float:
    return next((value for n, value in T_975.items() if n >= freedom), 1.96)


def _contrasts(arms: tuple[Arm, ...], contest: Contest) -> tuple[Contrast, ...]:
    baseline = next((arm for arm in arms if arm.kind == "hf"), None)
    if baseline is None:
        return ()
    points = [arm for arm in arms if arm.kind == "point"]
    return tuple(_contrast(arm, baseline, arm is points[0]) for arm in points)


def _contrast(a: Arm, b: Arm, primary: bool) -> Contrast:
    logs = [[math.log(v) for v in arm.values if v and v < 0.9 * TRIVIAL] for arm in (a, b)]
    difference = statistics.mean(logs[0]) - statistics.mean(logs[1])
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in logs))
    half = _t(len(logs[0]) + len(logs[1]) - 2) * error
    ratio, low, high = (math.exp(difference + sign * half) for sign in (0, -1, 1))
    verdict = "not distinguishable"
    if low > 1 / 1.1 and high < 1.1:
        verdict = "equivalent"
    elif high < 1 or low > 1:
        verdict = "better" if high < 1 else "worse"
    few = min(len(a.values), len(b.values))
    verdict = verdict if few >= 6 else "no verdict"
    words = {"better": "is better than", "worse": "is worse than", "equivalent": "is equivalent to",
             "not distinguishable": "cannot be told from", "no verdict": "has no verdict against"}  # fmt: skip
    sentence = (
        f"{a.method.upper()} {words[verdict]} HF: its error is {ratio:.2f} times HF's "
        f"(95% interval {low:.2f} to {high:.2f}, margin 1.1)."
    )
    p = math.erfc(abs(difference / error) / math.sqrt(2))
    adjusted = p if primary else min(1.0, 2 * p)
    return Contrast(
        a.name, b.name, primary, verdict, sentence, "finishers" if verdict in ("better", "worse") else "",
        (len(a.values), len(b.values)), (len(logs[0]), len(logs[1])), ratio, low, high, 0.1, p, 1.0, adjusted, p, p,
    )  # fmt: skip
