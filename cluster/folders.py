"""Finding sweeps and trials by what a person types."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import places, stages
from sweeps.history import History, Trial, load


class UserError(Exception):
    """Something the person at the terminal can put right; shown as one line, without a traceback."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A sweep folder that was read: its resolved spec as plain values, and its history."""

    path: Path
    spec: dict[str, Any]
    history: History

    @property
    def budget(self) -> int:
        """Trials in the whole sweep, all its stages and extensions included."""
        return sum(self.stages.values())

    @property
    def stages(self) -> dict[str, int]:
        """How many trials each stage has in all, in their order: those there were once it is over, else as planned."""
        asked = Counter(trial.stage for trial in self.history.trials.values())
        trials = int(self.spec.get("budget", {}).get("trials") or asked["search"]) + self.history.extended
        planned = stages.planned(trials, self.spec.get("confirm"), self.spec.get("baselines") or [])
        if self.history.closed == "finished" and len(planned) > 1:
            return {name: asked[name] for name in planned}
        return {name: max(size, asked[name]) for name, size in planned.items()}

    @property
    def searched(self) -> list[Trial]:
        """The trials of the sweep's own search, by number."""
        return stages.in_stage(self.history, "search")

    @property
    def objective(self) -> str:
        """The metric's name."""
        named = self.spec.get("objective", "objective")
        return str(named["metric"] if isinstance(named, dict) else named)

    @property
    def maximise(self) -> bool:
        """Whether larger objectives are better."""
        return self.spec.get("mode") == "max"

    @property
    def names(self) -> list[str]:
        """The parameters that the search varies, in the spec's order, then any other that a trial of it has."""
        return self.names_of(self.searched)

    def names_of(self, trials: Iterable[Trial]) -> list[str]:
        """The parameters that some trials have, in the spec's order, then the others."""
        seen = dict.fromkeys(name for trial in trials for name in trial.params)
        order = [name for name in self.spec.get("space", {}) if name in seen]
        return order + [name for name in seen if name not in order]

    def ranked(self, states: tuple[str, ...] = ("complete",)) -> list[Trial]:
        """Trials of the search in these states that have an objective, best first."""
        sign = -1.0 if self.maximise else 1.0
        scored = [
            (sign * trial.objective, trial.number, trial)
            for trial in self.searched
            if trial.state in states and trial.objective is not None
        ]
        return [trial for score, _, trial in sorted(scored, key=lambda item: item[:2]) if not math.isnan(score)]


def is_sweep(path: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (path / "journal.jsonl").is_file() or (path / "spec.json").is_file()


def sweeps_in(root: Path) -> list[Path]:
    """The sweep folders directly under a folder, or the working folders of those under a URL, newest first."""
    if (url := places.url_of(root)) is not None:
        return sorted(_reached(url, "sweeps_under"), key=lambda path: path.name, reverse=True)
    inside = root.iterdir() if root.is_dir() else ()
    found = [
        path for path in inside if path.name[0] != "." and path.is_dir() and is_sweep(path)
    ]  # no half removed ones
    return sorted(found, key=lambda path: (_touched(path), path.name), reverse=True)


def _touched(path: Path) -> float:
    newest = path / "journal.jsonl"
    return (newest if newest.exists() else path).stat().st_mtime


def find(typed: Path) -> Path:
    """The sweep folder that a person means: a path, a name under runs/, `latest`, or the id of one submitted from here.

    Raises:
        UserError: no such sweep.
    """
    if (url := places.url_of(typed)) is not None:
        return _at(url)
    if is_sweep(typed):
        return typed
    runs = Path("runs")
    if is_sweep(runs / typed):
        return runs / typed
    if str(typed) == "latest" and (newest := sweeps_in(runs)):
        return newest[0]
    if typed.is_dir():
        inside = sweeps_in(typed)
        hint = f"; it holds sweeps, for instance {inside[0]}" if inside else ""
        raise UserError(f"{typed}: not a sweep folder (no journal.jsonl){hint}")
    if (elsewhere := _submitted(str(typed))) is not None:
        return elsewhere
    hint = "" if not sweeps_in(runs) else f"; the newest is {sweeps_in(runs)[0]}, and `musweep ls` lists all"
    raise UserError(f"{typed}: no such sweep folder{hint}")


def _submitted(name: str) -> Path | None:
    """The folder of a sweep that was submitted from here under this id, if this machine sees it."""
    from cluster.submitted import folder_here, recall

    if "/" in name or (to := recall(name)) is None:
        return None
    if (folder := folder_here(name)) is None:
        raise UserError(
            f"{name} was sent to {to}, whose folders are not seen from here; ask there: musweep status {name}"
        )
    return folder


def _at(url: str) -> Path:
    """The working folder of the sweep at a URL, brought up to date."""
    folder: Path = _reached(url, "working_folder")
    return folder


def _reached(url: str, how: str) -> Any:
    """What `sweeps.remote` has to say of a URL.

    Raises:
        UserError: it cannot be used, holds no sweep, or its store does not answer.
    """
    from sweeps import remote

    try:
        return getattr(remote, how)(url)
    except (FileNotFoundError, places.PlaceError, remote.RemoteError) as error:
        raise UserError(str(error)) from None


def read(typed: Path) -> Folder:
    """Read a sweep's spec and history, also beside a running sweep.

    Raises:
        UserError: no such sweep, or its spec.json is damaged.
        JournalError: its journal is damaged.
    """
    path = find(typed)
    try:
        spec = json.loads((path / "spec.json").read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: spec.json is missing, so this folder cannot be read as a sweep") from None
    except ValueError as error:
        raise UserError(f"{path / 'spec.json'}: not JSON ({error}); restore it from a copy") from None
    return Folder(path, spec, load(path))


def trial_number(typed: str) -> int:
    """The number in `12`, `t12` or `t00012`.

    Raises:
        UserError: the text is none of these.
    """
    match = re.fullmatch(r"t?(\d+)", typed.strip())
    if match is None:
        raise UserError(f"trial {typed!r}: give its number, such as 12 or t00012, or best")
    return int(match.group(1))


def trial(folder: Folder, typed: str) -> Trial:
    """The trial that a person means: 12, t00012 or best.

    Raises:
        UserError: the sweep has no such trial.
    """
    if typed == "best":
        return best(folder)
    number = trial_number(typed)
    if number not in folder.history.trials:
        have = f"it has t{0:05d} to t{max(folder.history.trials):05d}" if folder.history.trials else "it has none yet"
        raise UserError(f"{folder.path}: no trial {number}; {have}")
    return folder.history.trials[number]


def best(folder: Folder) -> Trial:
    """The best complete trial of the search.

    Raises:
        UserError: the sweep has none.
    """
    ranked = folder.ranked()
    if not ranked:
        raise UserError(f"{folder.path}: no trial is complete yet; name one, as in t00012")
    return ranked[0]
