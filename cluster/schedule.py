"""Schedules, their firings and the messages about them, in SQLite or PostgreSQL.

A firing's key is its schedule and its moment, so whoever notes it, it is there once. What is done about it goes from
state to state, each move one transaction that names the state it starts from; before a step that takes time a scheduler
claims the firing, and another takes over only when the claim is old. So any number of schedulers may run, and any may
die at any moment: each step can be done twice with the effect of once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from cluster import schedule_tables as tables
from cluster import schedule_times
from cluster.database import PATIENCE_S, Database, place
from cluster.folders import UserError
from cluster.schedule_rules import (
    ACTIVE,
    CATCH_UPS,
    NAME,
    OVER,
    OVERLAPS,
    STATES,
    WHENS,
    Firing,
    Schedule,
    firing,
    step,
    tick,
)
from cluster.schedule_tables import SCHEDULES, ScheduleError
from sweeps.errors import nearest

__all__ = ["ACTIVE", "OVER", "STATES", "Firing", "Message", "Schedule", "ScheduleError", "Schedules", "check"]

FILE = "schedules.db"
"""Where they are where no database is named."""
CLAIM_S = 120.0
"""After which a step that a scheduler began is another's to do: longer than any step takes."""
_LISTS = ("overrides", "notify")


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be told about a schedule; of one event there is one."""

    schedule: str
    event: str
    at: float
    result: str
    """What became of the night it is about: worse, better, broken, missed, ok."""
    title: str
    body: str
    state: str = "queued"
    """queued, sent or failed."""
    why: str = ""
    tries: int = 0
    again: float = 0.0
    """When it may be tried next."""
    holder: str = ""
    claimed: float = 0.0


def check(schedule: Schedule) -> Schedule:
    """A schedule whose values are legal.

    Raises:
        UserError: one is not; one line says which and what is legal.
    """
    if not NAME.fullmatch(schedule.name):
        raise UserError(f"schedule {schedule.name!r}: not a name; legal: letters, digits, dots, _ and -, 60 at most")
    for what, given, legal in (
        ("overlap", schedule.overlap, OVERLAPS),
        ("catch-up", schedule.catch_up, CATCH_UPS),
        ("notify-when", schedule.notify_when, WHENS),
    ):
        if given not in legal:
            near = nearest(given, legal)
            raise UserError(f"{what} {given!r}: legal: {', '.join(legal)}{f'; did you mean {near}?' if near else ''}")
    for reference in (*schedule.notify, *filter(None, [schedule.ping])):
        if reference.partition(":")[0] not in ("env", "file") or not reference.partition(":")[2]:
            shown = reference.partition(":")[0]
            raise UserError(
                f"notify {shown}:...: addresses carry secrets, so they are kept elsewhere; legal: env:NAME or file:PATH"
            )
    schedule_times.check(schedule.cron, schedule.zone)
    return schedule


class Schedules:
    """The schedules of one database. Arguments as `Database` has them."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        self.database = Database(url, SCHEDULES, patience_s)

    @classmethod
    def open(cls, url: str | None = None, patience_s: float = PATIENCE_S) -> Schedules:
        """Those at a URL, else at $MUSWEEP_DATABASE, else in a file of this user's."""
        return cls(url or place(FILE), patience_s)

    def all(self) -> list[Schedule]:
        """All schedules, by name."""
        asked = sa.select(tables.schedules).order_by(tables.schedules.c.name)
        return self.database.run(lambda connection: [_schedule(row) for row in connection.execute(asked)], write=False)

    def get(self, name: str) -> Schedule:
        """A schedule.

        Raises:
            ScheduleError: there is none of this name.
        """
        found = self.database.run(lambda connection: _get(connection, name), write=False)
        if found is None:
            names = [each.name for each in self.all()]
            near = nearest(name, names)
            hint = f"; did you mean {near}?" if near else f"; there are: {', '.join(names)}" if names else ""
            raise ScheduleError(f"no schedule {name!r}{hint or '; add one with: musweep schedule add'}")
        return found

    def add(self, schedule: Schedule, now: float | None = None) -> Schedule:
        """Note a new schedule; it is first due after now.

        Raises:
            UserError: a value is not legal, or the name is taken.
        """
        now = time.time() if now is None else now
        schedule = replace(check(schedule), cursor=now, created=now)

        def work(connection: sa.Connection) -> bool:
            if _get(connection, schedule.name) is not None:
                return False
            connection.execute(tables.schedules.insert().values(_row(schedule)))
            return True

        if not self.database.run(work):
            raise ScheduleError(f"schedule {schedule.name} is there already: remove it first, or choose another name")
        return schedule

    def pause(self, name: str) -> Schedule:
        """Let a schedule no longer be due; what is active goes on."""
        return self._set(name, paused=True)

    def resume(self, name: str, now: float | None = None) -> Schedule:
        """Let a paused schedule be due again, from now on: what passed meanwhile is not made up for."""
        if not self.get(name).paused:
            return self.get(name)
        return self._set(name, paused=False, cursor=time.time() if now is None else now)

    def _set(self, name: str, **to: Any) -> Schedule:
        self.get(name)
        change = tables.schedules.update().where(tables.schedules.c.name == name).values(to)
        self.database.run(lambda connection: connection.execute(change).rowcount)
        return self.get(name)

    def remove(self, name: str) -> None:
        """Forget a schedule with its history; sweep folders stay.

        Raises:
            ScheduleError: there is none, or one of its sweeps is active.
        """
        self.get(name)

        def work(connection: sa.Connection) -> list[Firing]:
            _get(connection, name, lock=True)
            active = [each for each in _open(connection, name) if each.state in ACTIVE]
            if not active:
                for table, column in (
                    (tables.messages, tables.messages.c.schedule),
                    (tables.firings, tables.firings.c.schedule),
                    (tables.schedules, tables.schedules.c.name),
                ):
                    connection.execute(table.delete().where(column == name))
            return active

        if active := self.database.run(work):
            raise ScheduleError(
                f"schedule {name}: {active[0].sweep} is {active[0].state}: wait for it, or stop it with: "
                f"musweep stop {active[0].sweep} --to {active[0].target}"
            )

    def run_now(self, name: str, now: float | None = None) -> Firing:
        """Have a schedule fire now, paused or not; return the firing, which a scheduler will begin.

        Raises:
            ScheduleError: one of its sweeps is active and its overlap is skip.
        """
        schedule = self.get(name)
        made = firing(schedule, float(int(time.time() if now is None else now)), manual=True)

        def work(connection: sa.Connection) -> list[Firing]:
            _get(connection, name, lock=True)
            active = _open(connection, name) if schedule.overlap == "skip" else []
            if not active and _one(connection, made) is None:
                connection.execute(tables.firings.insert().values(asdict(made)))
            return active

        if active := self.database.run(work):
            raise ScheduleError(
                f"schedule {name}: {active[0].sweep} is {active[0].state} and overlap is skip: nothing was started"
            )
        return made

    def firings(
        self, name: str | None = None, limit: int = 100, states: Collection[str] = STATES, before: float | None = None
    ) -> list[Firing]:
        """Firings of a schedule, or of all, the newest first."""
        table = tables.firings
        asked = sa.select(table).where(table.c.state.in_(list(states))).order_by(table.c.at.desc(), table.c.schedule)
        if name is not None:
            asked = asked.where(table.c.schedule == name)
        if before is not None:
            asked = asked.where(table.c.at < before)
        asked = asked.limit(limit)
        return self.database.run(
            lambda connection: [Firing(**row._mapping) for row in connection.execute(asked)], write=False
        )

    def decide(self, now: float) -> list[Firing]:
        """Note what is due, see `tick`; return what this call noted. Of several at once each firing is one's."""
        noted: list[Firing] = []
        for schedule in self.all():
            if schedule.paused or now <= schedule.cursor:
                continue
            noted += self._note(schedule, tick(schedule, now), now)
        return noted

    def _note(self, schedule: Schedule, found: Sequence[Firing], now: float) -> list[Firing]:
        """Note firings and move the cursor, unless another did or the schedule was changed meanwhile."""
        columns = tables.schedules.c

        def work(connection: sa.Connection) -> list[Firing]:
            same = columns.name == schedule.name, columns.cursor == schedule.cursor, ~columns.paused
            if not connection.execute(tables.schedules.update().where(*same).values(cursor=now)).rowcount:
                return []
            new = [each for each in found if _one(connection, each) is None]
            if new:
                connection.execute(tables.firings.insert(), [asdict(each) for each in new])
            _tell(connection, _missed(schedule, new))
            return new

        return self.database.run(work)

    def begin(self, key: Firing, holder: str, now: float) -> Firing | None:
        """Claim a firing that is due and may begin; else note what is to be done about it.

        Returns:
            The firing as it is then: `starting` if it is this holder's to start, else as it was noted; None if there is
            no such firing, or another has it.
        """

        def work(connection: sa.Connection) -> Firing | None:
            schedule, due = _get(connection, key.schedule, lock=True), _one(connection, key)
            if schedule is None or due is None or due.state != "due":
                return None
            to_do = step(schedule, due, [each for each in _open(connection, key.schedule) if each.at != key.at], now)
            to: dict[str, Any] = {"why": to_do.why or due.why}
            if to_do.do == "begin":
                to = {"state": "starting", "why": "", "holder": holder, "claimed": now, "tries": due.tries + 1}
            elif to_do.do in ("skip", "miss"):
                to |= {"state": {"skip": "skipped", "miss": "missed"}[to_do.do], "ended": now}
            after = replace(due, **to)
            _set(connection, after, to)
            if after.state == "missed":
                _tell(connection, _missed(schedule, [after]))
            return after

        return self.database.run(work)

    def claim(self, key: Firing, states: Collection[str], holder: str, now: float) -> Firing | None:
        """Have a firing in one of these states to oneself for `CLAIM_S`; None if another has it or it has moved on."""

        def decide(there: Firing) -> dict[str, Any] | None:
            free = not there.holder or there.holder == holder or abs(now - there.claimed) > CLAIM_S
            return {"holder": holder, "claimed": now} if there.state in states and free else None

        return self.change(key, decide)

    def change(
        self,
        key: Firing,
        decide: Callable[[Firing], dict[str, Any] | None],
        told: Iterable[Message] = (),
    ) -> Firing | None:
        """Set columns of a firing as is decided by what it is now, in one transaction; None if `decide` refuses.

        Args:
            key: of the firing.
            decide: what to set, by the firing as it is.
            told: messages that are queued in the same transaction, each once.
        """

        def work(connection: sa.Connection) -> Firing | None:
            there = _one(connection, key, lock=True)
            to = decide(there) if there is not None else None
            if there is None or to is None:
                return None
            after = replace(there, **to)
            _set(connection, after, to)
            _tell(connection, told)
            return after

        return self.database.run(work)

    def messages(self, name: str | None = None, limit: int = 100) -> list[Message]:
        """Messages about a schedule, or about all, the newest first."""
        table = tables.messages
        asked = sa.select(table).order_by(table.c.at.desc()).limit(limit)
        if name is not None:
            asked = asked.where(table.c.schedule == name)
        return self.database.run(
            lambda connection: [Message(**row._mapping) for row in connection.execute(asked)], write=False
        )

    def tell(self, message: Message) -> None:
        """Queue a message, unless its event was told of."""
        self.database.run(lambda connection: _tell(connection, [message]))

    def to_send(self, holder: str, now: float) -> Message | None:
        """The next message that is to be sent, claimed for `CLAIM_S`."""
        table = tables.messages

        def work(connection: sa.Connection) -> Message | None:
            asked = sa.select(table).where(table.c.state == "queued", table.c.again <= now).order_by(table.c.at)
            for row in connection.execute(asked.with_for_update()):
                found = Message(**row._mapping)
                if not found.holder or abs(now - found.claimed) > CLAIM_S:
                    _set_message(connection, found, {"holder": holder, "claimed": now})
                    return found
            return None

        return self.database.run(work)

    def sent(self, message: Message, **to: Any) -> None:
        """Note what came of sending a message."""
        self.database.run(lambda connection: _set_message(connection, message, {"holder": "", **to}))


