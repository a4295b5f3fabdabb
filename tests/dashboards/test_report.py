import base64
import json
import re
import shutil
import subprocess
import sys
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from dashboards.importance import importances
from dashboards.page import embed, escape
from dashboards.report import write
from dashboards.view import number, read
from tests.dashboards.synthetic import SPACE, Sweep, make
from tests.dashboards.synthetic_contest import compared, make_contest

NASTY = "</script><script>alert('x')</script><img src=http://example.org/x.png onerror=alert(1)>&amp;"
CASES: dict[str, Sweep] = {
    "full": Sweep(),
    "none": Sweep(trials=0, close=None),
    "one": Sweep(trials=1),
    "diverged": Sweep(trials=12, diverge=1e9, rungs=()),
    "no halving, max": Sweep(trials=20, rungs=(), mode="max"),
    "one parameter": Sweep(trials=20, space={"lr": SPACE["lr"]}),
    "nasty": Sweep(trials=30, name=NASTY, space=SPACE | {"init": {"type": "choice", "values": [NASTY, "he"]}}),
}
SEARCHED = ("curves", "map", "importance", "parallel", "budget", "rungs", "timeline", "trials", "rerun")
CONFIRMED = ("table", "confirmed", "target", *SEARCHED)


class Page(HTMLParser):
    """Tags with their attributes, and the text of each, of a report without its bundled scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data)


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make(tmp_path / "sweep", CASES[request.param])


def test_every_sweep_gets_a_whole_page_that_loads_nothing(folder: Path) -> None:
    path = write(folder)
    source = path.read_text()
    page = Page(source)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] in (list(SEARCHED), ["table", *SEARCHED])
    assert sum(tag == "script" for tag, _ in page.tags) == 3  # data, plotly.js once and packed, ours
    assert not any(tag in ("link", "img", "iframe", "object", "embed", "base") for tag, _ in page.tags)
    assert not any({"src", "srcset", "data", "action", "onerror", "onclick"} & attrs.keys() for _, attrs in page.tags)
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in page.tags)
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert [p.name for p in folder.iterdir() if "report" in p.name] == ["report.html"]


def test_numbers_shown_are_the_historys(tmp_path: Path) -> None:
    folder = make(tmp_path, Sweep())
    shown = " ".join(Page(write(folder).read_text()).words)
    best = min((t for t in read(folder).trials if t.state == "complete"), key=lambda t: t.objective or 0)
    assert f"Best valid_squared_error {number(best.objective)} by trial {best.id}: " in shown
    assert "All 64 trials" in shown


def test_names_from_the_spec_cannot_become_markup(tmp_path: Path) -> None:
    source = write(make(tmp_path, CASES["nasty"])).read_text()
    page = Page(source)
    assert NASTY in page.words  # as text
    assert "<img" not in source
    data = re.search(r'id="figures">(.*?)</script>', source)
    assert data is not None
    assert json.loads(data[1])["figures"].keys() >= {"first", "curves-0", "rungs-0", "timeline-0"}


def test_embedded_json_cannot_close_its_element() -> None:
    hard = {"a": "</script><!--", "b": [float("nan"), float("inf"), 1.0], "c": (1, None, "\u2028")}
    text = embed(hard)
    assert "<" not in text
    assert ">" not in text
    assert json.loads(text) == {"a": "</script><!--", "b": [None, None, 1.0], "c": [1, None, "\u2028"]}


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write(make(tmp_path, Sweep(trials=20)))
    first = path.read_bytes()
    assert write(tmp_path).read_bytes() == first


def test_plotly_travels_packed_and_whole(tmp_path: Path) -> None:
    source = write(make(tmp_path, Sweep(trials=1))).read_text()
    held = re.search(r'id="plotly">(.*?)</script>', source)
    assert held is not None
    assert zlib.decompress(base64.b64decode(held[1])).decode() == get_plotlyjs()


def test_a_confirmed_sweep_opens_with_the_verdict_and_the_picture(tmp_path: Path) -> None:
    folder = make_contest(tmp_path)
    comparison = compared(folder)
    source = write(folder).read_text()
    page = Page(source)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == list(CONFIRMED)
    head = source[source.index("<header>") : source.index("<nav")]
    assert comparison.primary is not None
    assert escape(comparison.primary.sentence) in head
    assert head.index("<h1>") < head.index(escape(comparison.primary.sentence)) < head.index('id="first"')
    shown = " ".join(page.words)
    for arm in comparison.arms:
        assert f"{number(arm.low)} to {number(arm.high)}" in shown
    assert str(len(comparison.arms[0].values)) in head


def test_what_is_confirmed_leaves_the_searchs_sections_alone(tmp_path: Path) -> None:
    alone, beside = read(make(tmp_path / "a", Sweep())), read(make_contest(tmp_path / "b"))
    assert [t.number for t in beside.ranked] == [t.number for t in alone.ranked]
    assert len(beside.everything) == len(alone.everything) + 16 + 30 + 10
    first, second = importances(alone), importances(beside)
    assert not isinstance(first, str)
    assert first == second


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(make(tmp_path, Sweep(trials=2)))
    old = path.read_bytes()

    def torn(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text[:100].encode())
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", torn)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir() if "report" in p.name] == ["report.html"]


def test_a_report_imports_nothing_heavy(tmp_path: Path) -> None:
    make(tmp_path, Sweep())
    heavy = ("torch", "ray", "optuna", "mlflow", "pandas", "numpy", "scipy", "sklearn", "plotly.graph_objects")
    code = (
        "import sys; from pathlib import Path; from dashboards.report import write; "
        f"write(Path({str(tmp_path)!r})); print(*(n for n in {heavy!r} if n in sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == []


def test_a_thousand_trials_take_seconds_at_most(tmp_path: Path) -> None:
    make_contest(tmp_path, Sweep(trials=1000, groups=4, slots=16))  # and 250 of HF's search, 40 confirmed
    start = time.process_time()
    path = write(tmp_path)
    assert time.process_time() - start < 5  # 0.7 s on an idle core
    assert path.stat().st_size < 5e6


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHOUT_WEBGL = ("--disable-gpu", "--disable-software-rasterizer")
WITH_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def opened(path: Path, profile: Path, flags: tuple[str, ...]) -> tuple[str, str]:
    """The page's DOM once it has settled, and what the browser wrote to its log."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--window-size=1280,2000",
        "--virtual-time-budget=5000", "--enable-logging=stderr", *flags, "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


