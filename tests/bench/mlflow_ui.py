"""MLflow's own pages in a real browser: opened, filtered, sorted, grouped, compared, each timed and checked."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from browser import Page, browser

BOX = "[data-testid=search-box]"
SORT, GROUP = "[data-testid=sort-select-dropdown]", "[data-testid=column-selection-dropdown]"
COUNTED = "/\\b%s matching runs?/.test(document.body.innerText)"
GAPS = """[...document.querySelectorAll(".ag-row [col-id='metrics.`gap_to_hf`']")]
  .map(e => [+e.closest('.ag-row').getAttribute('row-index'), parseFloat(e.innerText)])
  .filter(x => x[1] === x[1]).sort((a, b) => a[0] - b[0]).map(x => x[1])"""
SORTED = f"(v => v.length > %d && v.every((x, i) => i === 0 || v[i - 1] <= x))({GAPS})"
FORGET = (
    "Object.keys(localStorage).filter(k => !/assistant|workflow/i.test(k)).forEach(k => localStorage.removeItem(k))"
)
AXES = "document.querySelectorAll('[role=dialog] .parcoords .dimension').length >= %d"
CHOICES = "input[role=combobox]"
OPTION = ".du-bois-light-select-item-option-content"
PARCOORDS = "document.querySelectorAll('.js-plotly-plot .parcoords .y-axis').length >= %d"


class Tour:
    """One visit to an experiment's pages; `seconds` has what each step took, from the click to what it shows.

    Args:
        page: the browser's.
        server: MLflow's address.
        experiment: its id.
        pictures: a folder for a PNG of each step, or None.
    """

    def __init__(self, page: Page, server: str, experiment: str, pictures: Path | None) -> None:
        self._page, self._pictures, self._server = page, pictures, server
        self._runs = f"{server}/#/experiments/{experiment}/runs"
        self.seconds: dict[str, float] = {}

    def _address(self, text: str, ordered: str = "metrics.`gap_to_hf`", mode: str = "") -> str:
        """A view's own address, as the browser would show it, without what earlier views have left in its storage."""
        self._page.evaluate(FORGET)
        query = f"searchFilter={quote(text)}&orderByKey={quote(ordered)}&orderByAsc=true&startTime=ALL"
        query += "&lifecycleFilter=Active&modelVersionFilter=All+Runs&datasetsFilter=W10%3D"
        return f"{self._runs}?{query}" + (f"&compareRunsMode={mode}" if mode else "")

    def _until(self, step: str, code: str, began: float) -> None:
        self._page.wait(code)
        self.seconds[step] = round(time.perf_counter() - began, 2)
        if self._pictures is not None:
            time.sleep(1.5)  # what moves comes to rest
            self._page.picture(self._pictures / f"{len(self.seconds):02}-{step.replace(' ', '-')}.png")

    def table(self) -> None:
        """The experiment, as a person gets there: Model training, then its link, which opens the table of runs."""
        page = self._page
        page.open(self._server)
        page.wait("document.body.innerText.includes('Model training')")
        time.sleep(2)
        page.click("Model training")
        time.sleep(1)
        began = time.perf_counter()
        page.open(self._runs.removesuffix("/runs"))
        self._until("open the runs table", COUNTED % "\\d+", began)
        time.sleep(1.5)
        if page.evaluate("!!document.querySelector('button[aria-label=Close]')"):
            page.click_css("button[aria-label=Close]")  # the assistant's pane
        time.sleep(1)

    def search(self, step: str, text: str, expected: int) -> None:
        """Type a search and press Enter."""
        page = self._page
        page.type(text, BOX)
        taken = f"new URLSearchParams(location.hash.split('?')[1]).get('searchFilter') === {json.dumps(text)}"
        for _ in range(10):  # Enter right after the text is sometimes not heeded
            began = time.perf_counter()
            page.key("Enter", "Enter", 13, text="\r")
            with contextlib.suppress(TimeoutError):
                page.wait(taken, 2)
                break
        self._until(step, COUNTED % expected, began)
        page.click("Runs", "h1, h2, h3")  # leave the box, or its suggestions cover the buttons

    def sort(self, metric: str, rows: int, step: str) -> None:
        """Sort: ascending, then by the metric."""
        page = self._page
        for button in ("sort-select-asc", f"sort-select-{metric}"):
            time.sleep(0.7)
            page.click_css(SORT)
            page.wait(f"!!document.querySelector('[data-testid=\"{button}\"]')")
            began = time.perf_counter()
            page.click_css(f'[data-testid="{button}"]')
        self._until(step, SORTED % (rows - 1), began)

    def group(self, by: str, groups: Iterable[str]) -> None:
        """Group by a parameter or tag."""
        page = self._page
        page.click_css(GROUP, 1)
        time.sleep(0.7)
        page.send("Input.insertText", text=by)
        time.sleep(0.5)
        began = time.perf_counter()
        page.click(by)
        shown = " && ".join(f"document.body.innerText.includes('Group: {group}')" for group in groups)
        self._until(f"group by {by}", shown, began)

    def _pick(self, css: str, nth: int, names: Iterable[str]) -> float:
        """Choose values of the nth multiple choice; when the last was clicked."""
        page, began = self._page, 0.0
        page.click_css(css, nth)
        for name in names:
            time.sleep(0.7)
            page.send("Input.insertText", text=name)
            time.sleep(0.7)
            began = time.perf_counter()
            page.click(name, OPTION)
        return began

    def _leave(self) -> None:
        time.sleep(0.5)
        self._page.key("Escape", "Escape", 27)
        time.sleep(0.5)

    def compare(self, text: str, runs: int, params: list[str]) -> None:
        """Tick the first runs of a search, Compare, and choose what its parallel coordinates show."""
        page = self._page
        page.open(self._address(text))
        page.wait(f"document.querySelectorAll('.ag-selection-checkbox input').length >= {runs}")
        time.sleep(1)
        for n in range(runs):
            page.click_css(".ag-selection-checkbox input", n)
        page.wait(f"document.querySelectorAll('.ag-selection-checkbox input:checked').length >= {runs}")
        began = time.perf_counter()
        page.click("Compare", "button")
        page.wait(f"document.body.innerText.includes('Comparing {runs} Runs')")
        self._until(f"compare {runs} runs", PARCOORDS % 1, began)
        page.click("Clear All", "button")
        self._pick(CHOICES, 0, params)
        self._leave()
        began = self._pick(CHOICES, 1, ["gap_to_hf"])
        self._until("choose its parallel coordinates", PARCOORDS % (len(params) + 1), began)

    def charts(self, text: str, params: list[str]) -> None:
        """The chart view of a search, and parallel coordinates added to it."""
        page = self._page
        began = time.perf_counter()
        page.open(self._address(text, mode="CHART"))
        self._until("open the chart view", "document.querySelectorAll('.js-plotly-plot').length > 3", began)
        for _ in range(10):  # the page moves while its charts arrive
            time.sleep(2)
            page.click_css("[data-testid=experiment-view-compare-runs-add-chart]")
            with contextlib.suppress(TimeoutError):
                page.wait("document.body.innerText.includes('Parallel coordinates')", 2)
                break
        time.sleep(0.7)
        page.click("Parallel coordinates")
        page.wait("!!document.querySelector('[data-testid=experiment-view-compare-runs-chart-modal-confirm]')")
        time.sleep(1.5)  # it slides in
        field = f"[data-testid=experiment-view-compare-runs-config-field] {CHOICES}"
        self._pick(field, 0, params)
        self._leave()
        began = self._pick(field, 1, ["gap_to_hf"])
        self._until("add parallel coordinates", AXES % (len(params) + 1), began)

    def run(self, experiment: str, run: str, server: str) -> None:
        """The page of one run with a chart of each metric."""
        began = time.perf_counter()
        self._page.open(f"{server}/#/experiments/{experiment}/runs/{run}/model-metrics")
        self._until("charts of one run", "document.querySelectorAll('.js-plotly-plot').length > 3", began)

    def sweeps(self, count: int) -> None:
        """The sweeps alone, by their gap."""
        self._page.open(self._address("tags.musweep.role = 'sweep'", "attributes.start_time"))
        self._page.wait(COUNTED % count)
        self.sort("gap_to_hf", count, "sort sweeps by gap_to_hf")

    def overview(self, run: str, server: str, experiment: str) -> None:
        """A sweep's own page, with its verdict."""
        began = time.perf_counter()
        self._page.open(f"{server}/#/experiments/{experiment}/runs/{run}")
        self._until("a sweep and its verdict", "document.body.innerText.includes('95% interval')", began)


