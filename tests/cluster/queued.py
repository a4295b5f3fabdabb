"""Entries of the queue as tests make them."""

from typing import Any

from cluster.queue import Entry

BLANK: dict[str, Any] = {
    "name": "s", "target": "here", "owner": "ann", "priority": 0, "cpus": 1.0, "gpus": 0.0, "workers": 1, "least": 1,
    "granted": 0, "state": "queued", "wanted": "", "why": "", "starts": 0, "failures": 0, "passed": 0, "package": "",
    "folder": "", "spec_hash": "", "epoch": 0, "submitted": 0.0, "started": None, "ended": None,
}  # fmt: skip


def entry(seq: int, **values: Any) -> Entry:
    """An entry named by its place, such as s3."""
    return Entry(**{**BLANK, "seq": seq, "id": f"s{seq}", **values})


def running(seq: int, **values: Any) -> Entry:
    """An entry that is under way with all its workers."""
    made = {"state": "running", "workers": 1, **values}
    return entry(seq, **{"granted": made["workers"], **made})
