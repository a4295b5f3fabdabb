"""The sweep as a row of S13 Table 1: methods by µ_max, HF computed, and what was printed, which is never mixed in."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dashboards.arms import spoken
from dashboards.facts import task_name
from dashboards.page import escape
from dashboards.view import NONE, View, number, text
from sweeps.comparison import Arm, Comparison, PublishedValue
from sweeps.history import Trial

MOMENTA = (0.9, 0.99, 0.995, 0.999)
"""The columns of S13 Table 1."""
LEAST_MU = 0.8
"""A momentum below this belongs to no column of theirs."""
METHODS = (("nag", "NAG"), ("cm", "CM"))
MOST_MOMENTA = 6
_PRINTED = re.compile(r"^(?P<mu>0?\.\d+)\s*(?P<method>N|NAG|M|CM)$")


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, what stands below it, and its kind: confirmed, lucky (the search's), printed, or none."""

    shown: str = NONE
    below: tuple[str, ...] = ()
    kind: str = ""
    value: float | None = None


Line = tuple[str, list[Cell], str]
"""A row's name, its cells, and why it is not comparable."""


@dataclass(frozen=True, slots=True)
class Column:
    """A method, at a momentum if it has one."""

    head: str
    method: str
    mu: float | None = None


def columns(view: View) -> list[Column]:
    """SGD, then NAG and CM by momentum, then HF computed and HF published."""
    momenta = _momenta(view)
    found = [Column("SGD", "sgd")]
    found += [Column(text("mu_max", mu), method, mu) for method, _ in METHODS for mu in momenta]
    return [*found, Column("computed", "hf"), Column("published", "hf published")]


def _momenta(view: View) -> list[float]:
    """The momenta that were searched as a few choices, or else the table's own."""
    param = view.param("mu_max")
    if param is not None and param.kind == "choice":
        given = sorted(value for value in param.values if isinstance(value, int | float))
        if 0 < len(given) <= MOST_MOMENTA:
            return given
    return list(MOMENTA)


def nearest(mu: float, momenta: Sequence[float]) -> float | None:
    """The column of a momentum: nearest in log(1 - µ); None where it is far below all."""
    if mu in momenta:
        return mu
    if not LEAST_MU <= mu < 1:
        return None
    inside = [each for each in momenta if each < 1]
    return min(inside, key=lambda each: abs(math.log((1 - mu) / (1 - each))), default=None)


def measured(view: View) -> list[Cell]:
    """The sweep's own row, but for what was published."""
    arms = view.comparison.arms if view.comparison else ()
    cells = []
    for column in columns(view)[:-1]:
        mine = [arm for arm in arms if arm.kind != "sweep" and _fits(view, arm.method, arm.params, column)]
        shown = [arm for arm in mine if arm.typical is not None]
        if shown:  # of several the one that the search thought best: the best of the confirmed ones would be lucky
            cells.append(_confirmed(shown[0], column))
        elif mine:
            cells.append(Cell("stuck", (f"{mine[0].stuck.count} of {mine[0].stuck.of}",), "confirmed"))
        else:
            cells.append(_searched(view, column))
    return cells


def _fits(view: View, method: str, params: dict[str, object], column: Column) -> bool:
    if method != column.method or column.mu is None:
        return method == column.method
    mu = params.get("mu_max", (view.spec.get("training") or {}).get("mu_max"))
    return isinstance(mu, int | float) and nearest(mu, _momenta(view)) == column.mu


def _confirmed(arm: Arm, column: Column) -> Cell:
    below = [f"{number(arm.low)} to {number(arm.high)}"] if arm.low is not None else []
    below += _at(arm.params, column)
    below += [f"{arm.stuck.count} of {arm.stuck.of} stuck"] if arm.stuck.count else []
    return Cell(number(arm.typical), tuple(below), "confirmed", arm.typical)


