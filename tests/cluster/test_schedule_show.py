import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cluster import schedule_show as show
from cluster.schedule_rules import Firing, Schedule

NOW = datetime(2026, 5, 3, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
NIGHTLY = Schedule("nightly", "0 1 * * *", "UTC", "digits", "local", "/", cursor=NOW)


def night(state: str, result: str = "", sentence: str = "", hours: float = 11) -> Firing:
    return Firing("nightly", NOW - hours * HOUR, state=state, result=result, sentence=sentence, sweep="nightly-1")


@pytest.mark.parametrize(
    ("firings", "expected", "code"),
    [
        ([], ("", "no night is over yet"), 0),
        ([night("done", "ok", "as it was")], ("ok", "as it was"), 0),
        ([night("running"), night("done", "worse", "1.2 times", 35)], ("worse", "1.2 times"), 3),
        ([night("skipped"), night("done", "broken", "no trial", 35)], ("broken", "no trial"), 4),
        ([night("missed"), night("done", "ok", "as it was", 35)], ("missed", ""), 4),
    ],
)
def test_a_schedule_stands_as_its_last_night_that_is_over(
    firings: list[Firing], expected: tuple[str, str], code: int
) -> None:
    assert show.standing(NIGHTLY, firings, NOW) == expected
    assert show.EXITS.get(expected[0], 0) == code


def test_a_night_that_nobody_took_note_of_is_an_alarm_after_half_an_hour() -> None:
    late = Schedule("nightly", "0 1 * * *", "UTC", "digits", "local", "/", cursor=NOW - 24 * HOUR)
    due = NOW - 11 * HOUR
    fine = [night("done", "ok", "as it was", 35)]
    assert show.standing(late, fine, due + 1800)[0] == "ok"
    result, sentence = show.standing(late, fine, due + 1801)
    assert result == "missed"
    assert sentence.startswith("the night of Sun 2026-05-03 01:00 UTC did not run: no scheduler took note of it")
    paused = Schedule("nightly", "0 1 * * *", "UTC", "digits", "local", "/", cursor=NOW - 24 * HOUR, paused=True)
    assert show.standing(paused, fine, NOW)[0] == "ok"


def test_tables_say_results_by_sign_and_word_and_nothing_that_a_terminal_would_act_on() -> None:
    out = Console(file=io.StringIO(), width=200)
    show.show_all([(NIGHTLY, [night("done", "worse", "[red]1.2\x1b[2J times")])], out, NOW)
    show.show_history(NIGHTLY, [night("done", "better", "0.9 times"), night("skipped", hours=35)], out)
    show.show_one(NIGHTLY, [], out, NOW)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "▼ worse" in text
    assert "▲ better" in text
    assert "– skipped" in text
    assert "[red]1.2" in text
    assert "\x1b" not in text
    assert "Mon 2026-05-04 01:00 UTC, Tue 2026-05-05 01:00 UTC" in text
