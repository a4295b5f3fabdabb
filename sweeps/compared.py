"""From sweep folders to a comparison: which arms, against what, and what cannot be compared.

Named beforehand is one contrast, the search's best point against the baseline of the spec; all others are secondary.
Nothing is chosen by what confirmed trials came to: points keep the order in which the search had them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeps import arms, labels, stages
from sweeps.arms import Runs, Study
from sweeps.compare_tasks import profile_of
from sweeps.comparison import Arm, Comparison, Contrast, PublishedValue
from sweeps.refusals import budgets, differences, seconds
from sweeps.store import atomic_write

FILE = "comparison.json"
ITERATIONS = 10
"""Outer iterations below which a run of HF has hardly begun: the damping moves by a factor of 3/2 in each."""
PUBLISHED = "published"


class NothingToCompare(ValueError):
    """A sweep that has no confirmed trials, or none of what was asked for; the text says what to do."""


@dataclass(slots=True)
class _Ring:
    """Arms that are to be compared, and what is said of those that cannot be."""

    study: Study
    runs: dict[str, Runs] = field(default_factory=dict)
    studies: dict[str, Study] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def add(self, name: str, study: Study, runs: Runs, kind: str) -> str | None:
        """Take an arm in under a name that is free; None, and a refusal, if no trial of it has an outcome."""
        name = _free(name, self.runs)
        for trials, why in ((runs.failed, "failed and count for nothing"), (runs.unfinished, "have not ended yet")):
            if trials:
                count = len(trials) + len(runs.trials)
                self.refusals.append(f"{name}: {len(trials)} of {count} runs {why}")
        if runs.due:
            self.refusals.append(f"{name}: {runs.due} runs are still to come")
        if runs.iterations is not None and runs.iterations < ITERATIONS:
            self.refusals.append(
                f"{name}: {runs.iterations:g} outer iterations are too few for HF to find its damping: it stands for "
                "this budget, not for HF; give all more updates"
            )
        if not runs.trials:
            return None
        self.runs[name], self.studies[name], self.kinds[name] = runs, study, kind
        return name

    def pairs(self, wanted: Iterable[tuple[str, str]], match: str) -> list[tuple[str, str]]:
        """The pairs that may be compared; the others are refused, with what differs."""
        found = []
        for a, b in wanted:
            unlike = self._unlike(a, b, match)
            if unlike:
                self.refusals.append(f"{a} is not compared with {b}: {'; '.join(unlike)}")
            else:
                found.append((a, b))
        return found

    def _unlike(self, a: str, b: str, match: str) -> list[str]:
        one, other = self.studies[a], self.studies[b]
        waiting = [name for name in (a, b) if self.runs[name].unfinished or self.runs[name].due]
        if waiting:  # those that diverge end first, so what has ended is no fair sample
            return [f"{' and '.join(waiting)}: some runs have not ended yet"]
        if one is not other:
            return differences((one, self.runs[a]), (other, self.runs[b]), match)
        if match != "wall" or {self.kinds[a], self.kinds[b]} == {"point"}:
            return budgets(self.runs[a], self.runs[b])
        in_time = {b.get("name") or "hf" for b in _baselines(one) if b.get("kind") == "hf" and b.get("match") == "wall"}
        if any(stages.baseline_of(self.runs[name].stage) in in_time for name in (a, b)):
            return []
        return seconds((one, self.runs[a]), (other, self.runs[b]))


def compare(
    folder: Path, against: str | Path | None = None, others: Sequence[Path] = (), match: str | None = None
) -> Comparison:
    """Compare a sweep's confirmed points with its baselines, or several sweeps' best points with one of them.

    Args:
        folder: a sweep.
        against: a baseline of its spec by name, `published`, or another sweep's folder; None: as its spec says.
            With `others` the folder that all are compared with; None: the first.
        others: more sweeps, of which only the best points are compared.
        match: `work` or `wall`, what sweeps must have spent alike; None: as the spec's HF baseline has it, else work.

    Raises:
        NothingToCompare: no confirmed trials, or no such baseline; the text says what to do.
        FileNotFoundError: a folder is no sweep.
    """
    if others:
        return _of_sweeps([folder, *others], against, match or "work")
    study = arms.read(folder)
    ring = _Ring(study)
    match = match or _match(study)
    for name, runs in _confirmed(study).items():
        ring.add(name, study, runs, "point" if runs.stage == stages.CONFIRM else "hf")
    baselines = [name for name, kind in ring.kinds.items() if kind == "hf"]
    baselines += _sweeps(ring, study)
    rival = _rival(ring, against, baselines)
    points = [name for name, kind in ring.kinds.items() if kind == "point"]
    first = [(points[0], rival)] if points and rival else []
    rest = [(point, rival) for point in points[1:]] if rival else [(points[0], point) for point in points[1:]]
    rest += [(points[0], name) for name in dict.fromkeys(baselines) if points and name != rival]
    printed = _published(ring, str(against or ""))
    return _made(ring, first, [pair for pair in rest if pair[1]], match, printed)


def _confirmed(study: Study) -> dict[str, Runs]:
    """A sweep's confirmed arms.

    Raises:
        NothingToCompare: it has none.
    """
    found = arms.confirmed(study)
    if found:
        return found
    where = study.folder
    if study.spec.get("confirm"):
        raise NothingToCompare(f"{where}: no confirmed trial yet; `musweep resume {where}` goes on with the sweep")
    raise NothingToCompare(
        f"{where}: the best of a search is a lucky trial, so there is nothing to compare until its best points are "
        f"trained again on fresh seeds: `musweep confirm {where} --top 3 --seeds 10 --hf` does so; in a spec it is "
        "confirm: {top: 3, seeds: 10}"
    )


def _match(study: Study) -> str:
    """What the HF baselines' budgets were matched on."""
    return next((str(b.get("match") or "work") for b in _baselines(study) if b.get("kind") == "hf"), "work")


