"""Pages in a real browser: no faults, live, by keyboard alone, readable by all."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cluster.service.pages_nights import schedules
from cluster.service.tokens import Tokens
from tests.bench.browser import CHROMIUM, Page, browser
from tests.cluster.serving import fired, serving
from tests.dashboards.synthetic import Sweep, make
from tests.dashboards.synthetic_contest import make_contest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium (chromium, chromium-browser or google-chrome) on the PATH"
    ),
]
ROOT = Path(__file__).parents[2]
PATHS = (
    "/", "/sweeps", "/sweeps/contest", "/sweeps/contest/trials/0", "/sweeps/contest/logs", "/compare",
    "/compare?sweep=contest", "/schedules", "/schedules/nightly", "/queue", "/baselines?task=curves", "/audit",
    "/sweeps/gone",
)  # fmt: skip
EXPECTED = "the server responded with a status of 404"
AXE = "axe.run(document, {resultTypes: ['violations']}).then(found => JSON.stringify(found.violations.filter(v => ['serious', 'critical'].includes(v.impact)).map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200) + ' ' + n.failureSummary.slice(0, 200))])))"  # fmt: skip  # noqa: E501
SMALL = "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height).filter(h => h && h < 10).length"  # fmt: skip  # noqa: E501
OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LIVE = "document.getElementById('live')?.dataset.state"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.listen()
        yield opened


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_contest(folder / "contest")
    make(folder / "other", Sweep(trials=130, groups=4))
    (folder / "contest" / "logs").mkdir()
    (folder / "contest" / "logs" / "driver.log").write_text("hello\n" * 60)
    return folder


@pytest.fixture(scope="module")
def there(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("MUSWEEP_DATABASE", f"sqlite:///{tmp_path_factory.mktemp('nights') / 'schedules.db'}")
        fired(schedules(), "nightly", "oowb+oow")
        with serving(root) as address:
            yield address


def opened(page: Page, address: str, width: int = 1440, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    page.send("Emulation.setEmulatedMedia", features=[scheme, still])
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    page.open(address)
    page.wait("document.readyState === 'complete' && !!document.querySelector('main h1')")


def press(page: Page, key: str) -> None:
    codes = {"Tab": ("Tab", 9), "Enter": ("Enter", 13), "Escape": ("Escape", 27)}
    more = {"text": "\r"} if key == "Enter" else {}
    page.key(key, *codes[key], **more)


def tab_to(page: Page, css: str, back: bool = False) -> None:
    """Press Tab, or Shift and Tab, until something has the focus."""
    for _ in range(120):
        page.key("Tab", "Tab", 9, modifiers=8 if back else 0)
        if page.evaluate(f"document.activeElement.matches({json.dumps(css)})"):
            return
    raise AssertionError(f"{css} is not reached by Tab")


def axe() -> str:
    import axe_core_python

    return (Path(next(iter(axe_core_python.__path__))) / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1440, False)], ids=["dark phone", "light desktop"])
def test_each_page_has_no_fault_and_is_readable_by_all(page: Page, there: str, width: int, dark: bool) -> None:
    checker = axe()
    for path in PATHS:
        opened(page, there + path, width, dark)
        assert page.evaluate(OVER) <= 0, path
        assert [words for words in page.faults() if path != "/sweeps/gone" or EXPECTED not in words] == [], path
        page.evaluate(f"{checker}; 0")
        assert json.loads(page.evaluate(AXE)) == [], path
        assert page.evaluate(SMALL) == 0, path


def test_tables_sort_filter_and_turn_without_a_new_page(page: Page, there: str) -> None:
    opened(page, f"{there}/sweeps/other")
    page.evaluate("window.same = true; 0")
    first = "document.querySelector('#trials tbody th').innerText"
    page.click("lr", css="#trials thead a")
    page.wait("document.querySelector('th[data-key=head-lr]').getAttribute('aria-sort') === 'ascending'")
    page.click("lr", css="#trials thead a")
    page.wait("document.querySelector('th[data-key=head-lr]').getAttribute('aria-sort') === 'descending'")
    lrs = page.evaluate("[...document.querySelectorAll('#trials tbody tr')].map(r => +r.cells[3].innerText)")
    assert len(lrs) == 100
    assert lrs == sorted(lrs, reverse=True)
    top = page.evaluate(first)
    page.click("next", css=".pager a")
    page.wait("document.querySelectorAll('#trials tbody tr').length === 30")
    assert "page=2" in page.evaluate("location.search")
    page.evaluate("history.back(); 0")
    page.wait(f"{first} === {json.dumps(top)}")
    page.type("method:nag", css="#q")
    page.wait("[...document.querySelectorAll('#trials tbody tr')].every(r => r.innerText.includes('nag'))")
    assert page.evaluate("document.activeElement.id") == "q"  # what one types in keeps the focus
    kept = page.evaluate("[...document.querySelectorAll('#trials tbody tr')].map(r => +r.cells[3].innerText)")
    assert kept == sorted(kept, reverse=True)  # and what is filtered its order
    page.type("nothing-like-it", css="#q")
    page.wait("document.body.innerText.includes('No trial fits')")
    assert page.evaluate("window.same") is True
    assert page.faults() == []


def test_sweeps_are_chosen_and_compared(page: Page, there: str) -> None:
    opened(page, f"{there}/compare")
    page.click_css("input[name=sweep][value=contest]")
    page.click("Compare", css="button")
    page.wait("location.search.includes('sweep=contest') && !!document.querySelector('main svg.plot')")
    stored = requests.get(f"{there}/api/v1/sweeps/contest/comparison", timeout=30).json()
    assert page.evaluate("document.querySelector('h1').innerText") == stored["contrasts"][0]["sentence"]
    page.click_css("input[name=sweep][value=other]")
    page.click("Compare", css="button")
    page.wait("location.search.includes('sweep=other')")
    page.wait("document.body.innerText.includes('nothing to compare') || !!document.querySelector('#refused-head')")
    assert page.faults() == []


def test_what_no_event_tells_of_is_looked_for(page: Page, there: str) -> None:
    opened(page, f"{there}/schedules/nightly")
    page.wait(f"{LIVE} === 'live'")
    store = schedules()
    store.pause("nightly")
    page.wait("[...document.querySelectorAll('main button')].some(b => b.innerText === 'Resume')", 20)
    store.resume("nightly")
    page.wait("[...document.querySelectorAll('main button')].some(b => b.innerText === 'Pause')", 20)
    assert page.faults() == []


def test_a_page_says_so_when_it_is_no_longer_live(page: Page, root: Path) -> None:
    with serving(root) as address:
        opened(page, f"{address}/sweeps")
        page.wait(f"{LIVE} === 'live'")
    page.wait(f"{LIVE} === 'cut'")
    assert page.evaluate("document.getElementById('live').innerText").startswith("not live")
    page.open("about:blank")
    page.faults()


# -- signing in ----------------------------------------------------------------------------------------------------


def test_one_signs_in_sorts_and_signs_out_by_keyboard_alone(page: Page, root: Path, tmp_path: Path) -> None:
    tokens = Tokens(f"sqlite:///{tmp_path / 'tokens.db'}")
    _, secret = tokens.add("anna", "operator")
    with serving(root, tokens) as address:
        opened(page, f"{address}/sweeps/other")
        assert page.evaluate("location.pathname") == "/login"
        page.wait("document.activeElement.id === 'token'")
        page.send("Input.insertText", text="msw_wrong")
        press(page, "Enter")
        page.wait("!!document.querySelector('[role=alert]')")
        page.wait("document.activeElement.id === 'token'")
        assert page.evaluate("location.pathname") == "/login"
        page.send("Input.insertText", text=secret)
        press(page, "Enter")
        page.wait("location.pathname === '/sweeps/other' && document.readyState === 'complete'")
        press(page, "Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        press(page, "Enter")
        page.wait("document.activeElement.id === 'content'")
        tab_to(page, "a[data-key=sort-lr]")
        press(page, "Enter")
        page.wait("document.querySelector('th[data-key=head-lr]').getAttribute('aria-sort') === 'ascending'")
        assert page.evaluate("document.activeElement.dataset.key") == "sort-lr"  # and there it stays
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        tab_to(page, ".who button", back=True)
        press(page, "Enter")
        page.wait("location.pathname === '/login'")
        page.open(f"{address}/sweeps")
        page.wait("location.pathname === '/login'")
    assert [words for words in page.faults() if "401" not in words] == []


def test_a_token_that_is_revoked_ends_what_is_shown(page: Page, root: Path, tmp_path: Path) -> None:
    clock = [1e9]
    tokens = Tokens(f"sqlite:///{tmp_path / 'tokens.db'}", clock=lambda: clock[0], kept_s=0.0)
    _, secret = tokens.add("anna", "reader", days=1)
    with serving(root, tokens) as address:
        opened(page, f"{address}/sweeps")
        page.wait("document.activeElement.id === 'token'")
        page.send("Input.insertText", text=secret)
        press(page, "Enter")
        page.wait(f"location.pathname === '/sweeps' && {LIVE} === 'live'")
        clock[0] += 2 * 86_400  # it has expired
        page.open(f"{address}/sweeps")
        page.wait("location.pathname === '/login'")
        page.wait("document.activeElement.id === 'token'")
        page.send("Input.insertText", text=secret)
        press(page, "Enter")
        page.wait("document.querySelector('[role=alert]')?.innerText.includes('expired')")
        page.open("about:blank")
    page.faults()


# -- a real sweep --------------------------------------------------------------------------------------------------

SPEC = """
name: live
task: digits
training: {updates: 4000, batch: 32, reports: 20}
space: {lr: {type: float, low: 0.01, high: 0.2, scale: log}, mu_max: [0.5, 0.9]}
search: {algorithm: random, seed: 3, group_size: 2}
budget: {trials: 4000}
resources: {workers: 1}
mlflow: {enabled: false}
"""


@contextlib.contextmanager
def driven(folder: Path, state: Path) -> Iterator[Path]:
    """A sweep that runs for longer than the test, in a process of its own."""
    (folder / "spec.yaml").write_text(SPEC)
    env = os.environ | {"XDG_STATE_HOME": str(state), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cluster.cli", "run", "spec.yaml", "--out", "runs/live"]
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out)
    try:
        yield folder / "runs" / "live"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def state_of(address: str) -> str:
    return str(requests.get(f"{address}/api/v1/sweeps/live", timeout=30).json()["summary"]["state"])


def until(condition: object, timeout: float = 60.0) -> None:
    assert callable(condition)
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.2)


ENDED = "+(document.querySelector('.tile .figure')?.innerText.split(' ')[0].replaceAll(',', '') ?? 0)"


@pytest.mark.slow
def test_a_running_sweep_is_followed_stopped_and_resumed(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    (tmp_path / "runs").mkdir()
    with driven(tmp_path, state) as folder, serving(tmp_path / "runs") as address:
        until(lambda: (folder / "journal.jsonl").exists(), 90)
        opened(page, f"{address}/")
        page.wait("document.querySelector('#running-head').parentElement.innerText.includes('live')")
        opened(page, f"{address}/sweeps/live")
        page.wait(f"{LIVE} === 'live'")
        page.evaluate("window.same = true; 0")
        page.wait(f"{ENDED} >= 2", 90)
        seen = page.evaluate(ENDED)
        rows = page.evaluate("document.querySelectorAll('#trials tbody tr').length")
        curve = page.evaluate("document.querySelector('figure svg.plot').outerHTML.length")
        tab_to(page, "input#q")
        page.wait(f"{ENDED} > {seen}", 60)
        page.wait(f"document.querySelectorAll('#trials tbody tr').length > {rows}")
        page.wait(f"document.querySelector('figure svg.plot').outerHTML.length !== {curve}")
        assert page.evaluate("document.activeElement.id") == "q"  # what is live does not take the focus away
        assert page.evaluate("window.same") is True
        page.evaluate("document.body.focus(); 0")
        tab_to(page, "a[data-ask=ask-stop]")
        press(page, "Enter")
        page.wait("document.getElementById('ask-stop').open")
        page.evaluate(f"{axe()}; 0")
        assert json.loads(page.evaluate(AXE)) == []
        time.sleep(2.5)  # refreshed meanwhile, twice
        assert page.evaluate("document.getElementById('ask-stop').open")
        press(page, "Escape")
        page.wait("!document.getElementById('ask-stop').open")
        assert state_of(address) == "running"
        page.click("Stop…", css="a")
        page.click("Stop it", css="dialog button")
        until(lambda: state_of(address) == "interrupted")
        page.wait("[...document.querySelectorAll('button')].some(b => b.innerText === 'Resume')")
        page.click("Resume", css="button")
        until(lambda: state_of(address) == "running", 90)
        page.wait("!!document.querySelector('a[data-ask=ask-stop]')")
        assert page.faults() == []
        token = page.evaluate("document.querySelector('input[name=csrf]').value")
        assert re.fullmatch(r"[\w-]{20,}", token)
        requests.post(f"{address}/api/v1/sweeps/live/stop", timeout=60)
        until(lambda: state_of(address) == "interrupted", 90)
        page.open("about:blank")