def _missed(schedule: Schedule, found: Iterable[Firing]) -> list[Message]:
    """One message about nights that did not run."""
    missed = [each for each in found if each.state == "missed"]
    if not missed:
        return []
    first, last = missed[0], missed[-1]
    when = schedule_times.shown(first.at, schedule.zone)
    many = (
        f"{len(missed)} nights, from {when} to {schedule_times.shown(last.at, schedule.zone)}," if missed[1:] else when
    )
    body = f"{many} did not run: {last.why}."
    return [Message(schedule.name, f"missed-{first.at:.0f}", last.at, "missed", f"{schedule.name}: missed", body)]


def _tell(connection: sa.Connection, told: Iterable[Message]) -> None:
    """Queue messages of events that were not told of yet."""
    table = tables.messages
    for each in told:
        same = sa.select(table.c.event).where(table.c.schedule == each.schedule, table.c.event == each.event)
        if connection.execute(same).one_or_none() is None:
            connection.execute(table.insert().values(asdict(each)))


def _row(schedule: Schedule) -> dict[str, Any]:
    return asdict(schedule) | {name: json.dumps(getattr(schedule, name)) for name in _LISTS}


def _schedule(row: sa.Row[Any]) -> Schedule:
    values = dict(row._mapping)
    return Schedule(**values | {name: tuple(json.loads(values[name])) for name in _LISTS})


