"""Sweeps that run every night: the spec of one night, and whether it came out as the nights before (docs/nights.md).

`judge` is a function of a sweep's folder and of earlier nights only; it never raises because of what is in the folder,
since a broken night is a result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import night_file, nights_fixed, nights_fresh
from sweeps.night_file import FILE, Night, accept, read, write
from sweeps.nights_fixed import day

if TYPE_CHECKING:
    from sweeps.history import History, Trial
    from sweeps.schema_night import NightRules
    from sweeps.spec import SweepSpec

__all__ = ["FILE", "Night", "accept", "judge", "read", "tonight", "write"]

_SEEDS = 2**31
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError)
"""What reading a damaged folder may raise."""


def tonight(spec: SweepSpec, key: str) -> SweepSpec:
    """The spec of one night: of a fixed-seed one as it is, of a fresh-seed one with a seed of its own.

    Args:
        spec: of the schedule.
        key: names the night, as 2026-11-21 does; the seed is a function of it and of the spec's own seed.
    """
    if spec.night is None or spec.night.kind == "fixed":
        return spec
    told = hashlib.sha256(f"{spec.search.seed} {key}".encode()).digest()
    seed = int.from_bytes(told[:8], "big") % _SEEDS
    return spec.model_copy(update={"search": spec.search.model_copy(update={"seed": seed})})


def judge(folder: Path, past: Sequence[Night], at: float) -> Night:
    """Judge the night whose sweep is in a folder: finished, or however it was left.

    Args:
        folder: of the sweep.
        past: earlier nights of the same schedule, in any order; those due at `at` or later are left out.
        at: when the night was due, in seconds since 1970.
    """
    past = sorted((night for night in past if night.at < at), key=lambda night: (night.at, night.sweep))
    night = _judged(folder, past, at)
    return _in_course(night, past)


def _judged(folder: Path, past: list[Night], at: float) -> Night:
    kind = past[-1].kind if past else "plain"
    blank = Night(at=at, sweep=folder.name, kind=kind, result="broken", sentence="", spec=past[-1].spec if past else "")
    try:
        plain, rules = _spec_of(folder)
        kind = "plain" if rules is None else rules.kind
        blank = replace(blank, kind=kind, spec=night_file.digest(plain, seed=kind != "fresh"))
        history = _history(folder)
        blank = replace(blank, sweep=history.sweep_id or folder.name, versions=dict(history.versions))
        if wrong := _unsound(history):
            return replace(blank, sentence=f"Broken: {wrong}.")
        if rules is None:
            done = len(history.trials)
            words = f"The sweep has ended with {done} trials; its spec has no `night`, so no values are compared."
            return replace(blank, result="ok", sentence=words)
        return _compared(folder, blank, history, plain, rules, past)
    except _UNREADABLE as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return replace(blank, sentence=f"Broken: the sweep cannot be judged: {first[:300]}")


def _spec_of(folder: Path) -> tuple[dict[str, Any], NightRules | None]:
    """spec.json as plain values, and what it says of nights."""
    from sweeps.schema_night import NightRules

    plain = json.loads((folder / "spec.json").read_bytes())
    said = plain.get("night")
    return plain, None if said is None else NightRules.model_validate(said)


def _history(folder: Path) -> History:
    from sweeps import history

    if not (folder / "journal.jsonl").exists():
        raise FileNotFoundError("it has no journal: it never began")
    return history.load(folder)


def _unsound(history: History) -> str:
    """Why a sweep's results are none; empty if they are."""
    trials = list(history.trials.values())
    if not trials:
        return "no trial was begun"
    failed = [trial for trial in trials if trial.state == "failed"]
    if len(failed) == len(trials):
        return f"all {len(trials)} trials failed, the first with: {_why(failed[0])}"
    if history.closed is None:
        running = sum(trial.state == "running" for trial in trials)
        return f"the sweep did not end; {running} of {len(trials)} trials were still running"
    if history.closed not in ("finished", "budget"):
        ended = sum(trial.state != "running" for trial in trials)
        return f"the sweep was {history.closed} after {ended} trials had ended"
    if failed:
        return f"{len(failed)} of {len(trials)} trials failed, the first ({failed[0].id}) with: {_why(failed[0])}"
    if all(trial.state in ("diverged", "skipped") for trial in trials):
        return f"all {len(trials)} trials diverged"
    return history.note.rstrip(".")


def _why(trial: Trial) -> str:
    return (trial.reason or "no reason was written").splitlines()[0][:200]


def _compared(
    folder: Path, blank: Night, history: History, plain: dict[str, Any], rules: NightRules, past: list[Night]
) -> Night:
    """A sound night against those before it."""
    same = [night for night in past if (night.kind, night.spec) == (blank.kind, blank.spec)]
    sound = [night for night in same if night.sound]
    begin = max((i for i, night in enumerate(sound) if night.accepted), default=0)
    sound, mode = sound[begin:], plain.get("mode") or "min"
    earlier = [night for night in past if night.sound and night.kind == blank.kind]
    new = " The spec is not that of earlier nights, so a new reference begins." if earlier and not sound else ""
    if rules.kind == "fixed":
        space = plain.get("space") or {}
        found = nights_fixed.judged(nights_fixed.measured(history, space), sound, rules, mode)
        reference = sound[0] if sound else None
    else:
        drawn = replace(blank, arms=nights_fresh.measured(folder))
        if not drawn.arms:
            return replace(blank, sentence="Broken: no point was confirmed, so there is nothing to compare.")
        margin = float((plain.get("compare") or {}).get("margin") or 0.1)
        found = nights_fresh.judged(drawn, sound, rules, mode=mode, margin=margin) | {"arms": drawn.arms}
        reference = sound[: rules.reference][-1] if sound else None
    if reference is not None:
        changed = night_file.changes(reference.versions, blank.versions)
        found |= {"reference": reference.sweep, "changed": changed}
        if found["result"] != "ok" or (changed and rules.kind == "fixed"):
            found["sentence"] += f" {night_file.said_of(changed, day(reference.at))}"
    found["sentence"] += new
    return replace(blank, **found)


def _in_course(night: Night, past: list[Night]) -> Night:
    """The night with since when its state lasts, and the name of its event."""
    last = past[-1] if past else None
    lasts = last is not None and last.result == night.result and not last.accepted
    begun = last.since if last is not None and lasts else night.at
    if night.result == "ok":
        return replace(night, since=begun, event="")
    same = _same_event(night, past)
    event = same.event if same is not None else f"{night.result}:{night.sweep}:{night.at:.0f}"
    return replace(night, since=begun, event=event)


def _same_event(night: Night, past: list[Night]) -> Night | None:
    """The earlier night whose event this one goes on with; None: it is a new one."""
    last = past[-1] if past else None
    if last is None or last.accepted:
        return None
    if night.result == "broken":
        return last if last.result == "broken" else None
    if night.kind == "fixed":
        sound = [each for each in past if each.sound]  # a night without power in between changes nothing
        earlier = sound[-1] if sound else None
        if earlier is None or earlier.result != night.result or earlier.accepted or earlier.spec != night.spec:
            return None
        return earlier if nights_fixed.same_event(night.trials, earlier) else None
    for earlier in reversed(past[-nights_fresh.AGAIN :]):
        if earlier.accepted or earlier.spec != night.spec or earlier.restart is not None:
            return None
        if earlier.event and earlier.result == night.result:
            return earlier
    return None
