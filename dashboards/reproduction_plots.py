"""Plots of stored results: each experiment as its paper's table or figure shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from dashboards.claims import hr18, s13, s13_race
from dashboards.evidence import Evidence
from dashboards.plots import BLUE, GREEN, GREY, LEADERS, ORANGE, PURPLE, SKY, VERMILION, VIRIDIS, Figure, safe

Plotter = Callable[[Evidence], list[Figure]]
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GREY)


def plots(evidence: Evidence) -> list[Figure]:
    """The figures of an experiment; none for one that is only listed."""
    plotter = _PLOTTERS.get(evidence.experiment)
    return plotter(evidence) if plotter else []


# -- building blocks ---------------------------------------------------------------------------------------------


def _line(name: str, colour: str, x: Sequence[Any], y: Sequence[float], **trace: Any) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "name": safe(name), "x": list(x), "y": list(y),
        "line": {"width": 2, "color": colour},
    } | trace  # fmt: skip


def _figure(data: list[dict[str, Any]], x: str, y: str, title: str = "", log: bool = False, **layout: Any) -> Figure:
    axis: dict[str, Any] = {"title": {"text": f"{y} (log)" if log else y}}
    if log:
        axis |= {"type": "log", "exponentformat": "power"}
    return Figure(data, {"xaxis": {"title": {"text": x}}, "yaxis": axis} | layout, title=title)


def ends(evidence: Evidence, metric: str, by: str, along: str, title: str, last: int = 1) -> list[Figure]:
    """The end of every trial at its best learning rate: a dot for each seed, a line through the medians."""
    cells = evidence.tuned(metric, (by, along), last=last)
    places = sorted({place for _, place in cells if place is not None})
    data = []
    for name, colour in zip(sorted({str(group) for group, _ in cells}), _COLOURS, strict=False):
        mine = {p: values for (g, p), values in cells.items() if str(g) == name}
        if list(mine) == [None]:  # one value for all places: SGD beside momentum
            mine = dict.fromkeys(places, mine[None])
        shown = [p for p in places if p in mine]
        x = [str(p) for p in shown for _ in mine[p]]
        y = [v for p in shown for v in mine[p].values()]
        data.append(_line(name, colour, x, y, mode="markers", marker={"size": 6, "opacity": 0.6, "color": colour},
                          showlegend=False))  # fmt: skip
        data.append(_line(name, colour, [str(p) for p in shown], [median(mine[p].values()) for p in shown]))
    return [_figure(data, along, title, log=True, xaxis={"title": {"text": along}, "type": "category"})]


def curves(evidence: Evidence, metric: str, by: Sequence[str], title: str, log: bool = True) -> list[Figure]:
    """Learning curves: the median over seeds at each report, of each point at its best learning rate."""
    best = _best_rates(evidence, metric, by)
    data = []
    for place, (key, lr) in enumerate(sorted(best.items(), key=_order)):
        again, colour = divmod(place, len(_COLOURS))
        where = dict(zip(by, key, strict=True)) | ({"lr": lr} if lr is not None else {})
        runs = [dict(run.series.get(metric, ())) for run in evidence.select(**where).runs]
        updates = sorted(set().union(*runs))
        values = [median(run.get(update, math.inf) for run in runs) for update in updates]
        named = by[0].replace("_", " ") + " " if len(by) == 1 else ""
        name = named + " ".join(str(each) for each in key if each is not None)
        line = {"width": 2, "color": _COLOURS[colour], "dash": "dot" if again else "solid"}
        data.append(_line(name, _COLOURS[colour], updates, values, line=line))
    return [_figure(data, "updates", title, log=log)]


def _best_rates(evidence: Evidence, metric: str, by: Sequence[str]) -> dict[tuple[Any, ...], float | None]:
    cells = evidence.cells(metric, (*by, "lr"))
    best: dict[tuple[Any, ...], tuple[float, float | None]] = {}
    for (*key, lr), values in cells.items():
        mid = median(values.values())
        if tuple(key) not in best or mid < best[tuple(key)][0]:
            best[tuple(key)] = (mid, lr)
    return {key: lr for key, (_, lr) in best.items()}


def _order(item: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """Numbers by size, names by letter, nothing first."""
    return tuple((value is not None, isinstance(value, str), value if value is not None else 0) for value in item[0])


def starts(evidence: Evidence, by: str, title: str) -> Figure:
    """Share of nets that have started by each update: one minus Kaplan and Meier's curve, all censored at the cap."""
    cap = max(run.updates for run in evidence.runs)
    data = []
    for name, colour in zip(sorted({run.params[by] for run in evidence.runs}, key=str), _COLOURS, strict=False):
        times = sorted(hr18.started(evidence.select(**{by: name})).values())
        seen = [time for time in times if time <= cap]
        x = [0.0, *seen, float(cap)]
        y = [0.0, *((i + 1) / len(times) for i in range(len(seen))), len(seen) / len(times)]
        data.append(_line(str(name), colour, x, y, line={"width": 2, "color": colour, "shape": "hv"}))
    return _figure(data, "updates", "share of nets at 20% accuracy", title, yaxis={
        "title": {"text": "share of nets at 20% accuracy"}, "range": [0, 1.03]})  # fmt: skip


