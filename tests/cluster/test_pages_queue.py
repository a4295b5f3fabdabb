import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cluster.queue import Queue
from cluster.service.tokens import Tokens
from tests.cluster.serving import serving
from tests.dashboards.synthetic import Sweep, make

NASTY = "<script>alert('x')</script>"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Queue]]:
    """A service that knows a target with a queue, and that queue: three wait, the second of a higher priority."""
    (tmp_path / "clusters.yaml").write_text(f"shared: {{kind: local, storage: {tmp_path / 'sweeps'}, queue: true}}\n")
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    make(tmp_path / "runs" / "b", Sweep(trials=3))
    queue = Queue.open(tmp_path / "sweeps")
    for name, priority in (("a", 0), ("b", 5), ("c", 0)):
        queue.put(name, target="shared", owner=NASTY, priority=priority, cpus=4, gpus=2)
    with serving(tmp_path / "runs") as address:
        yield address, queue


def shown(address: str) -> list[tuple[str, str]]:
    """(sweep, state) of each row."""
    source = requests.get(f"{address}/queue", headers={"Accept": "text/html"}, timeout=30).text
    assert NASTY not in source
    rows = re.findall(r'data-key="row-(\w+)".*?class="state is-[\w-]+">.*?</span>([\w ]+)</span>', source, re.S)
    return [(name, state) for name, state in rows]


def told(address: str, id_: str, act: str, who: requests.Session | None = None) -> requests.Response:
    browser = who or requests.Session()
    browser.headers.update({"Accept": "text/html", "Origin": address})
    token = re.search(r'name="csrf" value="([^"]+)"', browser.get(f"{address}/queue", timeout=30).text)
    return browser.post(f"{address}/queue/{id_}/{act}", data={"csrf": token.group(1) if token else ""}, timeout=30)


def test_the_queue_is_shown_in_the_order_in_which_it_starts(shared: tuple[str, Queue]) -> None:
    address, _ = shared
    assert shown(address) == [("b", "queued"), ("a", "queued"), ("c", "queued")]
    source = requests.get(f"{address}/queue", timeout=30).text
    assert source.count("4 CPU 2 GPU") == 3
    assert 'href="/sweeps/b"' in source  # the one that has a folder here
    assert 'href="/sweeps/a"' not in source
    assert "3 waiting" in source
    assert re.search(r'<th scope="row">shared</th><td class="words">local</td>', source)


def test_what_is_queued_is_held_released_moved_and_cancelled(shared: tuple[str, Queue]) -> None:
    address, queue = shared
    assert told(address, "c", "higher").status_code == 200
    assert [name for name, _ in shown(address)] == ["b", "c", "a"]
    told(address, "c", "lower")
    told(address, "b", "hold")
    assert shown(address) == [("a", "queued"), ("c", "queued"), ("b", "held")]
    told(address, "b", "release")
    assert shown(address)[0] == ("b", "queued")
    told(address, "b", "cancel")
    assert shown(address)[-1] == ("b", "stopped")
    again = told(address, "b", "hold")
    assert again.status_code == 409
    assert "<h1>This cannot be done now</h1>" in again.text
    assert told(address, "zzz", "hold").status_code == 404
    assert told(address, "a", "explode").status_code == 404
    found = queue.get("a")
    assert found
    assert found.state == "queued"


def test_a_reader_sees_the_queue_and_cannot_order_it(shared: tuple[str, Queue], tmp_path: Path) -> None:
    _, queue = shared
    tokens = Tokens(f"sqlite:///{tmp_path / 'tokens.db'}")
    secret = tokens.add("anna", "reader")[1]
    with serving(tmp_path / "runs", tokens) as address:
        browser = requests.Session()
        browser.headers.update({"Origin": address, "Accept": "text/html"})
        browser.post(f"{address}/login", data={"token": secret}, timeout=30)
        source = browser.get(f"{address}/queue", timeout=30).text
        assert "/queue/a/hold" not in source
        assert told(address, "a", "cancel", browser).status_code == 403
    found = queue.get("a")
    assert found
    assert found.state == "queued"


def test_mistakes_in_the_clusters_file_are_told_where_one_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clusters.yaml").write_text("shared: {kind: lokal}\n")
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    with serving(tmp_path) as address:
        found = requests.get(f"{address}/queue", headers={"Accept": "text/html"}, timeout=30)
    assert found.status_code == 200
    assert "lokal" in found.text
