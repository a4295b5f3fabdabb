"""How schedules and their nights stand, for Prometheus, read from their database when asked."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from cluster.schedule import Firing, Schedule, Schedules

RESULTS = ("ok", "better", "worse", "broken", "missed")
MESSAGES = ("queued", "sent", "failed")
_SEEN = 20
"""Firings of a schedule that are looked at for its last night."""
PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A metric of a schedule's last night."""

    name: str
    words: str
    value: Callable[[Firing, dict[str, Any]], float | None]


def _of(key: str) -> Callable[[Firing, dict[str, Any]], float | None]:
    return lambda _firing, night: night.get(key)


def _took(firing: Firing, _night: dict[str, Any]) -> float | None:
    return firing.ended - firing.started if firing.ended is not None and firing.started is not None else None


KINDS = (
    Kind("musweep_night_time_seconds", "When the last night that was judged was due.", lambda firing, _: firing.at),
    Kind("musweep_night_duration_seconds", "How long it took.", _took),
    Kind("musweep_night_ratio", "Its error as a multiple of the reference's.", _of("effect")),
    Kind("musweep_night_ratio_low", "Lower end of the ratio's 95% interval.", _of("low")),
    Kind("musweep_night_ratio_high", "Upper end of the ratio's 95% interval.", _of("high")),
    Kind("musweep_night_could_find_ratio", "Smallest ratio it would have found with 80% power.", _of("could_find")),
    Kind("musweep_night_difference", "Fixed seeds: largest relative difference.", _of("difference")),
    Kind("musweep_night_tolerance", "Fixed seeds: the largest difference that is none.", _of("tolerance")),
)


class Nights(Collector):
    """Reads all schedules at each scrape.

    Args:
        url: of their database; None: where they are for this user, if there are any.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url

    def collect(self) -> Iterator[Metric]:
        """All metrics as they stand now; none where nobody has a schedule."""
        from cluster.schedule import FILE, Schedules
        from cluster.submitted import state_folder

        named = self._url or os.environ.get("MUSWEEP_DATABASE")
        if not named and not (state_folder() / FILE).exists():
            return
        try:
            metrics = list(_metrics(Schedules.open(named, PATIENCE_S)))
            up = 1.0
        except Exception:  # whatever its database says: the other numbers must not go with it
            metrics, up = [], 0.0
        yield from metrics
        yield GaugeMetricFamily("musweep_schedules_up", "Whether the schedules' database answers.", value=up)


def _metrics(store: Schedules) -> Iterator[Metric]:
    found = [(each, store.firings(each.name, _SEEN)) for each in store.all()]
    yield from _standings(found)
    for kind in KINDS:
        family = GaugeMetricFamily(kind.name, kind.words, labels=("schedule",))
        for schedule, firings in found:
            last = next((each for each in firings if each.state == "done"), None)
            value = None if last is None else kind.value(last, json.loads(last.night or "{}"))
            if value is not None:
                family.add_metric((schedule.name,), value)
        yield family
    counts = Counter(each.state for each in store.messages(limit=1000))
    family = GaugeMetricFamily("musweep_messages", "Messages, the last thousand, by state.", labels=("state",))
    for state in MESSAGES:
        family.add_metric((state,), counts[state])
    yield family


def _standings(found: list[tuple[Schedule, list[Firing]]]) -> Iterator[Metric]:
    from cluster import schedule_times
    from cluster.schedule_show import standing

    now = time.time()
    stands = GaugeMetricFamily(
        "musweep_night_result", "1 for the result of the last night.", labels=("schedule", "result")
    )
    coming = GaugeMetricFamily("musweep_schedule_next_time_seconds", "When it is due next.", labels=("schedule",))
    for schedule, firings in found:
        result, _ = standing(schedule, firings, now)
        for each in RESULTS:
            stands.add_metric((schedule.name, each), float(each == result))
        if not schedule.paused:  # from where a scheduler last looked: one in the past says that none does
            moment = next(schedule_times.due(schedule.cron, schedule.zone, schedule.cursor))
            coming.add_metric((schedule.name,), moment)
    yield from (stands, coming)
