"""What a scheduler does about a sweep, for real: submit it, ask, stop, go on with it, judge its night."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cluster.folders import UserError
from cluster.schedule_rules import Firing, Schedule

if TYPE_CHECKING:
    from cluster.launch import JobStatus
    from cluster.schedule import Schedules
    from cluster.targets import Target
    from sweeps.nights import Night


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a night."""

    result: str
    """ok, worse, better or broken."""
    sentence: str
    event: str = ""
    """The same for all nights of one regression; empty: the scheduler's to say."""
    night: str = ""
    """As JSON, for the nights to come."""


class Work(Protocol):
    """What a scheduler can do about a firing. All but `judge` raise what `cluster.submitted` raises."""

    def submit(self, schedule: Schedule, firing: Firing) -> str:
        """Start a firing's sweep, or go on with it; return its folder. Twice has the effect of once."""

    def status(self, schedule: Schedule, firing: Firing) -> JobStatus:
        """What has become of it."""

    def stop(self, schedule: Schedule, firing: Firing) -> None:
        """Have it leave cleanly, and wait until it has."""

    def resume(self, schedule: Schedule, firing: Firing) -> None:
        """Go on with it after its driver died."""

    def judge(self, schedule: Schedule, firing: Firing, past: Sequence[Firing]) -> Judged:
        """Hold a finished sweep against the nights before it, the oldest first."""

    def picture(self, done: Sequence[Firing]) -> bytes | None:
        """A PNG of nights, the oldest first; None if there is nothing to draw."""


class Sweeps:
    """Submits to the targets of clusters.yaml, as it is found from where the schedule was made."""

    def submit(self, schedule: Schedule, firing: Firing) -> str:
        """Read the spec as it is now, make tonight's of it, and send it."""
        from cluster import submitted
        from sweeps import nights, spec

        with _there(schedule):
            to = place(schedule)
            read = spec.load(Path(schedule.spec), list(schedule.overrides), schedule.protocol)
            made = submitted.submit(nights.tonight(read, firing.sweep), to, id_=firing.sweep)
            return made.folder

    def status(self, schedule: Schedule, firing: Firing) -> JobStatus:
        """Ask the target."""
        from cluster import submitted

        with _there(schedule):
            return submitted.status(firing.sweep, place(schedule))

    def stop(self, schedule: Schedule, firing: Firing) -> None:
        """Tell the target."""
        from cluster import submitted

        with _there(schedule):
            submitted.stop(firing.sweep, place(schedule))

    def resume(self, schedule: Schedule, firing: Firing) -> None:
        """Tell the target."""
        from cluster import submitted

        with _there(schedule):
            submitted.resume(firing.sweep, place(schedule))

    def judge(self, schedule: Schedule, firing: Firing, past: Sequence[Firing]) -> Judged:  # noqa: ARG002 - of `Work`
        """Judge by `sweeps.nights`, and leave night.json in the sweep's folder."""
        from cluster import folders
        from sweeps import nights

        folder = folders.find(Path(firing.folder))
        night = nights.judge(folder, nights_of(past), firing.at)
        nights.write(folder, night)
        return Judged(night.result, night.sentence, night.event, json.dumps(night.to_dict()))

    def picture(self, done: Sequence[Firing]) -> bytes | None:
        """The strip chart."""
        from dashboards import strip

        found = nights_of(done)
        return strip.png(found, done[-1].schedule) if found else None


def nights_of(done: Sequence[Firing]) -> list[Night]:
    """The nights of firings that have numbers, in their order."""
    from sweeps.nights import Night

    return [Night.from_dict(json.loads(each.night)) for each in done if each.night]


def accepted(schedules: Schedules, name: str, sweep: str | None = None) -> Firing:
    """Note that a person says a night's results are right, in its folder too if that is seen from here.

    Raises:
        ScheduleError: there is no such schedule.
        UserError: no such night was judged, or it has no results.
    """
    from cluster import folders
    from sweeps import nights

    schedules.get(name)
    done = schedules.firings(name, 1000, ["done"])
    found = next((each for each in done if each.night and sweep in (None, each.sweep)), None)
    if found is None:
        known = ", ".join(each.sweep for each in done[:5] if each.night) or "none"
        raise UserError(f"schedule {name}: no night {sweep or ''} was judged; the last ones are: {known}")
    night = nights_of([found])[0]
    if not night.sound:
        raise UserError(f"{found.sweep} is broken: there are no results to accept")
    night = nights.accept(night)
    with contextlib.suppress(UserError, OSError):  # the folder may be on another machine, or gone
        nights.write(folders.find(Path(found.folder)), night)
    after = schedules.change(found, lambda _there: {"night": json.dumps(night.to_dict())})
    assert after is not None
    return after


def place(schedule: Schedule) -> Target:
    """A schedule's target, its storage where the schedule was made.

    Raises:
        UserError: it is none that a scheduler can use.
        SpecError: there is no such target.
    """
    from cluster.targets import HERE, target

    found = target(schedule.target)
    if found.kind == "debug":
        raise UserError(
            f"target {found.name}: kind debug drives in the process that submits; schedules need another, as local"
        )
    if found.kind in HERE and "://" not in (found.storage or ""):
        storage = Path(schedule.folder) / Path(found.storage or "runs").expanduser()
        found = found.model_copy(update={"storage": str(storage)})
    return found


@contextlib.contextmanager
def _there(schedule: Schedule) -> Iterator[None]:
    """Work from the folder in which the schedule was made.

    Raises:
        UserError: it is gone.
    """
    if not Path(schedule.folder).is_dir():
        raise UserError(f"schedule {schedule.name}: its folder {schedule.folder} is not there")
    with contextlib.chdir(schedule.folder):
        yield
