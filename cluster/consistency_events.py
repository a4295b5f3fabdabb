"""What events.jsonl still tells of commits that the journal has lost: all of their records but for measurements."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sweeps import journal, stages
from sweeps.journal import Record
from sweeps.spec import SweepSpec

_OURS = ("schema_version", "record", "trial_id")
"""What an event has that its record has not."""


def records_of(events: Iterable[Mapping[str, Any]], spec: SweepSpec | None) -> list[Record]:
    """The journal's records as far as events tell them, in order; what a trial trains follows from the spec."""
    by_name = stages.by_name(spec) if spec is not None else {}
    told = [event for event in events if isinstance(event.get("record"), int)]
    found = []
    for event in sorted(told, key=lambda event: int(event["record"])):
        record = {key: value for key, value in event.items() if key not in _OURS}
        if record["type"] != "open":
            record.pop("sweep_id", None)
        try:
            if "trial_id" in event:
                record["trial"] = int(event["trial_id"][1:])
            if record["type"] == "ask":
                record["config"] = _config(spec, by_name, record)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        found.append(record)
    return found


def _config(spec: SweepSpec | None, by_name: Mapping[str, stages.Stage], record: Record) -> Any:
    """What a trial trains, as it was asked for."""
    stage = by_name[record["stage"]]
    kind = stages.CONFIRM if stages.is_confirm(stage.name) else stages.SEARCH
    config = stage.spec.config(record["trial"], record["params"], kind, record["replicate"])
    assert spec is not None
    return json.loads(json.dumps({**config, "updates": spec.training.updates} if stage.confirms else config))


def opening(sound: list[Record], folder_name: str) -> Record:
    """An `open` record where nobody tells of one any more."""
    times = [record["time"] for record in sound if isinstance(record.get("time"), float | int)]
    return {
        "type": "open", "time": min(times, default=0.0), "format": journal.FORMAT, "sweep_id": folder_name, "epoch": 1,
        "versions": {},
    }  # fmt: skip
