"""The sweeps of a folder as the service shows them: read once, then followed, whatever the number of readers.

Nothing here writes into a sweep folder. Each sweep has a lock, so that many who ask at once cause one read; what is
read is kept until others are wanted more.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from cluster.folders import Folder, UserError, is_sweep
from cluster.service import looks, sheets
from cluster.service.kept import Kept, Made
from cluster.service.looks import Look
from cluster.service.models import Curve, Log, Measurement, Page, Point, Sheet, Summary, TrialRow, TrialSheet
from cluster.service.picking import Picked, pick
from sweeps import history as histories
from sweeps.errors import nearest
from sweeps.history import Trial

T = TypeVar("T")

FRESH_S = 2.0
"""How old an answer may be: as old as what drivers tell."""
MEMORY = 768 * 2**20
"""Bytes that journals which were read may take, about."""
_LARGE = 2 * 2**20
"""Bytes of a journal from which on a list does without it where the driver's status says as much."""
_THRIFT, _STALEST_S = 10.0, 20.0
"""A view that took a while is kept for so many times as long, though its sweep goes on; but no longer than this."""
_VIEWS, _LONG_PAGE = 64, 500
_BESIDE = ("comparison.json", "mlflow.json", "report.html")
"""Files of a sweep folder that views tell of, beside the journal."""
_PATIENCE_S = 1.5
"""How long a list waits for journals that are read for the first time."""


class NoSuchSweep(UserError):
    """There is no sweep, or no trial, of this name."""


