import io
from pathlib import Path

import pytest
from rich.console import Console

from cluster.queue import Queue
from cluster.queue_lease import Leadership
from cluster.queue_show import in_order, show, summary
from tests.cluster.queued import entry, running

ENTRIES = [
    entry(1, why="waiting for 8 GPUs: 8 of 8 are held by s3 (priority 5)", gpus=8, priority=2),
    running(3, gpus=8, priority=5, workers=4, started=100.0, granted=2),
    entry(2, why="behind s1 (priority 2), which waits for 1 CPU and 8 GPUs", owner="bob"),
    entry(4, state="held", why="held by ann; release it with: musweep queue release s4"),
    entry(5, state="failed", why="exit code 2: \x1b[31mbad\nspec", ended=50.0),
    entry(6, priority=2, why="behind s1"),
    running(7, wanted="held", why="held by ann"),
]


def shown(width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, highlight=False, emoji=False)
    show(ENTRIES, out, now=160.0)
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_what_runs_comes_first_then_what_waits_as_it_would_start() -> None:
    assert [each.id for each in in_order(ENTRIES)] == ["s3", "s7", "s1", "s6", "s2", "s4", "s5"]


def test_narrow_terminals_have_the_reason_below() -> None:
    assert shown(80)[:8] == [
        "   sweep  owner  prio  needs                  state       since",
        "   s3     ann       5  0.5 CPU 4 GPU, 2 of 4  ▶ running   1m00s",
        "   s7     ann       0  1 CPU                  ▶ stopping      -",
        "     held by ann",
        "1  s1     ann       2  1 CPU 8 GPU            · queued    2m40s",
        "     waiting for 8 GPUs: 8 of 8 are held by s3 (priority 5)",
        "2  s6     ann       2  1 CPU                  · queued    2m40s",
        "     behind s1",
    ]


def test_wide_ones_beside_and_no_line_is_longer_than_the_terminal() -> None:
    lines = shown(120)
    assert lines[0].endswith("why")
    assert lines[3].endswith("queued    2m40s  waiting for 8 GPUs: 8 of 8 are held by s3 (priority 5)")
    for width in (60, 80, 120):
        assert max(map(len, shown(width))) <= max(width, 70)
        assert "\x1b" not in "".join(shown(width))


def test_the_summary_says_who_dispatches(tmp_path: Path) -> None:
    queue = Queue(f"sqlite:///{tmp_path}/queue.db")
    told = summary(queue, "here", ENTRIES)
    assert told == "here: 2 under way, 3 waiting, 1 held; nobody dispatches it: musweep queue run --to here"
    lease = Leadership(queue, "here")
    assert lease.acquire()
    assert summary(queue, "here", []).startswith("here: 0 under way, 0 waiting; dispatched by ")
    assert summary(queue, "here", [], now=4e9).endswith("ago: is it alive?")
    lease.release()


@pytest.mark.parametrize("width", [80, 120])
def test_signs_tell_states_apart_without_colour(width: int) -> None:
    text = "\n".join(shown(width))
    assert all(sign in text for sign in ("▶ running", "· queued", "‖ held", "✗ failed"))
