"""A service of the tests' own, in this process, on a port of its own."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cluster import schedule_tables
from cluster.schedule import Firing, Schedule, Schedules
from cluster.service.app import Settings, create
from cluster.service.serving import listening, server
from cluster.service.tokens import Tokens
from tests.dashboards.synthetic import START


@contextlib.contextmanager
def serving(root: Path, tokens: Tokens | None = None, rate: float = 1e6, audit: Path | None = None) -> Iterator[str]:
    """The address of a service over a folder; with tokens it asks for one."""
    app = create(root, Settings(open=tokens is None, rate=rate), tokens, audit)
    with listening("127.0.0.1", 0) as sock:
        made = server(app)
        thread = threading.Thread(target=made.run, args=([sock],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            made.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the service does not end"


def fired(store: Schedules, name: str, results: str, seen: float | None = None, words: str = "as before") -> None:
    """Nights of a schedule, a letter each: o(k), w(orse), b(roken), m(issed), + (better).

    A scheduler last looked at it `seen`, or just now.
    """
    known = {"o": "ok", "w": "worse", "b": "broken", "m": "", "+": "better"}
    store.add(Schedule(name, "30 2 * * *", "UTC", "digits-hf", "local", "/"), seen or time.time())
    rows = [
        asdict(Firing(name, START + 86_400.0 * i, sweep=f"{name}-{i}", state="missed" if letter == "m" else "done",
                      result=known[letter], sentence=f"night {i} {words}", night=json.dumps({"effect": 1.0 + i / 100})))
        for i, letter in enumerate(results)
    ]  # fmt: skip
    if rows:
        store.database.run(lambda connection: connection.execute(schedule_tables.firings.insert(), rows))
