"""`musweep compare`: a comparison as a terminal shows it, and `musweep confirm`: what it takes to have one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import text
from cluster.folders import UserError, find, is_sweep
from cluster.show import table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sweeps.comparison import Arm, Comparison, PublishedValue, TaskProfile

STYLES = {"better": "bold blue", "worse": "bold dark_orange", "equivalent": "bold"}
"""Blue and orange are told apart by every kind of colour vision; the words say it too."""
MATCHES = ("work", "wall")
HF_POINTS = 12
"""Points of an HF search that is added to a finished sweep, at least, but never more than the sweep's own: three for
each of four parameters."""


def run(typed: Sequence[Path], against: str | None, match: str | None) -> Comparison:
    """Compare sweeps, and keep what a sweep's own spec asks for as its comparison.json.

    Raises:
        UserError: no such sweep or baseline, or nothing confirmed in it; the text says what to do.
    """
    from sweeps import compared

    if match not in (None, *MATCHES):
        raise UserError(f"--match={match}: one of {', '.join(MATCHES)}")
    folders = [find(path) for path in typed]
    if not folders:
        raise UserError("compare: name a sweep's folder, or several")
    try:
        found = compared.compare(folders[0], _other(against), folders[1:], match)
    except compared.NothingToCompare as nothing:
        raise UserError(str(nothing)) from None
    if len(folders) == 1 and against is None and match is None:
        _keep(folders[0], found)
    return found


def _keep(folder: Path, found: Comparison) -> None:
    """Store a comparison; where it says something else than the one before it, MLflow is told at once."""
    from sweeps import compared
    from sweeps.folder import read_spec_file

    path = folder / compared.FILE
    before = path.read_bytes() if path.is_file() else None
    compared.keep(folder, found)
    if before in (None, path.read_bytes()) or not (read_spec_file(folder).get("mlflow") or {}).get("enabled", True):
        return
    from sweeps import tracking

    try:
        tracking.sync(folder)
    except Exception as error:  # whatever MLflow raises: the comparison stands, and is told later
        print(
            f"MLflow: {text.plain(str(error).partition(chr(10))[0])}; musweep sync {folder} tells it", file=sys.stderr
        )


def _other(against: str | None) -> str | None:
    """What --against means: a sweep's folder, also by its name under runs/, or else a baseline's name."""
    if against is not None and not is_sweep(Path(against)) and is_sweep(Path("runs") / against):
        return str(Path("runs") / against)
    return against


def as_json(found: Comparison) -> str:
    """The comparison as comparison.json holds it."""
    return json.dumps(found.to_dict(), indent=1, allow_nan=False)


def show(found: Comparison, out: Console, against: str | None = None) -> None:
    """Print a comparison: the verdict, arms, contrasts, published values apart, and what was not compared."""
    out.print(beside(found) if against == "published" else headline(found))
    out.print()
    out.print(_plain(facts(found)))
    if found.arms:
        out.print(arms(found))
        out.print(f"[dim]{_plain(legend(found))}[/]")
    if found.contrasts:
        out.print(contrasts(found))
    if found.profile:
        out.print(profile(found.profile))
        for line in beneath(found.profile):
            out.print(f"[dim]{_plain(line)}[/]")
    for line in published(found.published):
        out.print(line)
    if found.refusals:
        out.print("\n[bold]Not compared[/]")
        for why in found.refusals:
            out.print(f"- {_plain(why)}")


def headline(found: Comparison) -> str:
    """The verdict in one sentence."""
    first = found.primary
    if first is not None:
        style = STYLES.get(first.verdict, "bold")
        return f"[{style}]{_plain(_capital(first.sentence))}[/]"
    if found.contrasts:
        whole = "No contrast was named beforehand" if len(found.contrasts) == 1 else "Of several contrasts, the first"
        return f"[bold]{whole}[/]: {_plain(found.contrasts[0].sentence)}"
    why = "the reasons are below" if found.refusals else "nothing was measured to hold it against"
    ours = f" {_plain(_ended(found.arms[0]))}" if found.arms else ""
    return f"[bold]No verdict[/]: {why}.{ours}"


def beside(found: Comparison) -> str:
    """How the best point ended, and whether any printed value may stand beside that."""
    ours = _ended(found.arms[0]) if found.arms else "Nothing was confirmed."
    same = [each for each in found.published if each.comparable]
    if same:
        printed = ", ".join(f"{each.column} {text.value(each.value)}" for each in same)
        return (
            f"[bold]{_plain(ours)}[/] Printed, and got in the same way: {_plain(printed)} ({_plain(same[0].source)})."
        )
    count = text.plural(len(found.published), "printed value")
    return f"[bold]{_plain(ours)}[/] None of {count} may stand beside that as its equal; the reasons are below."


def _ended(arm: Arm) -> str:
    """How an arm ended, in a sentence."""
    runs = text.plural(len(arm.trials), "run")
    if arm.stuck.count == arm.stuck.of:
        return f"{arm.label}: none of {runs} finished."
    if arm.typical is None:
        return f"{arm.label}: {runs}, whose values have no mean of errors."
    lost = f", {arm.stuck.count} of them stuck or diverged" if arm.stuck.count else ""
    return f"{arm.label}: {_within(arm.typical, arm.low, arm.high)} from {runs}{lost}."


def facts(found: Comparison) -> str:
    """What was measured, on what, for how long."""
    words = [found.sweep_id, f"task {found.task}", f"{found.metric} {found.mode}"]
    if found.updates:
        words.append(f"{found.updates:,} updates of {found.batch}, matched on {found.match}")
    return " · ".join([*words, *([found.note] if found.note else [])])


def arms(found: Comparison) -> Table:
    """A row for each arm; their work has a column where it differs."""
    unlike = len({arm.work for arm in found.arms}) > 1
    columns = ("arm", "point", "stuck", "error", "search", *(["work"] if unlike else []), "time")
    made = table(*columns, right=columns[4:], title="Arms")
    for column in made.columns:
        column.no_wrap = column.header != "point"
    for arm in found.arms:
        work = [text.count(arm.work)] if unlike else []
        made.add_row(
            _plain(arm.name), _plain(arm.label), _stuck(arm), _within(arm.typical, arm.low, arm.high),
            "-" if arm.searched is None else _three(arm.searched), *work, _seconds(arm.seconds),
        )  # fmt: skip
    return made


def _stuck(arm: Arm) -> str:
    """The share of runs that were stuck or diverged, with its interval: `2 of 10 (6–51%)`."""
    share = arm.stuck
    return f"{share.count} of {share.of} ({100 * share.low:.0f}–{share.high:.0%})"


def _within(value: float | None, low: float | None, high: float | None) -> str:
    """A value with its interval: `0.568 (0.529–0.611)`."""
    if value is None:
        return "-"
    return _three(value) if low is None or high is None else f"{_three(value)} ({_three(low)}–{_three(high)})"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g}s" if seconds < 1 else text.span(seconds)


def _three(value: float) -> str:
    """Three significant digits, zeros shown: `0.600`."""
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1000 else f"{value:.3g}"


def legend(found: Comparison) -> str:
    """What the columns mean."""
    words = [f"error: {found.metric}, geometric mean of the runs that finished, with its 95% interval"]
    if found.stuck_above is not None:
        side = "above" if found.mode == "min" else "below"
        constant = f" (a constant scores {_three(found.trivial)})" if found.trivial is not None else ""
        words.append(f"stuck: ended {side} {_three(found.stuck_above)}{constant}, or diverged")
    if any(arm.searched is not None for arm in found.arms):
        words.append("search: what the search saw, the luckiest of many")
    if len({arm.work for arm in found.arms}) > 1:
        words.append("work: gradients of one example")
    return "; ".join(words)


def contrasts(found: Comparison) -> Table:
    """A row for each contrast, the one named beforehand first and marked."""
    columns = ("contrast", "verdict", "ratio of errors", "p", "failures", "ranks", "time")
    made = table(*columns, right=columns[3:], title="Contrasts (ratio below 1: the first is better)")
    for each in found.contrasts:
        style = STYLES.get(each.verdict, "")
        verdict = f"[{style}]{each.verdict}[/]" if style else each.verdict
        mark = " *" if each.primary else ""
        chances = (_p(p) for p in (each.p_adjusted, each.p_failures, each.p_ranks, each.p_time))
        made.add_row(_plain(f"{each.a} : {each.b}{mark}"), verdict, _ratio(each.ratio, each.low, each.high), *chances)
    if any(each.primary for each in found.contrasts):
        made.caption = "* named beforehand; the p of the others is Holm's, over all of them"
        made.caption_justify = "left"
    return made


def _ratio(ratio: float | None, low: float | None, high: float | None) -> str:
    from sweeps.compare_words import numbers

    middle, *bounds = numbers(ratio, low, high) or ["-"]
    return f"{middle} ({bounds[0]}–{bounds[1]})" if len(bounds) == 2 else middle


def _p(p: float | None) -> str:
    return "-" if p is None else "<.001" if p < 0.001 else f"{p:.2g}"


def profile(found: TaskProfile) -> Table:
    """A row for each method: on how many of the tasks it is within each factor of the best method there."""
    from sweeps.labels import method_name

    columns = [f"≤ {factor:g} ×" for factor in found.factors]
    count = len(found.tasks)
    made = table("method", *columns, "failed", right=[*columns, "failed"], title=f"Methods over {count} sweeps")
    for method, shares in found.share.items():
        failed = sum(row[method] is None for row in found.errors.values())
        within = (f"{round(share * count)} of {count}" for share in shares)
        made.add_row(_plain(method_name(method)), *within, str(failed))
    return made


def beneath(found: TaskProfile) -> list[str]:
    """What the profile's columns mean, of which sweeps it is, and what is not in it."""
    return [
        "tasks where its error is at most so many times the best method's; failed: at most half of its runs finished",
        f"tasks: {', '.join(found.tasks)}; each method by the point that the search there had as its best",
        *(f"left out: {why}" for why in found.left_out),
    ]


