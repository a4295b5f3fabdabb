"""A client of the service, typed: what it returns is what `cluster.service.models` says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import TypeAdapter, ValidationError

from cluster.folders import UserError
from cluster.loopback import is_loopback
from cluster.service.models import (
    Curve,
    Log,
    Measurement,
    Page,
    Point,
    Problem,
    Sheet,
    Summary,
    TrialRow,
    TrialSheet,
    Wrong,
)
from cluster.service.models_acts import (
    Checked,
    FiringInfo,
    Known,
    NewSchedule,
    PublishedTable,
    QueueEntry,
    QueueState,
    ScheduleInfo,
    Submission,
    Submitted,
    TargetInfo,
    ToCheck,
    Version,
)

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
TIMEOUT_S = 30.0
PATIENCE_S = 600.0
"""How long a service may be out of reach before whoever waits gives up."""
_PAGE = 10_000
_ACTIVE = ("pending", "running")


class ServiceError(UserError):
    """What a service refused, in one line; `status` is HTTP's, 0 where it does not answer."""

    def __init__(self, words: str, status: int = 0, problems: Sequence[Wrong] = ()) -> None:
        super().__init__(words)
        self.status, self.problems = status, list(problems)

    @property
    def lines(self) -> list[str]:
        """One line for each thing that is wrong with what was sent; none where that is not the matter."""
        return [
            f"{each.key}={each.value}: {each.problem}{f'; allowed: {each.legal}' if each.legal else ''}"
            for each in self.problems
        ]