def visit(server: str, experiment: str, expected: dict[str, int], run: str, sweep: str, work: Path,
          pictures: Path | None = None) -> dict[str, float]:  # fmt: skip
    """Seconds of each step; raises TimeoutError where a page does not come to show what it should.

    Args:
        server: MLflow's address.
        experiment: id of the experiment.
        expected: number of runs the UI should find: baseline, confirmed, sweep.
        run: id of a run with many metrics.
        sweep: id of a parent run.
        work: a folder for the browser's profile.
        pictures: a folder for PNGs.
    """
    with browser(work / "profile") as page:
        tour = Tour(page, server, experiment, pictures)
        tour.table()
        tour.sort("gap_to_hf", 20, "sort by gap_to_hf")
        tour.search("search for baselines", "tags.`musweep.role` = 'baseline'", expected["baseline"])
        tour.search("search for confirmed trials", "tags.musweep.stage LIKE 'confirm%'", expected["confirmed"])
        tour.group("musweep.method", ["hf"])
        tour.compare("tags.musweep.role = 'search'", 10, ["lr", "mu_max", "init"])
        tour.charts("tags.musweep.role = 'search'", ["lr", "mu_max", "init"])
        tour.run(experiment, run, server)
        tour.sweeps(expected["sweep"])
        tour.overview(sweep, server, experiment)
    return tour.seconds
