"""The pages of the queue and its targets, and of the audit log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from cluster.service.access import Who, admin, operator, reader
from cluster.service.pages_render import html
from cluster.service.pages_sweep import address
from cluster.service.problems import Refused
from sweeps.errors import SpecError

if TYPE_CHECKING:
    from cluster.queue import Entry, Queue

router = APIRouter(include_in_schema=False)
ENDED_SHOWN = 50
ACTS = {
    "queued": ("higher", "lower", "hold", "cancel"), "held": ("release", "cancel"),
    "starting": ("hold", "cancel"), "running": ("hold", "cancel"),
}  # fmt: skip
"""What can be done about an entry, by its state."""


@router.get("/queue")
def queue(request: Request, who: Annotated[Who, Depends(reader)]) -> Response:
    """Who waits for what, and how the targets stand."""
    from cluster.queue import ENDED
    from cluster.queue_show import in_order, summary
    from cluster.queue_tables import QueueError

    service, now = request.app.state.service, time.time()
    there = {each.id for each in service.shelf.sweeps()}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    try:
        targets, queues = list(service.actions.targets().values()), service.actions.queues()
    except SpecError as error:  # clusters.yaml is wrong: said here, where one looks for it
        targets, queues = [], []
        notes += [str(each) for each in error.errors]
    for target, found in queues:
        try:
            entries = in_order(found.entries(target.name))
            notes.append(summary(found, target.name, entries, now))
        except QueueError as error:
            notes.append(f"{target.name}: {error}")
            continue
        over = [each for each in entries if each.state in ENDED][ENDED_SHOWN:]
        rows += shown([each for each in entries if each not in over], there)
    return html(request, "queue.html", rows=rows, notes=notes, targets=targets, events="/api/v1/events", poll=5,
                may_write=who.may("operator"))  # fmt: skip


def shown(entries: Sequence[Entry], there: set[str]) -> list[dict[str, Any]]:
    """Entries as the table has them; `there` are the sweeps that have a page."""
    from cluster.queue import ENDED
    from cluster.queue_show import needs

    place, rows = 0, []
    for each in entries:
        place += each.state == "queued"
        since = each.ended if each.state in ENDED else each.started if each.started else each.submitted
        rows.append({
            "entry": each, "place": place if each.state == "queued" else 0, "needs": needs(each), "since": since,
            "word": "stopping" if each.wanted else each.state, "acts": () if each.wanted else ACTS.get(each.state, ()),
            "link": address(each.id) if each.id in there else "",
        })  # fmt: skip
    return rows


@router.post("/queue/{id_}/{act}")
def order(request: Request, id_: str, act: str, who: Annotated[Who, Depends(operator)]) -> Response:
    """Hold, release, cancel or move a queued sweep."""
    todo: dict[str, Callable[[Queue], Entry]] = {
        "hold": lambda queue: queue.hold(id_, who.name),
        "release": lambda queue: queue.release(id_),
        "cancel": lambda queue: queue.cancel(id_, who.name),
        "higher": lambda queue: queue.priority(id_, _priority(queue, id_) + 1),
        "lower": lambda queue: queue.priority(id_, _priority(queue, id_) - 1),
    }
    if act not in todo:
        raise Refused(404, f"{act[:40]!r} cannot be done to a queued sweep; legal: {', '.join(todo)}")
    request.state.audit = {"sweep": id_}
    request.app.state.service.actions.entry(id_, todo[act])
    return RedirectResponse("/queue", 303)


def _priority(queue: Queue, id_: str) -> int:
    found = queue.get(id_)
    return found.priority if found is not None else 0


@router.get("/audit")
def audit(request: Request, _who: Annotated[Who, Depends(admin)]) -> Response:
    """Who asked for what, the latest first."""
    from cluster.service.audit import read

    path = request.app.state.service.audit.path
    lines = read(path, 300) if path is not None else []
    return html(request, "audit.html", lines=lines[::-1])