def _baselines(study: Study) -> list[Mapping[str, Any]]:
    return list(study.spec.get("baselines") or ())


def _rival(ring: _Ring, against: str | Path | None, baselines: Sequence[str]) -> str | None:
    """The arm that the primary contrast is against: what was asked for, what the spec names, or the first measured.

    Raises:
        NothingToCompare: what was asked for is no such baseline; one that the spec names is refused.
    """
    wanted = against or ring.study.rules.against
    if wanted is None or str(wanted) == PUBLISHED:
        return baselines[0] if baselines else None
    name = str(wanted)
    if name in ring.runs:
        return name
    if name == "hf" and (first := next((n for n, kind in ring.kinds.items() if kind == "hf"), None)):
        return first
    folder = _find(ring.study, name)
    if folder is not None:
        return _join(ring, folder)
    have = ", ".join([*baselines, PUBLISHED])
    if not against:
        ring.refusals.append(f"compare.against {name}: it has no confirmed run")
        return None
    asked = any(each.get("kind") == "hf" and each.get("name", "hf") == name for each in _baselines(ring.study))
    how = f"; it has not been confirmed yet: musweep resume {ring.study.folder}" if asked else ""
    if name == "hf" and not asked:
        how = "; with `musweep confirm DIR --hf` a sweep gets one"
    raise NothingToCompare(f"{ring.study.folder}: no baseline {name!r} was measured; there are: {have}{how}")


def _sweeps(ring: _Ring, study: Study) -> list[str]:
    """The names of the arms of the spec's baselines of kind sweep."""
    found = []
    for baseline in _baselines(study):
        if baseline.get("kind") != "sweep":
            continue
        folder = _find(study, str(baseline["id"]))
        if folder is None:
            ring.refusals.append(f"baseline {baseline['id']}: no such sweep folder")
        elif name := _join(ring, folder):
            found.append(name)
    return found


def _find(study: Study, name: str) -> Path | None:
    """Another sweep's folder: a path, or its name beside this sweep or in its storage."""
    places = (
        Path(name).expanduser(),
        study.folder.resolve().parent / name,
        Path(str(study.spec.get("storage") or "")) / name,
    )
    return next((place for place in places if (place / "spec.json").is_file()), None)


