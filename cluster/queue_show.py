"""How `musweep queue` shows a queue: a line for each sweep, why it waits beside or below it as the terminal is wide."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cluster import text
from cluster.queue import ENDED, UNDER_WAY, Entry, Queue
from cluster.queue_lease import leader

if TYPE_CHECKING:
    from rich.console import Console

# Sky blue, orange, green and vermilion of Okabe and Ito's palette, which the colour-blind tell apart; signs say it too.
SIGNS = {
    "running": ("▶", "#56B4E9"),
    "starting": ("▷", "#56B4E9"),
    "queued": ("·", ""),
    "held": ("‖", "#E69F00"),
    "finished": ("✓", "#009E73"),
    "failed": ("✗", "bold #D55E00"),
    "stopped": ("■", "dim"),
}
_HEAD = ("", "sweep", "owner", "prio", "needs", "state", "since")
_RIGHT = {0, 3, 6}
_NARROWEST_BESIDE = 40
"""Columns that words need beside the others; with fewer they go below."""
_SILENT_S = 60.0


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """As a person reads them: what runs, what waits as it would start, what is held, what has ended, latest first."""
    groups: dict[str, list[Entry]] = {"way": [], "queued": [], "held": [], "ended": []}
    for entry in entries:
        groups["way" if entry.state in UNDER_WAY else "ended" if entry.state in ENDED else entry.state].append(entry)
    groups["queued"].sort(key=lambda each: (-each.priority, each.seq))
    groups["ended"].sort(key=lambda each: -(each.ended or 0.0))
    return [each for group in groups.values() for each in group]


def needs(entry: Entry) -> str:
    """What an entry holds or would hold: `4 CPU 2 GPU`, with `3 of 4` if it has fewer workers than it asked for."""
    share = (entry.granted or entry.workers) / entry.workers
    words = f"{entry.cpus * share:.3g} CPU" + (f" {entry.gpus * share:.3g} GPU" if entry.gpus else "")
    if 0 < entry.granted < entry.workers:
        return f"{words}, {entry.granted} of {entry.workers}"
    return words


def cells(entry: Entry, position: int, now: float) -> list[str]:
    """An entry's columns but for why."""
    since = entry.ended if entry.state in ENDED else entry.started if entry.state in UNDER_WAY else entry.submitted
    return [
        str(position) if position else "",
        entry.id,
        entry.owner,
        str(entry.priority),
        needs(entry),
        f"{SIGNS[entry.state][0]} {'stopping' if entry.wanted else entry.state}",
        text.span(max(0.0, now - since)) if since is not None else "-",
    ]


def show(entries: Sequence[Entry], out: Console, now: float | None = None) -> None:
    """Print entries as a table."""
    from rich.text import Text

    now = time.time() if now is None else now
    ordered = in_order(entries)
    waiting = [each.id for each in ordered if each.state == "queued"]
    rows = [cells(each, waiting.index(each.id) + 1 if each.id in waiting else 0, now) for each in ordered]
    rows = [[text.one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(_HEAD), *rows]) for column in range(len(_HEAD))]
    used = sum(widths) + 2 * len(widths)
    beside = out.width - used if out.width - used >= _NARROWEST_BESIDE else 0
    out.print(Text(_line(_HEAD, widths) + ("  why" if beside else ""), style="dim"), soft_wrap=True)
    for entry, row in zip(ordered, rows, strict=True):
        line = Text(_line(row, widths))
        start = sum(widths[:5]) + 2 * 5
        line.stylize(SIGNS[entry.state][1], start, start + widths[5])
        line.stylize("bold", widths[0] + 2, widths[0] + 2 + widths[1])
        why = text.one_line(entry.why)
        if beside:
            folded = textwrap.wrap(why, beside) or [""]
            line.append(f"  {folded[0]}")
            below = [" " * used + each for each in folded[1:]]
        else:
            indent = " " * (widths[0] + 4)
            below = textwrap.wrap(why, max(20, out.width), initial_indent=indent, subsequent_indent=indent)
        out.print(line, soft_wrap=True)
        for each in below:
            out.print(Text(each, style="" if beside else "dim"), soft_wrap=True)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def summary(queue: Queue, target: str, entries: Iterable[Entry], now: float | None = None) -> str:
    """How a target's queue stands, and who dispatches it, in a line."""
    now = time.time() if now is None else now
    states = Counter(each.state for each in entries if each.target == target)
    under_way = sum(states[state] for state in UNDER_WAY)
    counts = f"{under_way} under way, {states['queued']} waiting" + (
        f", {states['held']} held" if states["held"] else ""
    )
    found = leader(queue, target)
    if found is None:
        return f"{target}: {counts}; nobody dispatches it: musweep queue run --to {target}"
    holder, seen = found
    silent = now - seen
    beat = f"; its last beat was {text.span(silent)} ago: is it alive?" if silent > _SILENT_S else ""
    return f"{target}: {counts}; dispatched by {holder}{beat}"
