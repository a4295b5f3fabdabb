import math
import re
from pathlib import Path

import numpy as np
import pytest

from dashboards import diagnostics, facts
from dashboards.report import write
from dashboards.view import View, read
from sweeps.journal import Journal
from sweeps.store import write_diagnostics
from tests.dashboards.synthetic import START, Sweep, make
from tests.dashboards.test_report import CHROMIUM, WITHOUT_WEBGL, opened
from trainers.diagnostics import BINS, Series

LAYERS = 9
SD = 0.5


def series(*values: float, first: int = 1) -> Series:
    return Series(first, np.array(values)[:, None])


def normal(sd: float) -> np.ndarray:
    """Counts of a million draws of a normal distribution in BINS bins to four standard deviations."""
    edges = np.linspace(-4, 4, BINS + 1)
    below = np.array([0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges])
    return np.round(1e6 * np.diff(below))


def measured(scale: float) -> dict[str, Series]:
    layers = np.arange(1, LAYERS + 1)
    falling = scale * 0.5**layers
    counts = np.stack([normal(SD)] * LAYERS)
    return {
        "length": Series(0, scale * 0.5 ** np.arange(LAYERS + 1)[:, None]),
        "length_variance": series(scale, first=0),
        **{name: Series(1, falling[:, None]) for name in ("activation_mean", "activation_sd", "activation_p98")},
        "saturation": Series(1, falling[:, None]),
        "gradient_sd": Series(1, np.append(falling, 1.0)[:, None]),
        "weight_gradient_sd": Series(1, np.append(falling, 1.0)[:, None]),
        "singular_mean": Series(1, falling[:, None]),
        **{
            f"{name}_histogram": Series(1, counts, np.tile([-4 * SD, 4 * SD], (LAYERS, 1)))
            for name in ("activation", "gradient", "weight_gradient")
        },
        "seconds": series(0.25, first=0),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up sweep in which trials 0 to 11 were measured at init, and all but two of them twice more."""
    folder = make(tmp_path_factory.mktemp("diagnosed") / "sweep", Sweep(trials=20, rungs=()))
    found = {(number, 0): measured(1.0 + number) for number in range(12)}
    found |= {(number, update): measured(number + update) for number in range(10) for update in (1000, 2000)}
    write_diagnostics(folder, "group-000-1", found)
    return folder


def drawn(view: View, key: str) -> list:
    return next(section for section in diagnostics.sections(view) if section.key == key).figures


def test_a_sweep_without_diagnostics_has_no_sections(tmp_path: Path) -> None:
    assert diagnostics.sections(read(make(tmp_path, Sweep(trials=3)))) == []


def test_the_best_and_the_worst_of_the_measured_trials_are_shown(folder: Path) -> None:
    view = read(folder)
    nets = diagnostics.read(view)
    assert nets is not None
    (_, best), (_, worst) = diagnostics.chosen(view, nets)
    trained = [trial for trial in view.ranked if trial.number < 10]
    assert (best, worst) == (trained[0], trained[-1])
    text = " ".join(section.caption for section in diagnostics.sections(view))
    assert f"The best trial is {best.id}, the worst trial is {worst.id}." in text
    spent = sum(trial.wall_s for trial in view.trials)
    assert f"Measuring took 8 s, {8 / spent:.1%} of" in text  # 32 measurements of a quarter of a second


def test_lengths_by_depth_are_the_measured_ones_of_every_net(folder: Path) -> None:
    view = read(folder)
    figure = drawn(view, "depth")[0]
    crowd, *lines = figure.data
    assert crowd["x"] == [*range(LAYERS + 1), None] * 12
    assert crowd["y"][: LAYERS + 1] == [0.5**layer for layer in range(LAYERS + 1)]
    assert figure.layout["yaxis"]["type"] == "log"
    names = [line["name"] for line in lines]
    assert names == ["best at start", "best at 2,000", "worst at start", "worst at 2,000"]
    best = diagnostics.chosen(view, diagnostics.read(view))[0][1]  # type: ignore[arg-type]
    assert lines[1]["y"] == [(best.number + 2000) * 0.5**layer for layer in range(LAYERS + 1)]


def test_over_training_a_few_layers_are_drawn_from_first_to_last(folder: Path) -> None:
    figures = drawn(read(folder), "training")
    assert [figure.title.split(": ")[1] for figure in figures] == [
        "activations", "98th percentile and sd", "weight gradients",
    ] * 2  # fmt: skip
    lines = figures[0].data
    assert [line["name"] for line in lines] == [f"layer {layer}" for layer in (1, 3, 4, 6, 7, 9)]
    assert len({line["line"]["color"] for line in lines}) == 6
    for line in lines:
        assert line["x"] == [0, 1000, 2000]
        assert line["error_y"]["array"] == line["y"]  # made up so
    assert figures[2].layout["yaxis"]["type"] == "log"


def test_histograms_are_densities(folder: Path) -> None:
    figures = drawn(read(folder), "histograms")
    assert len(figures) == 2 * 3 * 2
    for figure in figures:
        for line in figure.data:
            width = line["x"][1] - line["x"][0]
            assert sum(y for y in line["y"] if y) * width == pytest.approx(1, abs=1e-3)
            peak = max(zip(line["y"], line["x"], strict=True))
            assert peak == (pytest.approx(1 / SD / math.sqrt(2 * math.pi), rel=0.01), pytest.approx(0, abs=1e-9))
    assert "layer 9" in [line["name"] for line in figures[0].data]
    assert "layer 9" not in [line["name"] for line in figures[2].data]  # the outputs' gradient is the cost's own


def test_doomed_trials_are_told_with_what_skipping_them_would_have_saved(tmp_path: Path) -> None:
    folder = make(tmp_path, Sweep(trials=20, rungs=(), diverge=0.0, close=None))
    view = read(folder)
    journal = Journal(folder / "journal.jsonl")
    last = view.ranked[-1]
    for trial in (view.ranked[4], last):
        entry = {"trial": trial.number, "update": 2000, "metrics": trial.metrics[2000], "score": 1.0, "wall_s": 0.0}
        entry["doomed"] = "lengths shrink with depth: M_9 / M_0 = 1e-9, below 1e-05"
        journal.append([{"type": "report", "time": START, "group": 0, "engine": "loop", "trials": [entry]}])
    journal.close()
    words = facts.findings(read(folder))[-1]
    assert "The nets of 2 trials cannot start" in words
    assert "lengths shrink with depth (2)" in words
    assert "the best of them has place 5 of 20, and without them 4,000 of 40,000 updates (10%)" in words


def test_the_same_folder_gives_the_same_bytes(folder: Path) -> None:
    first = write(folder).read_bytes()
    assert write(folder).read_bytes() == first
    assert len(first) < 8e6


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (chromium, chromium-browser or google-chrome) on the PATH")
def test_a_browser_draws_every_plot_without_an_error(folder: Path, tmp_path: Path) -> None:
    dom, log = opened(write(folder), tmp_path / "profile", WITHOUT_WEBGL)
    dom = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    plots = re.findall(r'<div class="plot js-plotly-plot"[^>]*>', dom)
    assert len(plots) > 3 + 6 + 12
    for plot in plots:
        assert 'data-drawn="yes"' in plot, plot
    assert not [line for line in log.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