def _join(ring: _Ring, folder: Path) -> str | None:
    """Take another sweep's best point in, and return its name here; None, and a refusal, if it has none."""
    for name, study in ring.studies.items():
        if ring.kinds[name] == "sweep" and study.folder.resolve() == folder.resolve():
            return name
    try:
        other = arms.read(folder)
        runs = next(iter(_confirmed(other).values()))
    except ValueError as why:  # nothing there to compare, or files that cannot be read
        where = "" if isinstance(why, NothingToCompare) else f"{folder} cannot be read: "
        ring.refusals.append(f"{where}{why}")
        return None
    if _identity(other) == _identity(ring.study):
        ring.refusals.append(f"{folder}: is the sweep itself, or a copy of it")
        return None
    return ring.add(folder.resolve().name, other, runs, "sweep")


def _identity(study: Study) -> tuple[str, float | None]:
    """What no two sweeps share, and copies of one do."""
    return study.history.sweep_id, study.history.opened_at


def _of_sweeps(folders: Sequence[Path], against: str | Path | None, match: str) -> Comparison:
    """Compare each sweep's best point with that of one of them."""
    place = Path(against) if against is not None else folders[0]
    if not (place / "spec.json").is_file():
        raise NothingToCompare(f"{against}: several sweeps are compared with one of them, so --against is a folder")
    ring = _Ring(arms.read(place))
    rival = ring.add(place.resolve().name, ring.study, next(iter(_confirmed(ring.study).values())), "sweep")
    names = [_join(ring, folder) for folder in folders if folder.resolve() != place.resolve()]
    pairs = [(name, rival) for name in names if name is not None and rival is not None]
    named = len(pairs) == 1  # of several none was named beforehand
    found = _made(ring, pairs if named else [], [] if named else pairs, match, ())
    return replace(found, profile=profile_of([*folders, place]))


def _published(ring: _Ring, against: str) -> tuple[PublishedValue, ...]:
    """The printed values of the tables that the spec names; if it names none and they are asked for, of its task."""
    tables = [str(b["table"]) for b in _baselines(ring.study) if b.get("kind") == "published"]
    if not tables and against != PUBLISHED:
        return ()
    from sweeps import published
    from sweeps.spec import SweepSpec

    study, runs = ring.study, next(iter(ring.runs.values()), None)
    try:
        spec = SweepSpec.model_validate({key: value for key, value in study.spec.items() if key != "resolved"})
    except ValueError as error:
        ring.refusals.append(f"published values: spec.json cannot be read as a spec: {str(error).splitlines()[0]}")
        return ()
    tables = tables or [name for name in published.names() if spec.task.name in published.table(name).tasks]
    params = runs.trials[0].params if runs and runs.stage == stages.CONFIRM else None
    ours = published.ours(spec, study.metric, params, study.data)
    found = []
    for name in tables:
        values = published.values(name, task=spec.task.name) if name in published.names() else []
        found += [published.shown(value, ours) for value in values]
        if not values:
            ring.refusals.append(f"published table {name}: it has no value of task {spec.task.name}")
    if not tables:
        ring.refusals.append(f"no published table has a value of task {spec.task.name}")
    return tuple(found)


