import json
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster import logs
from cluster.cli import app
from sweeps import events
from sweeps.lease import Lease
from tests.sweeps import told

LOG = """[musweep] 2026-05-28T20:26:40Z began group {group}, process 1 on here
before any trial
[musweep] 2026-05-28T20:26:41Z seated {first}
of {first}
[musweep] 2026-05-28T20:26:41Z seated {second}
of both \x1b[31mred\x1b[0m
[musweep] 2026-05-28T20:26:43Z ended {first}
of {second}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = told.write(tmp_path / "told")
    (folder / "logs").mkdir()
    for group, first, second in ((0, "t00000", "t00002"), (1, "t00001", "t00003")):
        text = LOG.format(group=group, first=first, second=second)
        (folder / "logs" / f"group-{group:03d}.log").write_text(text)
    return folder


def test_a_trials_log_is_what_was_printed_while_it_trained(folder: Path) -> None:
    lines = list(logs.trial(folder, 2))
    assert [line for line in lines if not line.startswith("[musweep]")] == [
        "of both \ufffd[31mred\ufffd[0m",
        "of t00002",
    ]
    assert [line for line in lines if "mixed" in line] == [
        "[musweep] lines of a group: what the 2 trials in it printed is mixed"
    ]
    assert lines[-1] == "[musweep] 2026-05-28T20:26:43Z t00002 diverged after 20 updates: why diverged"
    assert "before any trial" not in lines


def test_all_lines_say_whose_they_are(folder: Path) -> None:
    lines = list(logs.sweep(folder))
    assert lines[1] == "group-000 | before any trial"
    assert sum(line.startswith("group-001 | ") for line in lines) == 8


def test_a_trial_without_lines_says_why(folder: Path, tmp_path: Path) -> None:
    assert "it printed nothing" in next(logs.trial(folder, 4))
    assert "kept none" in next(logs.trial(told.write(tmp_path / "old"), 4))


def test_faults_and_tracebacks_come_from_the_journal(folder: Path) -> None:
    fault = {"type": "fault", "optional": True, "time": told.START + 2.5, "group": 1, "incarnation": 1, "moved": []}
    end = told.end(6, "failed", 10, 107) | {
        "traceback": "Traceback (most recent call last):\n  boom\n",
        "reason": "boom",
    }
    said = [[told.ask(6, 2)], [{**fault, "group": 0, "cause": "memory", "words": "out of\nmemory"}], [end]]
    told.write(folder, said)
    lines = list(logs.trial(folder, 6))
    assert lines[-4:] == [
        "[musweep] 2026-05-28T20:26:42Z fault of group 0: memory: out of memory",
        "[musweep] 2026-05-28T20:28:27Z t00006 failed after 10 updates: boom",
        "Traceback (most recent call last):",
        "  boom",
    ]


def test_following_ends_with_the_trial(folder: Path) -> None:
    seen: list[str] = []
    log = folder / "logs" / "group-000.log"
    with Lease(folder), log.open("a") as file:
        told.write(folder, [[told.ask(6, 110)]])
        reader = threading.Thread(target=lambda: seen.extend(logs.trial(folder, 6, follow=True)))
        reader.start()
        file.write("[musweep] 2026-05-28T20:28:00Z seated t00006\nlate words\n")
        file.flush()
        time.sleep(0.7)
        assert reader.is_alive()
        assert "late words" in seen
        told.write(folder, [[told.end(6, "skipped", 0, 111)]])
        events.rebuild(folder)
        reader.join(10)
        assert not reader.is_alive()
    assert seen[-1].endswith("t00006 skipped after 0 updates: why skipped")


def test_the_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events.rebuild(folder)
    run = CliRunner().invoke
    found = run(app, ["events", str(folder), "--type", "end", "--type", "close"])
    kinds = [json.loads(line)["type"] for line in found.stdout.splitlines()]
    assert kinds.count("end") == 6
    assert set(kinds) == {"end", "close"}
    assert run(app, ["events", str(folder), "-f"]).stdout == (folder / "events.jsonl").read_text()
    assert "of t00002" in run(app, ["logs", str(folder), "t00002"]).stdout.splitlines()
    assert run(app, ["logs", str(folder)]).stdout.count("\n") == 16
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    assert "musweep_disk_free_bytes " in run(app, ["metrics", str(folder.parent), "--once"]).stdout
