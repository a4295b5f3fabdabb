import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster import metrics_nights
from cluster.metrics import KINDS

ROOT = Path(__file__).parents[2]
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "dashboards" / "grafana").glob("*.json"))
}
PANELS = [panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] != "row"]
VARIABLES = {"cluster": "sweep", "nights": "schedule"}
UNITS = {"short", "none", "percentunit", "bytes", "s", "h"}
OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"}
BESIDE = {
    "musweep_driver_up": {"sweep"}, "musweep_driver_beat_age_seconds": {"sweep"}, "musweep_disk_free_bytes": set(),
    "musweep_queue_sweeps": {"state", "priority"}, "musweep_queue_up": set(), "musweep_scrape_seconds": set(),
}  # fmt: skip
NIGHTS = {kind.name: {"schedule"} for kind in metrics_nights.KINDS} | {
    "musweep_night_result": {"schedule", "result"}, "musweep_schedule_next_time_seconds": {"schedule"},
    "musweep_schedules_up": set(), "musweep_messages": {"state"},
}  # fmt: skip
EXPORTED = {kind.name + "_total" * kind.counter: {"sweep", *kind.labels} for kind in KINDS} | BESIDE | NIGHTS
"""The series of the exporter, each with its labels."""


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_only_for_what_is_exported(panel: dict[str, Any]) -> None:
    assert queries(panel)
    for query in queries(panel):
        chosen = re.findall(r"\b(musweep_\w+)(?:{([^}]*)})?", query)
        names = [name for name, _ in chosen]
        assert names
        for name, selector in chosen:
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selector)) <= EXPORTED[name], query
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(re.split(r",\s*", group)) <= set.intersection(*(EXPORTED[name] for name in names)), query
        for name in names:  # counters are looked at as rates, or as what they have come to
            assert not name.endswith("_total") or "rate(" in query or "increase(" in query or "/ 3600" in query
        assert query.count("(") == query.count(")")
        assert query.count("{") == query.count("}")
    for target in panel["targets"]:
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        names = re.findall(r"\bmusweep_\w+", target["expr"])
        assert all(shown <= EXPORTED[name] for name in names)


def test_everything_that_is_exported_is_shown_somewhere() -> None:
    shown = {name for panel in PANELS for query in queries(panel) for name in re.findall(r"\bmusweep_\w+", query)}
    beside = {"musweep_sweep_phase", "musweep_updates_total", "musweep_mlflow_up", "musweep_queue_up",
              "musweep_scrape_seconds", "musweep_schedules_up"}  # fmt: skip
    assert set(EXPORTED) - shown == beside  # of use in alerts


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_panels_have_numbers_units_and_places_of_their_own(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        box = panel["gridPos"]
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["description"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


@pytest.mark.parametrize("name", BOARDS)
def test_the_data_source_is_the_readers_choice(name: str) -> None:
    board = BOARDS[name]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables[VARIABLES[name]]["includeAll"]
    assert "__inputs" not in board  # no dialogue is needed to provision it


def test_every_query_goes_to_that_source() -> None:
    sources = [part["datasource"] for panel in PANELS for part in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_colours_are_told_apart_by_all() -> None:
    def colours(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(colours, value.values()))
        if isinstance(value, list):
            return set().union(*map(colours, value))
        return {value} if isinstance(value, str) and value.startswith("#") else set()

    assert colours(BOARDS) <= OKABE_ITO
    modes = {panel["fieldConfig"]["defaults"]["color"]["mode"] for panel in PANELS}
    assert modes <= {"fixed", "thresholds", "continuous-viridis"}


def kept(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Where a board that Grafana's own types have read and written again is not as it was."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [lost for key in ours for lost in kept(ours[key], theirs.get(key), f"{at}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            lost
            for n, (one, other) in enumerate(zip(ours, theirs, strict=True))
            for lost in kept(one, other, f"{at}/{n}")
        ]
    return [] if ours == theirs else [f"{at}: {ours!r} became {theirs!r}"]


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_own_types_take_all_that_is_in_it(name: str) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()  # of panels and queries, which else stay as they are
    board = BOARDS[name]
    assert kept(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board)))) == []
    assert kept(board | {"panells": []}, board) == ["/panells: [] became None"]
    assert board["schemaVersion"] == 42
    assert board["uid"] == f"musweep-{name}"
    assert "id" not in board


def test_the_page_on_watching_names_what_is_exported() -> None:
    page = (ROOT / "docs" / "watching.md").read_text()
    assert set(re.findall(r"\bmusweep_[a-z_]+", page)) == set(EXPORTED)
