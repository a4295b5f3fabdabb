"""How schedules and their nights look in a terminal, and which exit code a night has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from cluster import schedule_times, text
from cluster.schedule_rules import OVER, Firing, Schedule

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Okabe and Ito's palette, which the colour-blind tell apart; signs and words say it too.
SIGNS = {
    "ok": ("✓", "#009E73"),
    "better": ("▲", "#56B4E9"),
    "worse": ("▼", "bold #D55E00"),
    "broken": ("✗", "bold #D55E00"),
    "missed": ("○", "bold #E69F00"),
    "skipped": ("–", "dim"),
    "running": ("▶", "#56B4E9"),
    "starting": ("▷", "#56B4E9"),
    "ended": ("▶", "#56B4E9"),
    "due": ("·", ""),
}
EXITS = {"ok": 0, "better": 0, "worse": 3, "broken": 4, "missed": 4}
"""Exit codes by result, for programs: 3 is a result to be looked at, 4 no result."""
SILENT_S = 1800.0
"""So long after its time a firing must have been noted; else no scheduler runs."""


def word(firing: Firing) -> str:
    """A firing's state, or the result that it has come to."""
    return firing.result if firing.state == "done" else firing.state


def next_due(schedule: Schedule, now: float, count: int = 1) -> list[float]:
    """The next moments at which a schedule is due; none while it is paused."""
    if schedule.paused:
        return []
    return list(islice(schedule_times.due(schedule.cron, schedule.zone, max(now, schedule.cursor)), count))


def silent(schedule: Schedule, now: float) -> float | None:
    """The first moment at which a schedule was due without any scheduler taking note; None if all is well."""
    if schedule.paused:
        return None
    first = next(schedule_times.due(schedule.cron, schedule.zone, schedule.cursor), None)
    return first if first is not None and now - first > SILENT_S else None


def standing(schedule: Schedule, firings: Sequence[Firing], now: float) -> tuple[str, str]:
    """How a schedule stands: the result of its last night that is over, `missed` if nobody watches, and a sentence.

    Args:
        schedule: which.
        firings: its last ones, the newest first.
        now: seconds since 1970.
    """
    if (since := silent(schedule, now)) is not None:
        when = schedule_times.shown(since, schedule.zone)
        return "missed", f"the night of {when} did not run: no scheduler took note of it; start one: musweep scheduler"
    last = next((each for each in firings if each.state in OVER and each.state != "skipped"), None)
    if last is None:
        return "", "paused" if schedule.paused else "no night is over yet"
    return word(last), last.sentence or last.why


def show_all(rows: Iterable[tuple[Schedule, Sequence[Firing]]], out: Console, now: float | None = None) -> None:
    """A line for each schedule: when it is due, how it stands."""
    from rich.text import Text

    from cluster.show import table

    now = time.time() if now is None else now
    made = table("schedule", "when", "next", "last", "in words")
    for schedule, firings in rows:
        result, sentence = standing(schedule, firings, now)
        due = next_due(schedule, now)
        coming = f"in {text.span(due[0] - now)}" if due else "paused"
        made.add_row(
            text.plain(schedule.name), Text(f"{schedule_times.words(schedule.cron)} ({schedule.zone})"), coming,
            _signed(result), Text(text.one_line(sentence)),
        )  # fmt: skip
    out.print(made)


def show_one(schedule: Schedule, firings: Sequence[Firing], out: Console, now: float | None = None) -> None:
    """All that a schedule says, and when it is due next."""
    from rich.text import Text

    now = time.time() if now is None else now
    lines = [
        ("due", f"{schedule.cron}  {schedule_times.words(schedule.cron)}, {schedule.zone}"),
        ("spec", " ".join([schedule.spec, *(f"--set {each}" for each in schedule.overrides)])),
        ("protocol", schedule.protocol or ""),
        ("target", f"{schedule.target}, from {schedule.folder}"),
        ("overlap", f"{schedule.overlap}; catch-up {schedule.catch_up}"),
        ("deadline", text.span(schedule.deadline_s) if schedule.deadline_s else "none"),
        ("jitter", text.span(schedule.jitter_s) if schedule.jitter_s else "none"),
        ("owner", schedule.owner),
        ("notify", f"{', '.join(schedule.notify)} on {schedule.notify_when}" if schedule.notify else "nobody"),
        ("ping", schedule.ping or ""),
    ]
    out.print(Text(schedule.name, style="bold"))
    for name, value in lines:
        if value:
            out.print(Text(f"{name:9} {text.one_line(value)}"), soft_wrap=True)
    due = [schedule_times.shown(each, schedule.zone) for each in next_due(schedule, now, 3)]
    out.print(Text(f"{'next':9} {', '.join(due) or 'paused'}"), soft_wrap=True)
    if firings:
        out.print()
        show_history(schedule, firings, out)


def show_history(schedule: Schedule, firings: Sequence[Firing], out: Console) -> None:
    """A line for each firing, the newest first."""
    from rich.text import Text

    from cluster.show import table

    made = table("night", "result", "took", "sweep", "in words", right=["took"])
    for each in firings:
        took = each.ended - each.started if each.ended and each.started else None
        made.add_row(
            schedule_times.shown(each.at, schedule.zone), _signed(word(each)), text.span(took),
            Text(each.sweep), Text(text.one_line(each.sentence or each.why)),
        )  # fmt: skip
    out.print(made)


def _signed(result: str) -> Text:
    from rich.text import Text

    sign, style = SIGNS.get(result, ("", "dim"))
    return Text(f"{sign} {result}" if result else "-", style=style)