def _by_depth(by: str, named: str) -> Plotter:
    def plot(evidence: Evidence) -> list[Figure]:
        depths = sorted({run.params["depth"] for run in evidence.runs})
        return [starts(evidence.select(depth=depth), by, f"depth {depth}{named}") for depth in depths]

    return plot


# -- computed figures --------------------------------------------------------------------------------------------


def _oblong(evidence: Evidence) -> list[Figure]:
    paths, values = evidence.values["paths"], evidence.values["values"]
    colours = dict(zip(paths, LEADERS, strict=False))
    walks = [
        _line(name, colours[name], [p[0] for p in points], [p[1] for p in points], mode="lines+markers",
              marker={"size": 4, "color": colours[name]})
        for name, points in paths.items()
    ]  # fmt: skip
    falls = [_line(name, colours[name], range(len(each)), each) for name, each in values.items()]
    return [
        _figure(walks, "flat axis", "steep axis", "paths to the minimum at 0"),
        _figure(falls, "updates", "f", "value", log=True),
    ]


def _contest(evidence: Evidence) -> list[Figure]:
    both = (("CG", "conjugate_gradients", BLUE), ("NAG", "nesterov", ORANGE))
    data = [_line(name, colour, range(len(evidence.values[key])), evidence.values[key]) for name, key, colour in both]
    return [_figure(data, "products with the curvature", "value of the quadratic")]


def _surfaces(evidence: Evidence) -> list[Figure]:
    axis = evidence.values["axis"]
    scale = [[i / (len(VIRIDIS) - 1), colour] for i, colour in enumerate(VIRIDIS)]
    return [
        Figure(
            [
                {
                    "type": "heatmap", "x": axis, "y": axis, "z": z, "colorscale": scale,
                    "colorbar": {"title": {"text": "cost"}},
                }
            ],
            {
                "xaxis": {"title": {"text": "weight out of the hidden unit"}},
                "yaxis": {"title": {"text": "weight into it"}},
            },
            title=name.replace("_", "-"),
        )
        for name, z in evidence.values["surfaces"].items()
    ]  # fmt: skip


def _layers(evidence: Evidence) -> list[Figure]:
    named = {"activation_sd": "activations", "gradient_sd": "back-propagated gradients",
             "weight_gradient_sd": "weight gradients"}  # fmt: skip
    return [
        _figure(
            [_line(kind, colour, range(1, len(values) + 1), values, mode="lines+markers")
             for (kind, values), colour in zip(evidence.values[key].items(), LEADERS, strict=False)],
            "layer", "standard deviation", title, log=True,
        )
        for key, title in named.items()
    ]  # fmt: skip


def _lengths(evidence: Evidence) -> list[Figure]:
    each = evidence.values["log_mean_length"]
    data = [
        _line(f"kappa {kappa}", colour, range(len(logs)), [math.exp(value) for value in logs])
        for (kappa, logs), colour in zip(each.items(), LEADERS, strict=False)
    ]
    return [_figure(data, "layer", "mean length M", log=True)]