PROBE = """<script>addEventListener("load", () => { document.body.dataset.loads =
performance.getEntriesByType("resource").length; });</script></body>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (chromium, chromium-browser or google-chrome) on the PATH")
@pytest.mark.parametrize(
    ("case", "flags"),
    [("confirmed", WITHOUT_WEBGL), ("full", WITH_WEBGL), ("diverged", WITHOUT_WEBGL), ("nasty", WITHOUT_WEBGL)],
    ids=["confirmed-svg", "full-webgl", "diverged-svg", "nasty-svg"],
)
def test_a_browser_draws_every_plot_without_an_error(tmp_path: Path, case: str, flags: tuple[str, ...]) -> None:
    folder = tmp_path / "sweep"
    path = write(make_contest(folder) if case == "confirmed" else make(folder, CASES[case]))
    path.write_text(path.read_text().replace("</body>", PROBE))
    dom, log = opened(path, tmp_path / "profile", flags)
    dom = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    plots = re.findall(r'<div class="plot js-plotly-plot"[^>]*>', dom)
    assert len(plots) == path.read_text().count('<div class="plot"') >= 5
    for plot in plots:
        assert 'data-drawn="yes"' in plot, plot
    assert dom.count('class="main-svg"') >= len(plots)
    assert "WebGL is not supported" not in dom
    assert ("parcoords" in dom) == (flags == WITH_WEBGL)
    assert 'data-loads="0"' in dom
    console: list[Any] = [line for line in log.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
    assert console == []


PHONE = """<script>addEventListener("load", async () => {
  const wait = async until => { while (!until()) await new Promise(done => setTimeout(done, 50)); };
  const plots = [...document.querySelectorAll(".plot")], root = document.documentElement;
  await wait(() => plots.every(plot => plot.dataset.drawn));
  const told = { page: root.clientWidth, wide: root.scrollWidth, title: plots[0].layout.xaxis.title.text };
  document.querySelector(".switch[data-plot=first]").lastElementChild.click();
  await wait(() => plots[0].layout.xaxis.title.text !== told.title);
  told.switched = plots[0].layout.xaxis.title.text;
  dispatchEvent(new Event("beforeprint"));
  await wait(() => plots.every(plot => plot.layout.width && plot.layout.font.color === "#000000"));
  told.printed = Math.max(...plots.map(plot => plot.layout.width));
  parent.postMessage(JSON.stringify(told), "*");
});</script></body>"""
FRAME = """<!DOCTYPE html><body><pre></pre><script>addEventListener("message", event => {
document.querySelector("pre").textContent = event.data; });</script>
<iframe src="sweep/report.html" style="border:0;width:390px;height:800px"></iframe></body>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (chromium, chromium-browser or google-chrome) on the PATH")
def test_on_a_phone_nothing_sticks_out_the_switch_works_and_paper_gets_ink(tmp_path: Path) -> None:
    path = write(make_contest(tmp_path / "sweep"))
    path.write_text(path.read_text().replace("</body>", PHONE))
    (tmp_path / "frame.html").write_text(FRAME)
    dom, _ = opened(tmp_path / "frame.html", tmp_path / "profile", ("--disable-gpu", "--force-dark-mode"))
    told = json.loads(re.findall(r"<pre>(.*?)</pre>", dom)[0])
    assert told["page"] == told["wide"] <= 390
    assert (told["title"], told["switched"]) == ("passes over the training set", "seconds of training")
    assert told["printed"] == 670