class Shelf:
    """The sweeps under a folder. May be asked from any thread.

    Args:
        root: the folder of sweep folders.
        fresh_s: how old an answer may be.
        memory: bytes that journals which were read may take, about; the sweep that was asked for last always stays.
    """

    def __init__(self, root: Path, fresh_s: float = FRESH_S, memory: float = MEMORY) -> None:
        self.root, self._fresh_s, self._memory = root, fresh_s, memory
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._turn, self._listing = threading.Lock(), threading.Lock()
        self._listed, self._list = -1e9, list[Summary]()
        self._behind: set[str] = set()

    # -- all sweeps ----------------------------------------------------------------------------------------------

    def sweeps(self) -> list[Summary]:
        """All sweeps, the last changed first. Those that cannot be read say why."""
        with self._listing:
            if time.monotonic() - self._listed < self._fresh_s:
                return self._list
            until = time.monotonic() + _PATIENCE_S
            found = [self._summary(name, until) for name in self._names()]
            self._list = sorted(found, key=lambda each: (-each.updated_at, each.id))
            self._listed = time.monotonic()
            with self._turn:
                for gone in self._kept.keys() - {each.id for each in found}:
                    del self._kept[gone]
            return self._list

    def _names(self) -> list[str]:
        inside = self.root.iterdir() if self.root.is_dir() else ()
        return [path.name for path in inside if looks.NAME.fullmatch(path.name) and is_sweep(path)]

    def summary(self, id_: str) -> Summary:
        """One sweep in a line; of the same moment as the list.

        Raises:
            NoSuchSweep: there is none.
        """
        self._known(id_)
        return self._summary(id_, time.monotonic() + _PATIENCE_S)

    def version(self, id_: str) -> str:
        """What changes whenever anything of a sweep does.

        Raises:
            NoSuchSweep: there is none.
        """
        return self.summary(id_).version

    def _summary(self, id_: str, until: float, counted: bool = False) -> Summary:
        """A summary; `counted`: by its journal, which the caller knows to be read."""
        kept = self._entry(id_)
        known = kept.summary
        if known is not None and time.monotonic() - kept.looked < self._fresh_s and not kept.behind:
            return known
        wait = counted and (known is None or kept.behind)
        if not kept.lock.acquire(blocking=wait):  # someone reads it just now, which may take a while
            if known is not None:
                return known
            look = looks.look(kept.path)
            return looks.told(kept.path, look).model_copy(update={"reading": not look.status.get("trials")})
        try:
            if kept.summary is None or kept.behind or time.monotonic() - kept.looked >= self._fresh_s:
                look, before = looks.look(kept.path, kept.look), kept.look
                kept.looked = time.monotonic()
                if kept.summary is None or look != before or kept.summary.reading or kept.behind:
                    kept.summary, kept.look = self._summed(kept, look, until), look
            return kept.summary
        finally:
            kept.lock.release()

    def _summed(self, kept: Kept, look: Look, until: float) -> Summary:
        if look.error:
            return looks.unreadable(kept.path, look)
        kept.told = False
        if kept.reader is None and look.size > _LARGE:
            kept.told = True
            if look.status.get("trials"):
                return looks.told(kept.path, look)
            if time.monotonic() > until or look.size > 10 * _LARGE:
                self._read_behind(kept.path.name)
                return looks.told(kept.path, look).model_copy(update={"reading": True})
            kept.told = False
        try:
            return looks.counted(self._folder(kept), look)
        except (ValueError, KeyError, TypeError, OSError, UserError) as error:
            return looks.unreadable(kept.path, look, error)

    def _read_behind(self, id_: str) -> None:
        """Read a long journal without having anyone wait for it."""
        with self._turn:
            if self._behind:
                return  # one at a time: the others are begun by later looks
            self._behind.add(id_)

        def work() -> None:
            try:
                self.using(id_, lambda _folder: None)
            except Exception:  # the next look says why it is unreadable
                kept = self._entry(id_)
                with kept.lock:
                    kept.summary = None
            finally:
                with self._turn:
                    self._behind.discard(id_)

        threading.Thread(target=work, name=f"shelf {id_}", daemon=True).start()

    # -- one sweep -----------------------------------------------------------------------------------------------

    def _known(self, id_: str) -> None:
        """Refuse what is not the name of a sweep folder of ours: no path gets past this.

        Raises:
            NoSuchSweep: there is none.
        """
        if not looks.NAME.fullmatch(id_) or not is_sweep(self.root / id_):
            near = nearest(id_, [each.id for each in self._list])
            raise NoSuchSweep(f"no sweep {id_[:80]!r} in {self.root}/{f'; did you mean {near}?' if near else ''}")

    def _entry(self, id_: str) -> Kept:
        with self._turn:
            kept = self._kept.get(id_)
            if kept is None:
                kept = self._kept[id_] = Kept(self.root / id_)
            self._kept.move_to_end(id_)
            return kept

    def _folder(self, kept: Kept) -> Folder:
        """A sweep's folder as its journal stands now; the caller has its lock.

        Raises:
            UserError: its spec.json is damaged.
            JournalError: its journal is.
        """
        now = time.monotonic()
        if kept.folder is not None and now - kept.read_at < self._fresh_s:
            return kept.folder
        reader = kept.reader or histories.Reader(kept.path)
        try:
            changed = reader.read()
        except BaseException:
            kept.forget()
            raise
        spec = looks.spec_of(kept.path)
        beside = tuple(looks.stamp(kept.path / name) for name in _BESIDE)
        if kept.folder is None or kept.folder.history is not reader.history or kept.folder.spec != spec:
            kept.folder, changed = Folder(kept.path, spec, reader.history), True
        if changed or beside != kept.beside:
            kept.version, kept.beside = kept.version + 1, beside
        kept.reader, kept.read_at = reader, time.monotonic()
        self._make_room(kept)
        return kept.folder

    def _make_room(self, mine: Kept) -> None:
        """Forget the sweeps that were asked for longest ago, should all together take too much."""
        with self._turn:
            others = [kept for kept in self._kept.values() if kept is not mine]
            total = mine.weight + sum(kept.weight for kept in others)
        for kept in others:
            if total <= self._memory:
                return
            if kept.weight and kept.lock.acquire(blocking=False):
                try:
                    total -= kept.weight
                    kept.forget()
                finally:
                    kept.lock.release()

    def using(self, id_: str, work: Callable[[Folder], T]) -> T:
        """What some work makes of a sweep; it must keep nothing of the folder's history, which goes on changing.

        Raises:
            NoSuchSweep: there is none.
            UserError: it cannot be read.
        """
        self._known(id_)
        kept = self._entry(id_)
        with kept.lock:
            return work(self._readable(kept))

    def _readable(self, kept: Kept) -> Folder:
        try:
            return self._folder(kept)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(f"{kept.path} cannot be read: {error}") from None

    def view(self, id_: str, what: Any, make: Callable[[Folder], T]) -> T:
        """The same as `using` for what is plain data, kept while the sweep stays as it is; and a little longer.

        One that took long is kept for ten times as long, so that however fast a sweep goes on, looking at it costs a
        part of one core; while it is made anew, others get the old one at once.

        Args:
            id_: of the sweep.
            what: tells this view from others; hashable.
            make: makes it.
        """
        self._known(id_)
        kept = self._entry(id_)
        made, now = kept.made.get(what), time.monotonic()
        if made is not None and now - made.at < self._keep_s(made.cost_s):
            return cast("T", made.value)
        if not kept.lock.acquire(blocking=made is None or now - made.at > _STALEST_S):
            assert made is not None
            return cast("T", made.value)
        try:
            folder = self._readable(kept)
            made = kept.made.get(what)
            if made is None or made.version != kept.version:
                began = time.perf_counter()
                value = make(folder)
                kept.made[what] = made = Made(value, kept.version, 0.0, time.perf_counter() - began)
                while len(kept.made) > _VIEWS:
                    kept.made.popitem(last=False)
            made.at = time.monotonic()
            kept.made.move_to_end(what)
            return cast("T", made.value)
        finally:
            kept.lock.release()

    def _keep_s(self, cost_s: float) -> float:
        return max(self._fresh_s, min(_STALEST_S, _THRIFT * cost_s)) if self._fresh_s else 0.0

    def sweep(self, id_: str) -> Sheet:
        """All of a sweep that its page shows at first.

        Raises:
            NoSuchSweep: there is none.
            UserError: it cannot be read.
        """
        whole = self.view(id_, "sheet", sheets.sheet)
        summary = self._summary(id_, time.monotonic(), counted=True)
        look = self._entry(id_).look or looks.look(self.root / id_)
        return sheets.told(whole, summary, look)

    def comparison(self, id_: str) -> dict[str, Any] | None:
        """The sweep's comparison.json as it is; None without one.

        Raises:
            NoSuchSweep: there is none.
        """
        self._known(id_)
        try:
            found = json.loads((self.root / id_ / "comparison.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def trials(
        self,
        id_: str,
        sort: str = "number",
        descending: bool = False,
        filter: str = "",
        offset: int = 0,
        limit: int = 100,
    ) -> Page[TrialRow]:
        """A part of a sweep's trials.

        Args:
            id_: of the sweep.
            sort: number, state, stage, objective, updates, wall_s, work, group, ended_at or a parameter's name.
            descending: the largest first; what has no value comes last either way.
            filter: terms that must all fit: `state:complete`, `stage:search`, `method:nag`, `lr<0.01`, or a word.
            offset: of the first.
            limit: how many.

        Raises:
            NoSuchSweep: there is none.
            UserError: it cannot be sorted or filtered so.
        """

        def work(folder: Folder) -> Page[TrialRow]:
            asked = ("picked", sort, descending, filter)
            found: Picked = self.view(id_, asked, lambda _: pick(folder, sort, descending, filter))
            trials = folder.history.trials
            rows = [sheets.row(trials[n]) for n in found.numbers[offset : offset + limit]]
            return Page[TrialRow](rows=rows, total=len(trials), matched=len(found.numbers), offset=offset, limit=limit)

        if limit > _LONG_PAGE:
            return self.using(id_, work)
        return self.view(id_, ("trials", sort, descending, filter, offset, limit), work)

    def trial(self, id_: str, number: int) -> TrialSheet:
        """All of a trial.

        Raises:
            NoSuchSweep: there is no such sweep or trial.
        """
        return self.view(id_, ("trial", number), lambda folder: sheets.trial(folder, _trial(folder, number)))

    def curves(self, id_: str, n: int = 10, metric: str = "", trials: tuple[int, ...] = ()) -> list[Curve]:
        """A metric of some trials by update.

        Args:
            id_: of the sweep.
            n: of the best trials, the best first.
            metric: default: the objective.
            trials: these, by number, and not the best.

        Raises:
            NoSuchSweep: there is no such sweep or trial.
        """

        def make(folder: Folder) -> list[Curve]:
            chosen = [_trial(folder, number) for number in trials] or sheets.leading(folder, n)
            return [sheets.curve(trial, metric or folder.objective) for trial in chosen]

        return self.view(id_, ("curves", n, metric, trials), make)

    def points(self, id_: str, x: str = "mu_max", y: str = "lr") -> list[Point]:
        """The trials of the search as dots on a map of two parameters, by number.

        Raises:
            NoSuchSweep: there is none.
        """
        return self.view(id_, ("points", x, y), lambda folder: sheets.points(folder, x, y))

    def measurements(self, id_: str, offset: int = 0, limit: int = 1000, trial: int | None = None) -> Page[Measurement]:
        """A part of all numbers of a sweep, by trial, update and metric.

        Raises:
            NoSuchSweep: there is no such sweep or trial.
        """

        def work(folder: Folder) -> Page[Measurement]:
            trials = folder.history.trials
            chosen = [trials[n] for n in sorted(trials)] if trial is None else [_trial(folder, trial)]
            return sheets.measured(chosen, offset, limit)

        return self.using(id_, work)

    def batches(self, id_: str, size: int = 250) -> Iterator[Any]:
        """All numbers of a sweep as Arrow tables of some trials each, so that they are never in memory all at once.

        Raises:
            NoSuchSweep: there is none.
        """
        numbers = self.using(id_, lambda folder: sorted(folder.history.trials))
        for first in range(0, max(1, len(numbers)), size):
            part = numbers[first : first + size]
            yield self.using(id_, lambda folder, part=part: sheets.arrow(folder, part))  # type: ignore[misc]

    def log(self, id_: str, trial: int | None = None, lines: int = 500) -> Log:
        """The end of what a sweep's driver and groups printed, or of what one trial printed as it trained.

        Raises:
            NoSuchSweep: there is no such sweep or trial.
        """
        self._known(id_)
        if trial is not None:
            self.using(id_, lambda folder: _trial(folder, trial).number)
        return sheets.log(self.root / id_, trial, lines)


def _trial(folder: Folder, number: int) -> Trial:
    found = folder.history.trials.get(number)
    if found is None:
        raise NoSuchSweep(f"{folder.path.name}: no trial {number}; it has {len(folder.history.trials)}")
    return found