def _residual_lengths(evidence: Evidence) -> list[Figure]:
    each = evidence.values["mean_length_over_first"]
    data = [
        _line(f"b = {base}", colour, range(len(values)), values)
        for (base, values), colour in zip(each.items(), LEADERS, strict=False)
    ]
    return [_figure(data, "module", "mean of M over M of the first", log=True)]


def _classes(evidence: Evidence) -> list[Figure]:
    return curves(evidence, "valid_error", ("activation", "init"), "valid error", log=False)


def _table1(evidence: Evidence) -> list[Figure]:
    return [
        *ends(evidence, s13.ERROR, "method", "mu_max", "final training error"),
        *curves(evidence, s13.ERROR, ("method", "mu_max"), "training error"),
    ]


def _race(evidence: Evidence) -> list[Figure]:
    """The median over fresh seeds of each method, against work."""
    data = []
    for name, colour in zip(s13_race.STAGES, (GREY, ORANGE, BLUE, VERMILION), strict=True):
        updates, errors = s13_race.courses(s13_race.arm(evidence, name))
        middles = [median(math.inf if value is None else value for value in at) for at in zip(*errors, strict=True)]
        line = {"width": 2, "color": colour, "dash": "dash" if name == "HF" else "solid"}
        data.append(_line(name, colour, updates, middles, line=line))
    return [_figure(data, "updates (work of as many gradients of a batch)", "training error", log=True)]


_ERROR = "share wrong"
_PLOTTERS: Mapping[str, Plotter] = {
    "s13-factorial": lambda e: curves(e, s13.ERROR, ("init", "method"), "training error"),
    "s13-factorial-rnn": lambda e: curves(e, "valid_error", ("init", "mu_max"), _ERROR),
    **{f"s13-table1-{task}": _table1 for task in ("curves", "mnist", "faces")},
    "s13-table2": lambda e: curves(e, s13.ERROR, ("mu_max",), "training error"),
    "s13-table3": lambda e: curves(e, s13.ERROR, ("init_scale",), "training error"),
    "s13-early-lowering": lambda e: curves(e, s13.ERROR, ("tail_updates",), "training error"),
    "s13-table5-add": lambda e: curves(e, "valid_error", ("method", "mu_max"), _ERROR),
    "s13-table5-mul": lambda e: curves(e, "valid_error", ("method", "mu_max"), _ERROR),
    "s13-table5-mem-5": lambda e: curves(e, "valid_recall_errors", ("method", "mu_max"), "wrong symbols"),
    "s13-table5-mem-20": lambda e: curves(e, "valid_recall_errors", ("method", "mu_max"), "wrong symbols"),
    "s13-rnn-spectral-radius": lambda e: curves(e, "valid_error", ("spectral_radius",), _ERROR),
    "s13-rnn-input-scale": lambda e: curves(e, "valid_error", ("input_scale",), _ERROR),
    "s13-fig2": _oblong,
    "s13-fig5": _contest,
    "s13-hf-race": _race,
    **{f"gb10-table1-{task}": _classes for task in ("shapeset", "mnist", "cifar10", "small-imagenet")},
    "gb10-monitoring": lambda e: curves(e, "valid_error", ("activation", "init", "depth"), "valid error", log=False),
    "gb10-widths": lambda e: curves(e, "valid_error", ("widths", "init"), "valid error", log=False),
    "gb10-fig11": lambda e: curves(e, "valid_error", ("init",), "valid error", log=False),
    "gb10-fig5": _surfaces,
    "gb10-init": _layers,
    "hr18-fig1": _by_depth("kappa", ", by kappa"),
    "hr18-fig2": _by_depth("eta_base", ", by b"),
    "hr18-fig3": _by_depth("widths", ", by arrangement"),
    "hr18-fig1-lengths": _lengths,
    "hr18-fig2-lengths": _residual_lengths,
}  # fmt: skip
"""How each experiment is drawn."""
