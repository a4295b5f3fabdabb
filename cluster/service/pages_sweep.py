"""What the page of one sweep shows: its words, its plots, and the part of its trials that was asked for."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from cluster.folders import Folder, UserError
from cluster.service.models import Page, Sheet, Summary, TrialRow
from dashboards.arms import looks
from dashboards.opening import Opening, opening
from dashboards.plots import VIRIDIS
from dashboards.svg import curves, momentum_map, picture, symbol
from dashboards.svg_compared import intervals
from dashboards.view import View, searched
from sweeps.comparison import Comparison
from sweeps.history import END_STATES

if TYPE_CHECKING:
    from cluster.service.reading import Shelf

ROWS = 100
STATES = ("running", *END_STATES)
LONG, SLOW_S = 1000, 5.0
"""Trials from which on plots are made anew only so often while a sweep runs: all of them are looked at for that."""
_told: dict[tuple[str, str], tuple[str, float, tuple[Opening, dict[str, Any]]]] = {}
_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as its address asks for it."""

    path: str
    sort: str
    descending: bool
    first: str
    """The column that it is sorted by where the address says nothing."""
    first_descending: bool = False
    q: str = ""
    state: str = ""
    stage: str = ""
    page: int = 1
    size: int = ROWS
    wrong: str = ""

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.page - 1) * self.size

    @property
    def filter(self) -> str:
        """All that is asked for, as `Shelf.trials` takes it."""
        return " ".join(
            [self.q, *([f"state:{self.state}"] if self.state else []), *([f"stage:{self.stage}"] if self.stage else [])]
        ).strip()

    def link(self, **changes: Any) -> str:
        """The address of the same table, but for something; another order begins at the first page."""
        other = replace(self, **({"page": 1} | changes))
        given = {"q": other.q, "state": other.state, "stage": other.stage}
        if (other.sort, other.descending) != (self.first, self.first_descending):
            given |= {"sort": other.sort, "order": "down" if other.descending else "up"}
        if other.page > 1:
            given["page"] = str(other.page)
        asked = urlencode({name: value for name, value in given.items() if value})
        return f"{self.path}?{asked}" if asked else self.path


def table_of(
    path: str, query: Mapping[str, str], first: str, first_descending: bool = False, size: int = ROWS
) -> Table:
    """What an address asks of a table."""
    sort = query.get("sort") or first
    order = query.get("order")
    down = first_descending if order not in ("up", "down") and sort == first else order == "down"
    page = query.get("page", "1")
    return Table(
        path, sort[:80], down, first, first_descending, query.get("q", "").strip()[:200], query.get("state", "")[:40],
        query.get("stage", "")[:80], min(int(page), 10**6) if page.isdecimal() and int(page) else 1, size,
    )  # fmt: skip


def address(id_: str) -> str:
    """The path of a sweep's page."""
    return f"/sweeps/{quote(id_, safe='')}"


def context(shelf: Shelf, id_: str, query: Mapping[str, str]) -> dict[str, Any]:
    """All that the page of a sweep shows.

    Raises:
        NoSuchSweep: there is none.
        UserError: it cannot be read.
    """
    sheet = shelf.sweep(id_)
    summary = sheet.summary
    table = table_of(address(id_), query, "objective", summary.mode == "max")
    found, table = _trials(shelf, id_, table)
    stored = shelf.comparison(id_)
    names = list(sheet.names)
    if table.stage and table.stage != "search":  # a baseline has parameters of its own
        names = list(dict.fromkeys(name for row in found.rows for name in row.params)) or names
    said, drawn = told(shelf, summary, stored)
    shown = {
        "summary": summary, "sheet": sheet, "table": table, "rows": found.rows, "matched": found.matched,
        "total": found.total, "names": names, "wordy": wordy(found.rows, names), "trial_states": STATES,
    }  # fmt: skip
    words = {
        "opening": said, "drawn": drawn, "rival": drawn["rival"], "counted": counted(summary),
        "commands": commands(summary, sheet), "downloads": downloads(id_),
        "best_number": int(summary.best_trial[1:]) if summary.best_trial else 0,
        "lucky": not summary.verdict and summary.ended > 1,
    }  # fmt: skip
    return shown | words


def wordy(rows: Sequence[TrialRow], names: Sequence[str]) -> set[str]:
    """The parameters whose values are words."""
    return {name for name in names if any(isinstance(row.params.get(name), str) for row in rows)}