class Client:
    """A service of `musweep serve`.

    Args:
        url: of the service, as http://127.0.0.1:8321; default: $MUSWEEP_SERVER.
        token: that lets in; default: $MUSWEEP_TOKEN; none is needed on a loopback that asks for none.
        timeout_s: how long to wait for an answer.
        insecure: whether the token may go over a network without TLS; default: where $MUSWEEP_INSECURE is 1.

    Raises:
        ServiceError: the URL is none, or would show the token to the network.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        insecure: bool | None = None,
    ) -> None:
        self.url = (url or os.environ.get("MUSWEEP_SERVER") or "").rstrip("/")
        token = token or os.environ.get("MUSWEEP_TOKEN")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ServiceError(f"server {self.url!r}: legal: http://HOST:PORT or https://HOST, as `musweep serve` says")
        here = is_loopback(parts.hostname)
        insecure = os.environ.get("MUSWEEP_INSECURE") == "1" if insecure is None else insecure
        if token and parts.scheme == "http" and not here and not insecure:
            raise ServiceError(
                f"{self.url}: a token would cross the network for all to read: use https; MUSWEEP_INSECURE=1 allows it"
            )
        self._session, self._timeout_s = requests.Session(), timeout_s
        self._session.trust_env = not here
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    # -- how it asks ---------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, params: Mapping[str, Any] | None = None, **more: Any) -> requests.Response:
        """An answer that says yes.

        Raises:
            ServiceError: it says no, or there is none.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            answer = self._session.request(
                method, f"{self.url}/api/v1{path}", params=given, allow_redirects=False,
                **{"timeout": self._timeout_s, **more},
            )  # fmt: skip
        except requests.RequestException as error:
            raise ServiceError(
                f"{self.url} does not answer ({_why(error)}); is it running? musweep serve starts one"
            ) from None
        if answer.status_code >= 300:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: requests.Response) -> ServiceError:
        try:
            told = Problem.model_validate_json(answer.content)
        except ValidationError:
            what = "is that a service of musweep's?" if answer.status_code < 500 else "its own output says more"
            return ServiceError(f"{self.url} answered {answer.status_code}: {what}", answer.status_code)
        hint = " (set MUSWEEP_TOKEN)" if told.status == 401 else ""
        return ServiceError(f"{self.url}: {told.detail}{hint}", told.status, told.problems)

    def _get(self, kind: Any, path: str, **params: Any) -> Any:
        return self._read(kind, self._ask("GET", path, params))

    def _post(self, kind: Any, path: str, sent: Any = None) -> Any:
        body = None if sent is None else sent.model_dump(mode="json", by_alias=True, exclude_none=True)
        return self._read(kind, self._ask("POST", path, json=body))

    def _read(self, kind: Any, answer: requests.Response) -> Any:
        try:
            return TypeAdapter(kind).validate_json(answer.content)
        except ValidationError:
            raise ServiceError(
                f"{self.url} answered what this musweep does not understand: is it another version?"
            ) from None

    # -- sweeps --------------------------------------------------------------------------------------------------

    def version(self) -> Version:
        """What answers, and who you are to it."""
        found: Version = self._get(Version, "/version")
        return found

    def sweeps(self, state: str = "", name: str = "") -> list[Summary]:
        """All sweeps, or those of a state or with something in their name; the last changed first."""
        return self._all(Summary, "/sweeps", 1000, state=state, name=name)

    def sweep(self, id_: str) -> Sheet:
        """All of a sweep but its trials."""
        found: Sheet = self._get(Sheet, f"/sweeps/{_name(id_)}")
        return found

    def summary(self, id_: str) -> Summary:
        """How a sweep stands, in short."""
        found: Summary = self._get(Summary, f"/sweeps/{_name(id_)}/summary")
        return found

    def trials(
        self, id_: str, sort: str = "number", descending: bool = False, filter: str = "", limit: int | None = None
    ) -> list[TrialRow]:
        """A sweep's trials, sorted and filtered; all, or the first few."""
        path, asked = f"/sweeps/{_name(id_)}/trials", {"sort": sort, "descending": descending, "filter": filter}
        return self._all(TrialRow, path, _PAGE, limit, **asked)

    def trial(self, id_: str, number: int) -> TrialSheet:
        """All of a trial."""
        found: TrialSheet = self._get(TrialSheet, f"/sweeps/{_name(id_)}/trials/{number}")
        return found

    def curves(self, id_: str, n: int = 10, metric: str = "", trials: Sequence[int] = ()) -> list[Curve]:
        """A metric, the objective by default, of the best trials or of some, by update."""
        found: list[Curve] = self._get(
            list[Curve], f"/sweeps/{_name(id_)}/curves", n=n, metric=metric, trial=list(trials) or None
        )
        return found

    def points(self, id_: str, x: str = "mu_max", y: str = "lr") -> list[Point]:
        """The trials of the search as dots on a map of two parameters."""
        found: list[Point] = self._get(list[Point], f"/sweeps/{_name(id_)}/points", x=x, y=y)
        return found

    def rows(self, id_: str) -> Any:
        """Every number that was measured, as a pyarrow Table: trial_id, update, metric, value."""
        from sweeps.parquet import read_stream

        answer = self._ask("GET", f"/sweeps/{_name(id_)}/rows", {"format": "arrow"}, timeout=PATIENCE_S)
        return read_stream(answer.content)

    def frame(self, id_: str) -> pd.DataFrame:
        """The same as a data frame."""
        made: pd.DataFrame = self.rows(id_).to_pandas()
        return made

    def measurements(self, id_: str, trial: int) -> list[Measurement]:
        """Every number of one trial."""
        return self._all(Measurement, f"/sweeps/{_name(id_)}/rows", 100_000, format="json", trial=str(trial))

    def comparison(self, id_: str) -> dict[str, Any]:
        """The sweep's comparison.json."""
        found: dict[str, Any] = self._get(dict[str, Any], f"/sweeps/{_name(id_)}/comparison")
        return found

    def log(self, id_: str, trial: int | None = None, lines: int = 500) -> Log:
        """The end of what a sweep's driver and groups printed, or of what one trial printed."""
        found: Log = self._get(
            Log, f"/sweeps/{_name(id_)}/log", trial=None if trial is None else str(trial), lines=lines
        )
        return found

    def events(self, id_: str | None = None) -> Iterator[Summary]:
        """How a sweep stands, or each of all, now and whenever that changes; until the service ends."""
        path = "/events" if id_ is None else f"/sweeps/{_name(id_)}/events"
        kind = ""
        with self._ask("GET", path, stream=True, timeout=(self._timeout_s, 60.0)) as answer:
            for data in answer.iter_lines():
                line = data.decode()
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind == "sweep":
                    yield Summary.model_validate_json(line.removeprefix("data: "))
                elif kind == "bye":
                    return

    # -- what starts and stops them ------------------------------------------------------------------------------

    def check(
        self, spec: str | Path | Mapping[str, Any], set: Sequence[str] = (), protocol: str | None = None
    ) -> Checked:
        """Whether a spec can be run there; see `submit`."""
        sent = ToCheck(spec=_spec(spec), set=[*set], protocol=protocol)
        found: Checked = self._post(Checked, "/check", sent)
        return found

    def submit(
        self, spec: str | Path | Mapping[str, Any], target: str = "local", *, set: Sequence[str] = (),
        protocol: str | None = None, again: bool = False, priority: int = 0,
    ) -> Submitted:  # fmt: skip
        """Send a sweep to a target of the service's.

        Args:
            spec: a file, YAML text, plain data, or the name of a shipped spec.
            target: by name.
            set: `key.path=value`.
            protocol: of the spec.
            again: a new sweep of a spec that is there already.
            priority: in a queue; higher goes first.

        Raises:
            ServiceError: it is refused; `problems` tells everything wrong with the spec.
        """
        sent = Submission(
            spec=_spec(spec), target=target, set=[*set], protocol=protocol, again=again, priority=priority
        )  # fmt: skip
        found: Submitted = self._post(Submitted, "/sweeps", sent)
        return found

    def place(self, id_: str) -> Known:
        """What the place of a submitted sweep knows of it."""
        found: Known = self._get(Known, f"/sweeps/{_name(id_)}/place")
        return found

    def stop(self, id_: str) -> Known:
        """Have a sweep leave cleanly, so that it can go on later."""
        found: Known = self._post(Known, f"/sweeps/{_name(id_)}/stop")
        return found

    def resume(self, id_: str) -> Known:
        """Go on with a sweep after any kind of end."""
        found: Known = self._post(Known, f"/sweeps/{_name(id_)}/resume")
        return found

    def wait(
        self, id_: str, timeout_s: float | None = None, on_change: Callable[[Known], None] | None = None,
        poll_s: float = 2.0,
    ) -> Known:  # fmt: skip
        """Wait until a submitted sweep is no longer active; a service that does not answer is asked again for a while.

        Raises:
            TimeoutError: it still is after `timeout_s`.
            ServiceError: the service knows no such sweep, or does not answer for ten minutes.
        """
        began, failing, last = time.monotonic(), 0.0, None
        while True:
            try:
                known = self.place(id_)
                failing = 0.0
            except ServiceError as error:
                failing = failing or time.monotonic()
                if error.status not in (0, 429) or time.monotonic() - failing > PATIENCE_S:
                    raise
            else:
                if known != last and on_change is not None:
                    on_change(known)
                last = known
                if known.state not in _ACTIVE:
                    return known
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise TimeoutError(f"{id_} is still {last.state if last else 'out of reach'} after {timeout_s:g} s")
            time.sleep(poll_s)

    # -- the queue and its places --------------------------------------------------------------------------------

    def queue(self, ended: bool = False) -> list[QueueState]:
        """The queues of all targets, in the order in which sweeps would start."""
        found: list[QueueState] = self._get(list[QueueState], "/queue", ended=ended)
        return found

    def order(self, id_: str, what: str, priority: int | None = None) -> QueueEntry:
        """Do something about a queued sweep: `hold`, `release`, `cancel`, or `priority` with a number."""
        body = None if priority is None else {"priority": priority}
        found: QueueEntry = self._read(QueueEntry, self._ask("POST", f"/queue/{_name(id_)}/{_name(what)}", json=body))
        return found

    def targets(self) -> list[TargetInfo]:
        """The places that sweeps can be sent to."""
        found: list[TargetInfo] = self._get(list[TargetInfo], "/targets")
        return found

    def baselines(self) -> list[PublishedTable]:
        """The papers' tables that sweeps are held against."""
        found: list[PublishedTable] = self._get(list[PublishedTable], "/baselines")
        return found

    # -- schedules -----------------------------------------------------------------------------------------------

    def schedules(self) -> list[ScheduleInfo]:
        """All schedules."""
        found: list[ScheduleInfo] = self._get(list[ScheduleInfo], "/schedules")
        return found

    def schedule(self, name: str) -> ScheduleInfo:
        """One schedule."""
        found: ScheduleInfo = self._get(ScheduleInfo, f"/schedules/{_name(name)}")
        return found

    def add_schedule(
        self, name: str, cron: str, spec: str | Path | Mapping[str, Any], target: str = "local", **more: Any
    ) -> ScheduleInfo:
        """Add a schedule; `more` as `NewSchedule` has it."""
        sent = NewSchedule(name=name, cron=cron, spec=_spec(spec), target=target, **more)
        found: ScheduleInfo = self._post(ScheduleInfo, "/schedules", sent)
        return found

    def pause_schedule(self, name: str) -> ScheduleInfo:
        """Let a schedule no longer be due."""
        found: ScheduleInfo = self._post(ScheduleInfo, f"/schedules/{_name(name)}/pause")
        return found

    def resume_schedule(self, name: str) -> ScheduleInfo:
        """Let a paused schedule be due again."""
        found: ScheduleInfo = self._post(ScheduleInfo, f"/schedules/{_name(name)}/resume")
        return found

    def run_schedule(self, name: str) -> FiringInfo:
        """Have a schedule fire now."""
        found: FiringInfo = self._post(FiringInfo, f"/schedules/{_name(name)}/run")
        return found

    def remove_schedule(self, name: str) -> None:
        """Forget a schedule with its history; sweeps stay."""
        self._ask("DELETE", f"/schedules/{_name(name)}")

    def firings(self, name: str | None = None, limit: int = 100) -> list[FiringInfo]:
        """The times that a schedule, or any, was due, the newest first."""
        path = "/firings" if name is None else f"/schedules/{_name(name)}/firings"
        found: list[FiringInfo] = self._get(list[FiringInfo], path, limit=limit)
        return found

    def _all(self, kind: type[T], path: str, size: int, limit: int | None = None, **params: Any) -> list[T]:
        """The rows of all pages."""
        rows: list[T] = []
        while True:
            wanted = size if limit is None else min(size, limit - len(rows))
            page: Page[T] = self._get(Page[kind], path, offset=len(rows), limit=max(1, wanted), **params)  # type: ignore[valid-type]
            rows += page.rows
            if not page.rows or len(rows) >= page.matched or (limit is not None and len(rows) >= limit):
                return rows[:limit]


def _name(text: str) -> str:
    """A name as a part of an address."""
    return quote(text, safe="")


def _spec(spec: str | Path | Mapping[str, Any]) -> str | dict[str, Any]:
    """What is sent of a spec."""
    if isinstance(spec, Path):
        return spec.read_text(encoding="utf-8")
    return spec if isinstance(spec, str) else dict(spec)


def _why(error: requests.RequestException) -> str:
    """Why nothing came, in a few words, without the address and what it may carry."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    reason = getattr(error.args[0], "reason", None) if error.args else None
    words = str(reason or type(error).__name__)
    return "nothing listens there" if "refused" in words else words.rpartition(": ")[2][:120]
