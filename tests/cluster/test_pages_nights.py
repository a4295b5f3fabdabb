import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cluster.schedule import Schedules
from cluster.service import pages_nights
from cluster.service.models import Summary
from cluster.service.pages_nights import Line, Told
from tests.cluster.serving import fired, serving
from tests.dashboards.synthetic import START, Sweep, make

NASTY = "</script><script>alert('x')</script>"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("runs")
    make(root / "nightly-0", Sweep(trials=5))
    with serving(root) as address:
        yield address


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Schedules:
    """Schedules with nothing in them, where the pages look."""
    monkeypatch.setenv("MUSWEEP_DATABASE", f"sqlite:///{tmp_path / 'schedules.db'}")
    monkeypatch.setattr(pages_nights, "FRESH_S", 0.0)
    return pages_nights.schedules()


def page(address: str, path: str) -> requests.Response:
    return requests.get(address + path, headers={"Accept": "text/html"}, timeout=30)


def line(name: str, word: str | None) -> Line:
    """A schedule whose last night ended so, after a + with the next under way."""
    last, _, active = (word or "").partition("+")
    return Line(name, False, Told(START, last, "", "", "") if last else None, active, None, [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "No schedule runs sweeps at night yet."),
        ([None], "No night has run yet."),
        (["ok"], "The last night was fine."),
        (["ok", "better"], "All 2 schedules were fine."),
        (["ok+running", "ok"], "All 2 schedules were fine; 1 of the next already runs."),
        (["+running", None], "Tonight's sweeps are running."),
        (["worse"], "The last night needs a look: s0 is worse."),
        (["worse+running"], "The last night needs a look: s0 is worse; 1 of the next already runs."),
        (["ok", "broken", "+running"], "1 of 2 schedules needs a look: s1 is broken; 1 of the next already runs."),
        (["missed", "worse"], "2 of 2 schedules need a look: s0 was missed, s1 is worse."),
    ],
)
def test_the_first_line_says_whether_the_night_was_fine(words: list[str | None], expected: str) -> None:
    word, sentence = pages_nights.headline([line(f"s{i}", each) for i, each in enumerate(words)])
    assert sentence == expected
    assert (word in ("worse", "broken", "missed")) == ("look" in expected)


def test_a_schedules_page_has_each_night_in_words_and_as_a_mark(there: str, nights: Schedules) -> None:
    fired(nights, "nightly", "oowbm+o", words=NASTY)
    source = page(there, "/schedules/nightly").text
    kinds = re.findall(r'data-key="night-[\d.]+">.*?class="state is-(\w+)"', source)
    assert kinds == ["ok", "better", "bad", "broken", "worse", "ok", "ok"]
    wide = re.search(r'<svg class="plot wide-strip".*?</svg>', source, re.S)
    assert wide
    marks = re.findall(r'class="night r-(\w+)"', wide.group())
    assert marks == ["ok", "ok", "worse", "broken", "missed", "better", "ok"]
    assert "<script>alert" not in source
    first = page(there, "/").text
    assert "The last night was fine." in first


@pytest.mark.parametrize("results", ["", "ooo"])
def test_a_night_that_no_scheduler_took_note_of_is_missed(there: str, nights: Schedules, results: str) -> None:
    fired(nights, "nightly", results, seen=time.time() - 86_400 - 7200)
    for path in ("/", "/schedules", "/schedules/nightly"):
        source = page(there, path).text
        assert 'class="state is-bad"' in source, path
        assert "no scheduler took note of it" in source
    first = page(there, "/").text
    assert "The last night needs a look: nightly was missed." in first
    assert "was fine" not in first
    assert first.count("r-missed") == (1 if results else 0)
    nights.pause("nightly")
    assert "missed" not in page(there, "/").text


def test_a_schedule_is_paused_resumed_and_fired(there: str, nights: Schedules) -> None:
    fired(nights, "nightly", "o")
    browser = requests.Session()
    browser.headers.update({"Accept": "text/html", "Origin": there})
    for act in ("pause", "resume", "run"):
        source = browser.get(f"{there}/schedules/nightly", timeout=30).text
        token = re.search(r'name="csrf" value="([^"]+)"', source)
        assert token
        assert f"/schedules/nightly/{act}" in source
        done = browser.post(f"{there}/schedules/nightly/{act}", data={"csrf": token.group(1)}, timeout=30)
        assert done.status_code == 200, done.text
        assert nights.get("nightly").paused == (act == "pause")
    assert [each.manual for each in nights.firings("nightly")] == [True, False]
    assert browser.post(f"{there}/schedules/nightly/pause", data={"csrf": "wrong"}, timeout=30).status_code == 403
    assert not nights.get("nightly").paused


@pytest.mark.parametrize("state", ["cut off", "failed", "unreadable", "running", "finished", "interrupted"])
def test_what_needs_a_look_is_what_somebody_must_mend(state: str) -> None:
    now = START + 1e6
    each = Summary(id="a", state=state, updated_at=now - 60)  # type: ignore[arg-type]
    assert bool(pages_nights.attention([each], now)) == (state in ("cut off", "failed", "unreadable"))
    old = each.model_copy(update={"updated_at": now - 1e6})
    assert not pages_nights.attention([old], now)
    if state == "running":
        ((_, why),) = pages_nights.attention([old.model_copy(update={"troubles": ["disk full"]})], now)
        assert why == "disk full"