def _searched(view: View, column: Column) -> Cell:
    """The search's best there: lucky, so marked."""
    if column.method == "hf":
        mine = [trial for trial in view.everything if trial.stage.startswith("search:")]
    else:
        mine = [t for t in view.ranked if _fits(view, str(view.setting(t, "method")), _settings(view, t), column)]
    ended = [trial for trial in mine if view.value(trial) is not None]
    complete = [trial for trial in ended if trial.state == "complete"]
    if not ended:
        return Cell("diverged", (f"all {len(mine):,}",), "lucky") if mine else Cell()
    pick = min if view.mode == "min" else max
    best = pick(complete or ended, key=lambda trial: view.value(trial) or 0.0)
    tried = f"best of {len(mine):,}" if len(mine) > 1 else "one trial"
    short = [] if complete else [f"only to {best.updates:,}"]
    below = (tried, *short, *_at(_settings(view, best), column))
    return Cell(number(view.value(best)), below, "lucky", view.value(best))


def _settings(view: View, trial: Trial) -> dict[str, object]:
    return {**trial.params, "mu_max": view.setting(trial, "mu_max")}


def _at(params: dict[str, object], column: Column) -> list[str]:
    """The momentum itself, where the column is only near it."""
    mu = params.get("mu_max")
    exact = column.mu is None or mu == column.mu or not isinstance(mu, int | float)
    return [] if exact else [f"at µ {text('mu_max', mu)}"]


def printed(comparison: Comparison, view: View) -> list[Line]:
    """A row for each printed row: its name, its cells, and why it is not comparable (empty if it is)."""
    rows: dict[tuple[str, str], list[PublishedValue]] = {}
    for value in comparison.published:
        rows.setdefault((value.table, value.row), []).append(value)
    heads = columns(view)
    found = []
    for (_, row), values in rows.items():
        cells = [_cell(column, values) for column in heads]
        if any(cell.kind for cell in cells):
            shown = [value for value in values if _column(value.column) in {_key(column) for column in heads}]
            found.append((f"{row}, {values[0].source}", cells, _reasons(shown)))
    return found


def _reasons(values: list[PublishedValue]) -> str:
    """Why printed values cannot stand beside ours: what holds for all of them, then what does for some."""
    whys = {value.column: [] if value.comparable else value.why.split("; ") for value in values}
    each = list(whys.values())
    shared = [why for why in each[0] if all(why in others for others in each)]
    own = {column: [why for why in reasons if why not in shared] for column, reasons in whys.items()}
    some = dict.fromkeys(why for reasons in own.values() for why in reasons)
    told = [f"{' and '.join(column for column in own if why in own[column])}: {why}" for why in some]
    return "; ".join([*shared, *told])


def _cell(column: Column, values: list[PublishedValue]) -> Cell:
    mine = [value for value in values if value.value is not None and _column(value.column) == _key(column)]
    if not mine:
        return Cell()
    names = [value.column for value in mine] if len(mine) > 1 else []
    shown = " / ".join(number(value.value, keep_zeros=False) for value in mine)
    return Cell(shown, (" / ".join(names),) if names else (), "printed", mine[0].value)


def _key(column: Column) -> tuple[str, float | None]:
    return column.method, column.mu


def _column(name: str) -> tuple[str, float | None]:
    """The method and momentum of a printed column's name."""
    if found := _PRINTED.match(name.strip()):
        return "nag" if found["method"].startswith("N") else "cm", float(found["mu"])
    plain = name.strip().lower()
    if plain.startswith("hf"):
        return "hf published", None
    return ("sgd", None) if plain in ("0", "0 (sgd)", "sgd", "0.0") else (name, None)


def markup(view: View) -> str:
    """The table, across on wide pages and turned on narrow ones."""
    heads = columns(view)
    own = measured(view)
    comparison = view.comparison
    rows = printed(comparison, view) if comparison else []
    whys = dict.fromkeys(why for _, _, why in rows if why)
    marks = {why: "*" * place for place, why in enumerate(whys, 1)}
    beside = next((_marked(cells[-1], marks.get(why, "")) for _, cells, why in rows if cells[-1].kind), Cell())
    lines = [(f"{task_name(view.spec)}, this sweep", [*own, beside], "")]
    lines += [(name, [*cells[:-2], Cell(), cells[-1]], why) for name, cells, why in rows]
    kept = [i for i, _ in enumerate(heads) if any(cells[i].kind for _, cells, _ in lines)]
    if not kept:
        return ""
    heads, lines = [heads[i] for i in kept], [(n, [c[i] for i in kept], w) for n, c, w in lines]
    best = _best(view, lines[0][1])
    notes = "".join(f'<p class="caption">{mark} not comparable: {escape(why)}</p>' for why, mark in marks.items())
    return _across(heads, lines, marks, best) + _turned(heads, lines, marks, best) + notes