def published(values: Sequence[PublishedValue]) -> list[str]:
    """The printed values in lines, those that may stand beside ours apart from those that may not, with the reasons."""
    lines = []
    for same, title in ((True, "Published, got in the same way"), (False, "Published, not comparable with ours")):
        rows: dict[tuple[str, str], list[PublishedValue]] = {}
        for each in values:
            if each.comparable is same:
                rows.setdefault((each.source, each.row), []).append(each)
        lines += [f"\n[bold]{title}[/]"] if rows else []
        for (source, row), some in rows.items():
            cells = " · ".join(f"{each.column} {text.value(each.value)}" for each in some)
            lines.append(_plain(f"{source}, {row}: {cells}"))
            lines += [f"[dim]{_plain(line)}[/]" for line in _reasons(some)]
    return lines


def _reasons(some: Sequence[PublishedValue]) -> list[str]:
    """Why values of a row are not comparable: what holds of all of them once, then the rest of each."""
    reasons = [[part for part in each.why.split("; ") if part] for each in some]
    common = [part for part in reasons[0] if all(part in parts for parts in reasons)]
    own = [[part for part in parts if part not in common] for parts in reasons]
    lines = [f"- {'; '.join(common)}"] if common else []
    return lines + [f"- {each.column}: {'; '.join(parts)}" for each, parts in zip(some, own, strict=True) if parts]


