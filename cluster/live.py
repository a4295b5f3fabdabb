"""What a running sweep shows: one live table on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import termios
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from cluster import text
from cluster.show import STYLES, console
from sweeps.history import END_STATES

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Status = dict[str, Any]
LINE_EVERY_S = 5.0
_PHASES = {
    "starting": "starting (engines are measured, workers start)",
    "finishing": "finishing (tables, report, MLflow)",
    "stopping": "stopping (checkpoints are written; Ctrl-C again gives up on them)",
}


class Progress(Protocol):
    """Shows the states of a sweep while its `with` block runs; call it with each new state."""

    def __call__(self, status: Status) -> None: ...  # noqa: D102
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


def progress(out: Console | None = None) -> Progress:
    """The live table if the console is a terminal, else plain lines."""
    out = out or console()
    return LiveTable(out) if out.is_terminal else PlainLines(out)


class PlainLines:
    """One line at most every `LINE_EVERY_S` seconds, and one at each change of phase."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._began = time.monotonic()
        self._phase = ""
        self._printed = -LINE_EVERY_S
        self._troubles: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, status: Status) -> None:
        """Print the state if it is time for a line."""
        now = time.monotonic() - self._began
        for trouble in troubles(status):
            if trouble not in self._troubles:
                self._troubles.add(trouble)
                self._print(f"[{clock(now)}] warning: {trouble}")
        if status.get("phase") == self._phase and now - self._printed < LINE_EVERY_S:
            return
        if status.get("phase") != self._phase and self._phase == "":
            self._print(f"[{clock(now)}] sweep {status.get('sweep_id', '')} in {status.get('folder', '')}")
        self._phase, self._printed = status.get("phase", ""), now
        self._print(f"[{clock(now)}] {line(status)}")

    def _print(self, words: str) -> None:
        self._out.print(words, markup=False, soft_wrap=True)
        self._out.file.flush()


def clock(seconds: float) -> str:
    """Elapsed time as `mm:ss` or `h:mm:ss`."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes:02d}:{whole % 60:02d}"


def line(status: Status) -> str:
    """A state in one line of plain text."""
    parts = [status.get("phase", "")]
    if trials := status.get("trials"):
        parts.append(f"{ended(trials)} of {trials['budget']} trials ended")
        parts.append(by_stage(status))
        parts.append(", ".join(f"{trials[state]} {state}" for state in ("running", *END_STATES) if trials.get(state)))
    if best := status.get("best"):
        parts.append(f"best {text.value(best['objective'])} (t{best['trial']:05d})")
    if status.get("updates_per_s"):
        parts.append(f"{text.count(status['updates_per_s'])} updates/s")
    if left := time_left(status):
        parts.append(left)
    parts.append(str(status.get("waiting") or ""))
    return "  ".join(part for part in parts if part)


def by_stage(status: Status) -> str:
    """Trials ended of each stage, `search 20 of 20, confirm 3 of 12`; empty where there is but one."""
    stages = status.get("stages") or {}
    return ", ".join(f"{name} {done} of {size}" for name, (done, size) in stages.items()) if len(stages) > 1 else ""


def time_left(status: Status) -> str:
    """The time left in words; empty unless trials are trained and it is known."""
    if status.get("phase") not in ("searching", "confirming") or status.get("eta_s") is None:
        return ""
    return f"about {text.span(max(1.0, status['eta_s']))} left"


def ended(trials: dict[str, int]) -> int:
    """Trials that reached an end state."""
    return sum(trials.get(state, 0) for state in END_STATES)


def troubles(status: Status) -> list[str]:
    """What a person should know although the sweep goes on: MLflow away, disk full, a group lost."""
    found = []
    mlflow = status.get("mlflow") or {}
    if mlflow.get("error"):
        found.append(f"MLflow: {str(mlflow['error']).splitlines()[0]} (rows wait in the folder and follow later)")
    found += [str(status[key]) for key in ("trouble", "note") if status.get(key)]
    lost = status.get("lost")
    if isinstance(lost, dict):
        found += [f"group {group} was lost: {reason}" for group, reason in lost.items()]
    elif lost:
        found.append(f"groups lost: {lost}")
    return found


class LiveTable:
    """A table that stays in place and is redrawn."""

    def __init__(self, out: Console) -> None:
        from rich.live import Live

        self._began = time.monotonic()
        self._status: Status = {"phase": "starting"}
        self._live = Live(console=out, refresh_per_second=4, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._echo = _quiet_ctrl_c()
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        if self._echo is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._echo)

    def __call__(self, status: Status) -> None:
        """Take a new state; it is drawn with the next refresh."""
        # The first and last states carry only a phase: keep the figures that are known.
        self._status = {**self._status, **status}

    def _draw(self) -> RenderableType:
        return render(self._status, time.monotonic() - self._began)


def _quiet_ctrl_c() -> list[Any] | None:
    """Keep the terminal from writing ^C into the table; returns what to restore, None where there is no terminal."""
    try:
        before, quiet = termios.tcgetattr(sys.stdin), termios.tcgetattr(sys.stdin)
        quiet[3] &= ~termios.ECHOCTL
        termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    except (termios.error, ValueError, OSError):
        return None
    return before


def render(status: Status, elapsed_s: float) -> RenderableType:
    """The live table of one state."""
    from rich import box
    from rich.markup import escape
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    phase = status.get("phase", "")
    grid.add_row("phase", "  ".join(filter(None, (_PHASES.get(phase, phase), clock(elapsed_s), time_left(status)))))
    trials = status.get("trials")
    if trials:
        budget = max(1, trials["budget"])
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=budget, completed=ended(trials), width=40), f"{ended(trials)} of {budget} trials ended"
        )
        grid.add_row("trials", bar)
        states = (
            f"[{STYLES.get(state, 'default') if trials.get(state) else 'dim'}]{trials.get(state, 0)} {state}[/]"
            for state in ("running", *END_STATES)
            if trials.get(state) or state not in ("failed", "skipped")
        )
        grid.add_row("", "  ".join(states))
        if stages := by_stage(status):
            grid.add_row("stages", stages.replace(", ", "   "))
    if best := status.get("best"):
        values = escape(text.params(best["params"]))
        grid.add_row("best", f"[bold]{text.value(best['objective'])}[/]  t{best['trial']:05d}  {values}")
    if rungs := status.get("rungs"):
        steps = sorted((int(update), reached, passed) for update, (reached, passed) in rungs.items())
        grid.add_row("rungs", "   ".join(f"{update}: {reached} → {passed}" for update, reached, passed in steps))
    if status.get("updates"):
        rate = f"{text.count(status['updates_per_s'])} a second, " if status.get("updates_per_s") else ""
        grid.add_row("updates", f"{rate}{text.count(status['updates'])} in all")
    mlflow = status.get("mlflow")
    if mlflow and not mlflow.get("error"):
        behind = mlflow.get("behind") or 0
        grid.add_row("MLflow", "up to date" if not behind else f"{text.plural(behind, 'trial')} behind")
    if status.get("waiting"):
        grid.add_row("waiting", escape(str(status["waiting"])))
    for trouble in troubles(status):
        grid.add_row("[yellow]warning[/]", f"[yellow]{escape(trouble)}[/]")
    foot = None if phase == "done" else "[dim]Ctrl-C stops cleanly; it can be resumed[/]"
    title = f"[bold]{escape(str(status.get('sweep_id', 'musweep')))}[/]"
    return Panel(grid, title=title, title_align="left", subtitle=foot, subtitle_align="right", box=box.ROUNDED)
