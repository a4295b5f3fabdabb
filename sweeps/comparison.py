"""What a comparison says, as plain data: what `compare` makes, `comparison.json` holds and reports show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA_VERSION = 1
VERDICTS = ("better", "worse", "equivalent", "not distinguishable", "no verdict")


@dataclass(frozen=True, slots=True)
class Share:
    """A share of runs with its Wilson interval, 95%."""

    count: int
    of: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Error on the way, at the reports of an arm's trials: a band over its seeds, stuck and diverged ones left out.

    `work` is in gradients of one example, `seconds` are of training; `low` and `high` are the 25th and 75th percentile.
    """

    updates: tuple[int, ...]
    work: tuple[float, ...]
    seconds: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing that is compared: a confirmed point, a baseline's, or another sweep's."""

    name: str
    """Short and unique here, as in p1, hf, curves-20261121."""
    label: str
    """For people: `NAG, µ_max 0.99, lr 0.01`."""
    kind: str
    """point, hf or sweep."""
    stage: str
    """confirm, confirm:hf, ..."""
    point_id: str
    params: dict[str, Any]
    method: str
    trials: tuple[int, ...]
    values: tuple[float | None, ...]
    """The metric at the end, one for each trial; None where it diverged or failed."""
    stuck: Share
    """Runs that ended above the stuck error, or diverged."""
    diverged: Share
    typical: float | None
    """Geometric mean of the finishers (runs neither stuck nor diverged); None without any."""
    low: float | None
    high: float | None
    """Its 95% interval."""
    searched: float | None
    """What the search saw at this point: lucky, being the best of many; None of another sweep's arm."""
    work: float
    """Median over its trials, in gradients of one example."""
    seconds: float
    """Median seconds of training."""
    curve: Curve
    reached: tuple[tuple[float, bool], ...] = ()
    """(work at which the target was reached, True), or (work at its end, False) where it never was, for each trial."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Arm `a` against arm `b`."""

    a: str
    b: str
    primary: bool
    verdict: str
    """One of VERDICTS, of a against b."""
    sentence: str
    """The verdict in words, with interval and margin."""
    decided_by: str
    """failures, finishers, both, or empty."""
    seeds: tuple[int, int]
    finishers: tuple[int, int]
    ratio: float | None
    """Error of a over error of b among finishers (geometric means): below 1, a is better."""
    low: float | None
    high: float | None
    """Its 95% Welch interval; BCa from 20 seeds."""
    margin: float
    p: float | None
    """Permutation test among finishers."""
    p_failures: float | None
    """Fisher's exact test on stuck and diverged runs."""
    p_adjusted: float | None
    """The contrast's p after Holm's correction over the secondary ones; its own of the primary."""
    p_ranks: float | None
    """Brunner-Munzel with failures ranked last: a check, not part of the verdict."""
    p_time: float | None
    """Log-rank test of the work to reach the target."""


@dataclass(frozen=True, slots=True)
class PublishedValue:
    """A printed number, and why it cannot be put beside ours as if equal, if it cannot."""

    table: str
    row: str
    column: str
    value: float | None
    source: str
    """Paper, table, page."""
    protocol: str
    certainty: str
    comparable: bool
    why: str


@dataclass(frozen=True, slots=True)
class TaskProfile:
    """Share of tasks on which each method's error is within a factor of the best one there (Dolan and More 2002)."""

    tasks: tuple[str, ...]
    """Sweeps by their folders' names; each counts as a task."""
    factors: tuple[float, ...]
    share: dict[str, tuple[float, ...]]
    """By method, one for each factor."""
    errors: dict[str, dict[str, float | None]]
    """By task and method: the geometric mean of the finishers; None where no more than half of the runs finished."""
    left_out: tuple[str, ...]
    """Tasks and methods that are not in it, with why."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything a comparison of one sweep says."""

    sweep_id: str
    metric: str
    mode: str
    task: str
    note: str
    """What is to be said of the data, as in: look-alike of CURVES."""
    updates: int
    batch: int
    train_examples: int
    """Examples of the training set; 0 where examples are drawn online. Passes are work / train_examples."""
    match: str
    trivial: float | None
    """The metric of the best constant output."""
    stuck_above: float | None
    target: float | None
    margin: float
    arms: tuple[Arm, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    published: tuple[PublishedValue, ...] = ()
    refusals: tuple[str, ...] = ()
    """Why something asked for was not compared."""
    profile: TaskProfile | None = None
    """Of several sweeps: their methods over all of them."""
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def primary(self) -> Contrast | None:
        """The contrast named beforehand."""
        return next((contrast for contrast in self.contrasts if contrast.primary), None)

    def arm(self, name: str) -> Arm:
        """An arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-ready; `profile` only if there is one."""
        return {key: value for key, value in asdict(self).items() if key != "profile" or value is not None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Comparison:
        """The inverse of `to_dict`, also after a trip through JSON. Raises TypeError or KeyError for other data."""
        arms = tuple(
            Arm(
                **{
                    **arm,
                    "trials": tuple(arm["trials"]),
                    "values": tuple(arm["values"]),
                    "stuck": Share(**arm["stuck"]),
                    "diverged": Share(**arm["diverged"]),
                    "curve": Curve(**{key: tuple(value) for key, value in arm["curve"].items()}),
                    "reached": tuple((float(work), bool(there)) for work, there in arm["reached"]),
                }
            )
            for arm in data["arms"]
        )
        contrasts = tuple(
            Contrast(**{**each, "seeds": tuple(each["seeds"]), "finishers": tuple(each["finishers"])})
            for each in data["contrasts"]
        )
        published = tuple(PublishedValue(**each) for each in data["published"])
        profile = data.get("profile") and TaskProfile(
            **{
                **data["profile"],
                **{key: tuple(data["profile"][key]) for key in ("tasks", "factors", "left_out")},
                "share": {method: tuple(shares) for method, shares in data["profile"]["share"].items()},
            }
        )
        return cls(
            **{
                **data, "arms": arms, "contrasts": contrasts, "published": published,
                "refusals": tuple(data["refusals"]), "profile": profile,
            }
        )  # fmt: skip