def add_confirm(typed: Path, top: int, seeds: int, hf: bool) -> Path:
    """Have a sweep's spec.json ask for confirmation, and for HF's own search if `hf`; the sweep has to be resumed then.

    Raises:
        UserError: it has that already, or the spec does not allow it.
        LeaseHeld: a driver is running the sweep.
    """
    from cluster.plan import warnings
    from sweeps.folder import read_spec_file, write_spec_file
    from sweeps.lease import Lease
    from sweeps.resolve import known_of_data
    from sweeps.spec import parse

    folder = find(typed)
    with Lease(folder):
        data = read_spec_file(folder)
        resolved = data.pop("resolved", None)
        changes: dict[str, Any] = {} if data.get("confirm") else {"confirm": {"top": top, "seeds": seeds}}
        baselines = list(data.get("baselines") or ())
        if hf and not any(each.get("kind") == "hf" for each in baselines):
            share = max(0.25, min(1.0, HF_POINTS / data["budget"]["trials"]))
            changes["baselines"] = [*baselines, {"kind": "hf", "share": share}]
        if not changes:
            raise UserError(f"{folder}: its spec has that already; go on with: musweep resume {folder}")
        spec = parse(data | changes, str(folder / "spec.json"))
        for line in warnings(spec):
            print(f"warning: {line}", file=sys.stderr)
        if resolved:
            trivial, known = known_of_data(spec)
            resolved |= {"trivial": trivial, "data": known}
        write_spec_file(folder, spec.model_dump(mode="json") | ({"resolved": resolved} if resolved else {}))
    return folder


def _capital(words: str) -> str:
    """A sentence that begins with a capital letter, unless with an arm's name."""
    return f"W{words[1:]}" if words.startswith("where ") else words


def _plain(words: str) -> str:
    return text.plain(words)
