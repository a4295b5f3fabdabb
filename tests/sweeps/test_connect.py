import pytest
import ray

from sweeps import connect


@pytest.mark.parametrize(
    ("address", "nodes", "shared"),
    [("", 0, False), ("head:6379", 0, True), ("", 1, False), ("", 2, True), ("auto", 1, True)],
)
def test_a_cluster_is_one_before_and_after_it_is_connected_to(
    address: str, nodes: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Ray that is not connected to yet there are no nodes."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: nodes > 0)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}] * nodes + [{"Alive": False}])
    assert connect.shared() == shared