def _made(
    ring: _Ring, first: list[tuple[str, str]], rest: list[tuple[str, str]], match: str,
    printed: tuple[PublishedValue, ...],
) -> Comparison:  # fmt: skip
    """The comparison of a ring's arms in these pairs, `first` being the one named beforehand, if any."""
    study = ring.study
    named = ring.pairs(first, match)
    pairs = named + ring.pairs(rest, match)
    met = {name for pair in pairs for name in pair}
    shown = [name for name in ring.runs if ring.studies[name] is study or name in met]
    scale = arms.scale(study, [ring.runs[name] for name in shown])
    stuck_above = study.stuck_above
    if not arms.apart(study, [ring.runs[name] for name in shown], scale):
        ring.refusals.append(
            f"no run is called stuck: others ended within {study.rules.margin:.0%} of those above {stuck_above:.4g}"
        )
        stuck_above = None
        ring.runs.update({name: replace(runs, stuck=set()) for name, runs in ring.runs.items()})
    target = arms.target_of(study, [ring.runs[name] for name in pairs[0]]) if pairs else study.rules.target
    made = {name: _arm(ring, name, scale, target) for name in shown}
    leader = next((runs for runs in ring.runs.values()), None)
    data = study.data
    return Comparison(
        sweep_id=study.name,
        metric=study.metric,
        mode=study.mode,
        task=_task(study),
        note=_note(study),
        updates=int((study.spec.get("training") or {}).get("updates") or 0),
        batch=int(leader.trials[0].config.get("batch", 1)) if leader else 0,
        train_examples=int(data.get("train_examples") or 0),
        match=match,
        trivial=study.trivial,
        stuck_above=stuck_above,
        target=target,
        margin=study.rules.margin,
        arms=tuple(made.values()),
        contrasts=_contrasts(ring, pairs, made, scale, bool(named)),
        published=printed,
        refusals=tuple(ring.refusals),
    )


def _arm(ring: _Ring, name: str, scale: arms.Scale, target: float | None) -> Arm:
    return arms.arm(ring.studies[name], name, ring.runs[name], ring.kinds[name], scale, target)


def _contrasts(
    ring: _Ring, pairs: Sequence[tuple[str, str]], made: Mapping[str, Arm], scale: arms.Scale, named: bool
) -> tuple[Contrast, ...]:
    """The verdicts on pairs of arms, the first being the primary one if it was named beforehand."""
    from sweeps.compare import Outcomes, contrasts

    called = _called(made)
    try:
        outcomes = {
            name: Outcomes(name, called[name], scale.errors(arm.values), _stuck(ring.runs[name]), arm.reached)
            for name, arm in made.items()
        }
    except ValueError as error:
        ring.refusals.append(f"{ring.study.metric}: {error}")
        return ()
    both = [(outcomes[a], outcomes[b]) for a, b in pairs]
    return contrasts(both, margin=ring.study.rules.margin, primary=0 if named else None)


def _stuck(runs: Runs) -> tuple[bool, ...]:
    return tuple(trial.number in runs.stuck for trial in runs.trials)


def _called(made: Mapping[str, Arm]) -> dict[str, str]:
    """What sentences call each arm; its name stands before where two would be called the same."""
    short = {name: labels.short(arm.label, arm.kind, name) for name, arm in made.items()}
    several = {words for words in short.values() if list(short.values()).count(words) > 1}
    return {name: f"{name}, {words}" if words in several else words for name, words in short.items()}


def _task(study: Study) -> str:
    task = study.spec.get("task") or {}
    name = task if isinstance(task, str) else task.get("name")
    return str(name or study.spec.get("trainer") or "")


def _note(study: Study) -> str:
    """What is to be said of the data, of the protocol, and of runs that end before their budget does."""
    words = [str(study.data.get("source") or "look-alike data")] if study.data.get("look_alike") else []
    protocol = study.spec.get("protocol")
    words += [f"protocol {protocol}"] if protocol not in (None, "full") else []
    if target := study.spec.get("target"):
        words.append(f"runs end when {target['metric']} is below {target['below']:g}: compare the work they need")
    return "; ".join(words)


def _free(name: str, taken: Iterable[str]) -> str:
    """A name that is not taken: itself, or with a number behind it."""
    names, number = set(taken), 2
    while f"{name}-{number}" in names:
        number += 1
    return f"{name}-{number}" if name in names else name


def keep(folder: Path, found: Comparison) -> Path:
    """Put a comparison into a sweep's folder as comparison.json, whole or not at all.

    Raises:
        OSError: the old file, if any, is still there.
    """
    path = folder / FILE
    atomic_write(path, json.dumps(found.to_dict(), indent=1, allow_nan=False).encode())
    return path


def write(folder: Path) -> Path | None:
    """Write a sweep's comparison.json, as its spec says; None if it has no confirmed trials yet.

    Raises:
        OSError: see `keep`.
    """
    try:
        return keep(folder, compare(folder))
    except NothingToCompare:
        return None