def _trials(shelf: Shelf, id_: str, table: Table) -> tuple[Page[TrialRow], Table]:
    """The rows that were asked for; of what cannot be understood all rows, and why."""
    try:
        return shelf.trials(id_, table.sort, table.descending, table.filter, table.offset, table.size), table
    except UserError as error:
        plain = Table(table.path, table.first, table.first_descending, table.first, table.first_descending)
        found = shelf.trials(id_, plain.sort, plain.descending, "", 0, plain.size)
        return found, replace(plain, q=table.q, wrong=f"{error}. All trials are shown.")


def view_of(folder: Folder, stored: Mapping[str, Any] | None) -> View:
    """A sweep as the plots and the report's words take it, without reading its journal again."""
    spec = folder.spec
    return View(
        spec, folder.history, folder.objective, str(spec.get("mode") or "min"), searched(spec.get("space") or {}),
        folder.path, comparison_of(stored),
    )  # fmt: skip


def comparison_of(stored: Mapping[str, Any] | None) -> Comparison | None:
    """What comparison.json says; None where there is none, or one of another musweep."""
    try:
        return Comparison.from_dict(dict(stored)) if stored else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def told(shelf: Shelf, summary: Summary, stored: Mapping[str, Any] | None) -> tuple[Opening, dict[str, Any]]:
    """The words and plots of a sweep. Those of a long one that runs are made anew only now and then."""
    key = (str(shelf.root), summary.id)
    slow = summary.state == "running" and summary.ended > LONG
    with _turn:
        known = _told.get(key)
    if known is not None and slow and known[0] == summary.state and time.monotonic() - known[1] < SLOW_S:
        return known[2]

    def make(folder: Folder) -> tuple[Opening, dict[str, Any]]:
        view = view_of(folder, stored)
        return opening(view), draw(view)

    found = shelf.view(summary.id, ("told", summary.version), make)
    with _turn:
        if slow:
            _told[key] = (summary.state, time.monotonic(), found)
        else:
            _told.pop(key, None)
    return found


def draw(view: View) -> dict[str, Any]:
    """The plots of a sweep, as SVG."""
    compared = view.comparison
    contrast = compared and (compared.primary or next(iter(compared.contrasts), None))
    return {
        "curves": curves(view), "map": momentum_map(view), "ramp": ramp(), "legend": legend(),
        "intervals": intervals(compared) if compared is not None and len(compared.arms) > 1 else "",
        "rival": _called(compared, contrast.b) if compared and contrast else "each other",
    }  # fmt: skip


def _called(compared: Comparison, name: str) -> str:
    return looks(compared)[name].name


def ramp() -> str:
    """The colours of objectives, the best at the left."""
    steps = len(VIRIDIS)
    parts = [f'<path class="v{i}" d="M{i * 15} 0h15v12h-15z"/>' for i in range(steps)]
    return picture(15 * steps, 12, "colours from the best to the worst", "".join(parts), "plot ramp-bar")


def legend() -> dict[str, str]:
    """What the marks of the map stand for."""
    kinds = {
        "complete": ("circle", 5.0, "v v2"), "stopped": ("circle", 3.2, "v v2"), "running": ("diamond", 4.0, "v v2"),
        "diverged": ("cross", 3.4, "lost"), "best": ("ring", 6.0, "chosen"),
    }  # fmt: skip
    return {name: picture(16, 16, name, symbol(8, 8, *kind), "plot key") for name, kind in kinds.items()}


def counted(summary: Summary) -> str:
    """Trials by state in words."""
    return ", ".join(f"{number:,} {state}" for state in STATES if (number := summary.counts.get(state)))


def downloads(id_: str) -> dict[str, str]:
    """Where a sweep's numbers can be had as files."""
    path = f"/api/v1{address(id_)}"
    return {"every measurement (Arrow)": f"{path}/rows?format=arrow", "trials (JSON)": f"{path}/trials?limit=10000"}


def commands(summary: Summary, sheet: Sheet) -> list[str]:
    """What shows or does the same in a terminal."""
    folder = shlex.quote(sheet.folder)
    found = [
        f"musweep show {folder}",
        f"musweep logs {folder} -f",
        f"musweep report {folder} --open",
        f"musweep export {folder} --format csv",
    ]
    if summary.state not in ("running", "finished"):
        found.append(f"musweep resume {folder}")
    if sheet.compared:
        found.append(f"musweep compare {folder}")
    elif summary.state == "finished":
        found.append(f"musweep confirm {folder} --top 3 --seeds 10 --hf")
    return [*found, *([sheet.links.mlflow_command] if sheet.links.mlflow_command else []),
            *([sheet.links.optuna] if sheet.links.optuna else [])]  # fmt: skip