def _marked(cell: Cell, mark: str) -> Cell:
    """The printed HF in the sweep's own row, with the mark of why it is not comparable."""
    return replace(cell, shown=cell.shown + mark)


def _best(view: View, cells: list[Cell]) -> Cell | None:
    """The best confirmed value."""
    sure = [cell for cell in cells if cell.kind == "confirmed" and cell.value is not None]
    pick = min if view.mode == "min" else max
    return pick(sure, key=lambda cell: cell.value or 0.0, default=None)


def _across(heads: list[Column], lines: list[Line], marks: dict[str, str], best: Cell | None) -> str:
    over: list[list[str | int]] = []
    for head in heads:
        name = _over(head)
        if over and over[-1][0] == name:
            over[-1][1] = int(over[-1][1]) + 1
        else:
            over.append([name, 1])
    groups = "".join(f'<th scope="colgroup" colspan="{n}" class="group">{escape(name)}</th>' for name, n in over)
    firsts = [i == 0 or _over(head) != _over(heads[i - 1]) for i, head in enumerate(heads)]
    names = "".join(
        f'<th scope="col"{_class("group" if first else "")}>{escape(_under(head))}</th>'
        for head, first in zip(heads, firsts, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(name)}{marks.get(why, "")}</th>'
        + "".join(_td(cell, best, "group" if first else "") for cell, first in zip(cells, firsts, strict=True))
        + "</tr>"
        for name, cells, why in lines
    )
    return (
        f'<div class="wide scroll"><table class="grid"><thead><tr><th rowspan="2"></th>{groups}</tr><tr>{names}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _turned(heads: list[Column], lines: list[Line], marks: dict[str, str], best: Cell | None) -> str:
    names = "".join(f'<th scope="col">{escape(name)}{marks.get(why, "")}</th>' for name, _, why in lines)
    body = "".join(
        f'<tr><th scope="row">{escape(f"{_over(head)} {_under(head)}".strip())}</th>'
        + "".join(_td(cells[i], best) for _, cells, _ in lines)
        + "</tr>"
        for i, head in enumerate(heads)
    )
    return (
        f'<div class="tall"><table class="grid"><thead><tr><th></th>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _over(head: Column) -> str:
    return {"sgd": "SGD", "nag": "NAG", "cm": "CM"}.get(head.method, "HF")


def _under(head: Column) -> str:
    return "" if head.method == "sgd" else head.head


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _td(cell: Cell, best: Cell | None, group: str = "") -> str:
    names = " ".join(name for name in (cell.kind, "best" if cell is best else "", group) if name)
    below = "".join(f"<small>{escape(words)}</small>" for words in cell.below)
    return f"<td{_class(names)}><b>{escape(cell.shown)}</b>{below}</td>"


def caption(view: View) -> str:
    """What the table's values are."""
    sure = bool(view.comparison and view.comparison.arms)
    words = f"Final {spoken(view.metric)} by method and µ_max, in the shape of S13 Table 1."
    if sure:
        words += " Bold: confirmed on fresh seeds, geometric mean of the runs that finished, with its 95% interval."
    lucky = any(cell.kind == "lucky" for cell in measured(view))
    words += " ○: the best the search saw there, a lucky value." if lucky else ""
    param = view.param("mu_max")
    near = param is not None and param.kind != "choice"
    words += " A µ_max stands in the column nearest to it in 1 - µ." if near else ""
    beside = bool(view.comparison and printed(view.comparison, view))
    return words + (" Italics: printed in the paper, on its data and protocol, not by us." if beside else "")
