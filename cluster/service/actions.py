"""What the service does at someone's word: submit, stop, resume, order the queue. Pages and API share it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillAtIt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.folders import UserError
from cluster.launch import JobStatus, LaunchError
from cluster.service import looks
from cluster.service.models import Wrong
from cluster.service.models_acts import Known, Submitted
from cluster.service.problems import Refused
from sweeps.errors import ABSENT, SpecError

if TYPE_CHECKING:
    from cluster.queue import Entry, Queue
    from cluster.targets import Target
    from sweeps.errors import Problem

PATIENCE_S = 10.0
"""How long a request waits for what it asked for; after that it is told that it is being done."""
MOST_SPEC = 1_000_000
"""Characters of a spec."""
_AS_JOBS: dict[str, str] = {
    "running": "running", "finished": "finished", "out of budget": "finished", "interrupted": "stopped",
    "cut off": "failed", "failed": "failed", "unreadable": "unknown",
}  # fmt: skip


class Actions:
    """What can be done about the sweeps of a folder.

    Args:
        root: the folder; sweeps sent to `local` lie in it unless clusters.yaml says otherwise.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pool = ThreadPoolExecutor(4, "action")
        self._doing: dict[tuple[str, str], Future[JobStatus]] = {}
        self._turn = threading.Lock()

    def begin(self) -> None:
        """Be ready for work, also after `close`."""
        self._pool = ThreadPoolExecutor(4, "action")

    def close(self) -> None:
        """Begin nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- targets -------------------------------------------------------------------------------------------------

    def targets(self) -> dict[str, Target]:
        """Where sweeps can be sent to from here.

        Raises:
            SpecError: clusters.yaml is wrong.
        """
        from cluster import targets

        return {name: self._here(each) for name, each in targets.load().items() if each.kind != "debug"}

    def _here(self, target: Target) -> Target:
        """A target as the service uses it."""
        from cluster.targets import BUILT_IN

        changes: dict[str, Any] = {}
        if target.allow == BUILT_IN.get(target.name, {}).get("allow"):
            # What a person types here runs here; what comes over the line runs only if clusters.yaml allows it.
            changes["allow"] = []
        if target.kind == "local" and target.storage is None:
            changes["storage"] = str(self.root.resolve())
        return target.model_copy(update=changes) if changes else target

    def target(self, name: str) -> Target:
        """A target by its name.

        Raises:
            Refused: there is none.
        """
        found = self.targets()
        if name not in found:
            wrong = Wrong(key="target", problem="no such target", value=name[:80], legal=", ".join(found))
            raise Refused(422, f"no target {name[:80]!r}; legal: {', '.join(found)}", [wrong])
        return found[name]

    # -- submit --------------------------------------------------------------------------------------------------

    def submit(
        self, spec: str, target: str, overrides: Sequence[str] = (), protocol: str | None = None,
        again: bool = False, priority: int = 0,
    ) -> Submitted:  # fmt: skip
        """Send a sweep to a target, as `musweep submit` does.

        Args:
            spec: YAML, or the name of a shipped spec.
            target: by name.
            overrides: `key.path=value`.
            protocol: of the spec.
            again: a new sweep of a spec that is there already.
            priority: in a queue.

        Raises:
            Refused: the spec is wrong or names code that the target does not allow, with every problem.
            LaunchError: the target does not take it.
        """
        from cluster import submitted
        from cluster.plan import warnings

        to = self.target(target)
        with _checked(spec, overrides, protocol, to) as checked:
            made = submitted.submit(checked, to, again=again, priority=priority)
            told = [*warnings(checked), *made.package.notes, *filter(None, [made.note])]
        state = made.before.state if made.there else "queued" if made.queued else "submitted"
        return Submitted(
            id=made.id, target=to.name, folder=made.folder, state=state, new=not made.there, notes=told
        )  # fmt: skip

    def check(self, spec: str, overrides: Sequence[str] = (), protocol: str | None = None) -> tuple[str, list[str]]:
        """What a spec would do in a line, and what is likely not meant.

        Raises:
            Refused: it is wrong, with every problem.
        """
        from cluster.plan import summary, warnings

        with _checked(spec, overrides, protocol, None) as checked:
            return summary(checked), warnings(checked)

    def keep_spec(
        self, name: str, spec: str, target: str, overrides: Sequence[str] = (), protocol: str | None = None
    ) -> str:
        """Check a spec for a schedule; return the name of a shipped one, or where this one is kept from now on.

        Raises:
            Refused: it is wrong or names code that the target does not allow, with every problem.
        """
        from cluster.submitted import state_folder
        from sweeps.spec import shipped
        from sweeps.store import atomic_write

        with _checked(spec, overrides, protocol, self.target(target)):
            pass
        if spec.strip() in shipped():
            return spec.strip()
        digest = hashlib.sha256(spec.encode()).hexdigest()[:10]
        path = state_folder().resolve() / "specs" / f"{name}-{digest}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, spec.encode())
        return str(path)

    # -- stop and resume -----------------------------------------------------------------------------------------

    def status(self, id_: str) -> Known:
        """What its place knows of a sweep; of one that was begun by hand what its folder says.

        Raises:
            Refused: there is no such sweep.
            LaunchError: its place does not answer.
        """
        from cluster import submitted

        place = self._place(id_)
        if place is None:
            state = looks.state_of(looks.look(self.root / id_))
            return Known(id=id_, state=_AS_JOBS[state], why="" if state in ("running", "finished") else state)
        return _known(submitted.status(id_, place), place.name)

    def stop(self, id_: str) -> Known:
        """Have a sweep leave cleanly, so that it can go on later.

        Raises:
            UserError: it is not running here, or was not submitted from here.
            LaunchError: its place does not answer.
        """
        return self._do(id_, "stop", self._stop)

    def resume(self, id_: str) -> Known:
        """Go on with a sweep after any kind of end.

        Raises:
            UserError: it is running, or cannot be started from here.
            LaunchError: its place does not take it.
        """
        return self._do(id_, "resume", self._resume)

    def _do(self, id_: str, what: str, work: Callable[[str, Target | None], JobStatus]) -> Known:
        """Do what may take a minute, once however many ask; tell how far it is after a while."""
        place = self._place(id_)
        with self._turn:
            doing = self._doing.get((id_, what))
            if doing is None or doing.done():
                doing = self._doing[id_, what] = self._pool.submit(work, id_, place)
        name = place.name if place is not None else ""
        try:
            return _known(doing.result(PATIENCE_S), name)
        except StillAtIt:
            return Known(id=id_, target=name, state="running", why=f"{what} is under way")

    def _place(self, id_: str) -> Target | None:
        """The target that has a sweep; None for one that was started by hand in our folder.

        Raises:
            UserError: there is no such sweep.
        """
        from cluster.folders import is_sweep
        from cluster.submitted import recall

        found = self.targets()
        if (name := recall(id_)) in found:
            return found[name]
        if (self.root / id_ / "logs" / "driver.json").exists():
            return found["local"].model_copy(update={"storage": str(self.root.resolve())})
        if not is_sweep(self.root / id_):
            raise Refused(404, f"no sweep {id_!r}: neither in {self.root}/ nor submitted from here")
        return None

    def _stop(self, id_: str, place: Target | None) -> JobStatus:
        from cluster import submitted

        if place is not None:
            return submitted.stop(id_, place)
        _interrupt(self.root / id_)
        return JobStatus(id_, "running", "its driver was asked to leave")

    def _resume(self, id_: str, place: Target | None) -> JobStatus:
        from cluster import submitted
        from cluster.launch_local import LocalLauncher

        if place is not None:
            return submitted.resume(id_, place)
        local = self.target("local").model_copy(update={"storage": str(self.root.resolve())})
        launcher = LocalLauncher(local)
        launcher.adopt(id_)
        return launcher.status(id_)

    # -- the queue -----------------------------------------------------------------------------------------------

    def queues(self) -> list[tuple[Target, Queue]]:
        """The targets that have a queue, each with its queue; few, and waiting for each only a moment."""
        from cluster.sharing import queue_of

        return [(each, queue_of(each, patience_s=5.0)) for each in self.targets().values() if each.queue]

    def entry(self, id_: str, work: Callable[[Queue], Entry]) -> Entry:
        """Do something about an entry of a queue.

        Raises:
            Refused: no queue has it.
            QueueError: it is past that.
        """
        for target, queue in self.queues():
            found = queue.get(id_)
            if found is not None and found.target == target.name:
                return work(queue)
        raise Refused(404, f"no queue of clusters.yaml has an entry {id_[:80]!r}")


@contextlib.contextmanager
def _checked(spec: str, overrides: Sequence[str], protocol: str | None, to: Target | None) -> Iterator[Any]:
    """A spec that was sent as text, checked as `musweep check` does, once it is known to name no code but allowed.

    Raises:
        Refused: it is wrong; every problem is told.
    """
    from sweeps import spec as specs

    if len(spec) > MOST_SPEC:
        raise Refused(413, f"a spec of {len(spec)} characters; legal: up to {MOST_SPEC}")
    if spec != spec.encode("utf-8", "replace").decode():
        raise Refused(422, "spec: this is not text in UTF-8")
    text = specs.shipped()[spec.strip()].read_text(encoding="utf-8") if spec.strip() in specs.shipped() else spec
    try:
        _refuse_code(text, overrides, protocol, to)
        with tempfile.TemporaryDirectory(prefix="musweep-") as place:
            path = Path(place) / f"{spec.strip() if text is not spec else 'sweep'}.yaml"
            path.write_text(text, encoding="utf-8")
            yield specs.load(path, list(overrides), protocol)
    except SpecError as error:
        problems = wrongs(error.errors)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise Refused(422, f"spec: {error.errors[0]}{more}", problems) from None


def _refuse_code(text: str, overrides: Sequence[str], protocol: str | None, to: Target | None) -> None:
    """Refuse a spec for the code that it names before anything asks that code."""
    from cluster.targets import refuse_named
    from sweeps import modules, reading
    from sweeps.errors import ProblemsError

    try:
        data = reading.parse(text)
        if isinstance(data, dict):
            reading.protocol_of(data, protocol)
            for each in overrides:
                reading.override(data, each)
    except ProblemsError as error:
        raise SpecError(error.problems, "spec") from None
    if not isinstance(data, dict):
        return
    if data.get("modules") is not None:
        wrong = Wrong(key="modules", problem="a folder of this machine, which whoever runs the service chooses")
        raise Refused(422, "modules: code comes with `musweep submit` on a machine that has it", [wrong])
    named = list(modules.named(data))
    if not named:
        return
    if to is None:
        raise Refused(422, f"{named[0][0]}={named[0][1]}: code of users' own is checked only for a target")
    try:
        refuse_named(data, to)
    except LaunchError as error:
        found = [Wrong(key=key, problem="this code is not allowed there", value=name) for key, name in named]
        raise Refused(422, str(error), found) from None


def wrongs(problems: Sequence[Problem]) -> list[Wrong]:
    """The problems of a spec as they are sent."""
    return [
        Wrong(
            key=each.path,
            problem=f"{each.wrong}; did you mean {each.hint}?" if each.hint else each.wrong,
            value=None if each.value is ABSENT else _plain(each.value),
            legal=each.allowed,
        )
        for each in problems
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value if isinstance(value, str | int | bool | None) else str(value)[:200]


def _known(status: JobStatus, target: str) -> Known:
    return Known(id=status.id, target=target, state=status.state, why=status.why)


def _interrupt(folder: Path) -> None:
    """Do to a sweep's driver what Ctrl-C does in its terminal.

    Raises:
        UserError: it has none, or not on this host, or it is another user's.
    """
    from sweeps import lease
    from sweeps.lease_file import Place

    said = lease.read(folder)
    if not lease.held(folder):
        raise UserError(f"{folder.name} is not running")
    pid = said.get("pid")
    if not Place().same(said) or not isinstance(pid, int) or pid <= 1:
        raise UserError(f"{folder.name}: its driver, process {pid}, is on {said.get('host')}: stop it there")
    if pid == os.getpid():
        raise UserError(f"{folder.name} is driven by the service itself")
    try:
        os.kill(pid, signal.SIGINT)
    except PermissionError:
        raise UserError(f"{folder.name}: its driver, process {pid}, is another user's: stop it there") from None
    except ProcessLookupError:
        raise UserError(f"{folder.name} is not running") from None