def _get(connection: sa.Connection, name: str, lock: bool = False) -> Schedule | None:
    asked = sa.select(tables.schedules).where(tables.schedules.c.name == name)
    row = connection.execute(asked.with_for_update() if lock else asked).one_or_none()
    return None if row is None else _schedule(row)


def _open(connection: sa.Connection, name: str) -> list[Firing]:
    """The firings of a schedule that are not over, the oldest first."""
    table = tables.firings
    asked = sa.select(table).where(table.c.schedule == name, table.c.state.in_(["due", *ACTIVE])).order_by(table.c.at)
    return [Firing(**row._mapping) for row in connection.execute(asked)]


def _one(connection: sa.Connection, key: Firing, lock: bool = False) -> Firing | None:
    table = tables.firings
    asked = sa.select(table).where(table.c.schedule == key.schedule, table.c.at == key.at)
    row = connection.execute(asked.with_for_update() if lock else asked).one_or_none()
    return None if row is None else Firing(**row._mapping)


def _set(connection: sa.Connection, key: Firing, to: dict[str, Any]) -> None:
    table = tables.firings
    connection.execute(table.update().where(table.c.schedule == key.schedule, table.c.at == key.at).values(to))


def _set_message(connection: sa.Connection, key: Message, to: dict[str, Any]) -> None:
    table = tables.messages
    connection.execute(table.update().where(table.c.schedule == key.schedule, table.c.event == key.event).values(to))


_COLUMNS = [column.name for column in tables.firings.c]
assert [each.name for each in fields(Firing)] == _COLUMNS, "a firing's columns are its fields"
