"""What a running sweep shows."""

import io
from typing import Any

import pytest
from rich.console import Console

from cluster import live

STATUS: dict[str, Any] = {
    "sweep_id": "curves-1", "folder": "runs/curves-1", "phase": "searching",
    "trials": {"asked": 30, "budget": 48, "running": 12, "complete": 4, "stopped": 13, "diverged": 1, "failed": 0},
    "best": {"trial": 7, "objective": 0.01234, "params": {"lr": 0.05, "mu_max": 0.995, "method": "nag"}},
    "rungs": {300: [20, 8], 900: [8, 3]}, "updates": 43_210, "updates_per_s": 3456.7, "eta_s": 95.0, "elapsed_s": 60.0,
    "mlflow": {"behind": 0, "error": None},
}  # fmt: skip


def plain(width: int = 200) -> tuple[live.PlainLines, io.StringIO]:
    file = io.StringIO()
    return live.PlainLines(Console(file=file, width=width)), file


def test_a_line_says_it_all_in_plain_text() -> None:
    assert live.line(STATUS) == (
        "searching  18 of 48 trials ended  12 running, 4 complete, 13 stopped, 1 diverged  "
        "best 0.01234 (t00007)  3457 updates/s  about 1m35s left"
    )
    assert live.line({"phase": "starting"}) == "starting"


def test_what_is_waited_for_is_said() -> None:
    status = "no worker for group 1: a worker needs 1 GPU, 0 of 8 free"
    assert live.line({**STATUS, "waiting": status}).endswith(f"  about 1m35s left  {status}")
    file = io.StringIO()
    Console(file=file, width=160).print(live.render({**STATUS, "waiting": status}, 5.0))
    assert status in file.getvalue()


def test_stages_are_told_where_there_are_several() -> None:
    staged = {**STATUS, "phase": "confirming", "stages": {"search": [48, 48], "confirm": [3, 30]}}
    assert "18 of 48 trials ended  search 48 of 48, confirm 3 of 30  12 running" in live.line(staged)
    assert live.time_left(staged) == "about 1m35s left"
    assert live.by_stage({**STATUS, "stages": {"search": [3, 48]}}) == ""
    file = io.StringIO()
    Console(file=file, width=160).print(live.render({**staged, "note": "nothing to confirm of search"}, 5.0))
    assert "search 48 of 48   confirm 3 of 30" in file.getvalue()
    assert "nothing to confirm of search" in file.getvalue()


def test_time_left_is_told_only_while_searching() -> None:
    assert live.time_left(STATUS) == "about 1m35s left"
    assert live.time_left({**STATUS, "phase": "finishing"}) == ""
    assert live.time_left({**STATUS, "eta_s": None}) == ""
    assert live.time_left({**STATUS, "eta_s": 0.0}) == "about 1.0s left"


def test_lines_come_every_five_seconds_and_at_each_change_of_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    lines, file = plain()
    with lines:
        lines({"phase": "starting", "sweep_id": "curves-1", "folder": "runs/curves-1"})
        for tick in range(24):  # half a second each
            now = tick / 2
            lines(STATUS)
        lines({"phase": "finishing"})
        lines({"phase": "done"})
    stamps = [line.split("]")[0].strip("[") for line in file.getvalue().splitlines()]
    assert stamps == ["00:00", "00:00", "00:00", "00:05", "00:10", "00:11", "00:11"]
    assert "curves-1 in runs/curves-1" in file.getvalue()


def test_lines_are_never_folded() -> None:
    lines, file = plain(width=40)
    lines(STATUS)
    assert [len(line) > 40 for line in file.getvalue().splitlines()] == [False, True]


def test_a_trouble_is_told_once() -> None:
    lines, file = plain()
    for _ in range(3):
        lines(
            {**STATUS, "mlflow": {"behind": 9, "error": "connection refused\ntraceback"}, "lost": {1: "out of memory"}}
        )
    assert file.getvalue().count("connection refused") == 1
    assert "traceback" not in file.getvalue()
    assert file.getvalue().count("group 1 was lost: out of memory") == 1


def test_the_table_shows_every_figure() -> None:
    out = Console(file=io.StringIO(), width=120)
    out.print(live.render(STATUS, 75.0))
    said = out.file.getvalue()  # type: ignore[attr-defined]
    for words in ("curves-1", "01:15", "18 of 48", "12 running", "1 diverged", "0.01234", "t00007", "mu_max=0.995",
                  "300: 20 → 8", "900: 8 → 3", "3457 a second", "43.2k in all", "up to date", "1m35s"):  # fmt: skip
        assert words in said
    assert "failed" not in said
    assert "warning" not in said


def test_the_table_draws_before_the_first_figures() -> None:
    out = Console(file=io.StringIO(), width=80)
    out.print(live.render({"phase": "starting"}, 0.0))
    assert "starting" in out.file.getvalue()  # type: ignore[attr-defined]


def test_the_display_follows_the_terminal() -> None:
    assert isinstance(live.progress(Console(file=io.StringIO(), force_terminal=True)), live.LiveTable)
    assert isinstance(live.progress(Console(file=io.StringIO(), force_terminal=False)), live.PlainLines)


def test_the_live_table_keeps_figures_that_a_later_state_lacks() -> None:
    file = io.StringIO()
    with live.LiveTable(Console(file=file, force_terminal=True, width=120)) as table:
        table(STATUS)
        table({"phase": "done"})
    last = file.getvalue().rpartition("curves-1")[2]
    assert "done" in last
    assert "0.01234" in last
