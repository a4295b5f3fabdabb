"""What MLflow holds of one sweep, and how it is brought up to the journal: three requests for a short trial.

What is there is asked of MLflow itself, by tags, at the start and after every error. So a kill at any moment, a reply
that was lost or a second start never makes a second child.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sweeps import tracked, tracked_comparison
from sweeps.cost import bill
from sweeps.history import History, Trial
from sweeps.mlflow_verdict import Verdict
from sweeps.store import atomic_write

EARLY_S = 10.0  # a trial that runs longer is shown while it runs, and updated this often
LEASE_S = 180.0  # how long a parent run may be RUNNING without a sign of life
PAGE = 100  # runs asked for at once: a server that is busy takes seconds for so many with 40 metrics each
WRITERS = 4  # requests under way at once when a sweep is over: trials are independent
ARTIFACTS = ("spec.json", "report.html", "trials.parquet", tracked_comparison.FILE)
_MAP = "mlflow.json"
_MAP_GROWTH = (
    1.1  # written anew when it has grown by so much: were it for each trial, each would cost more than the last
)


class Copy:
    """The MLflow side of one sweep. `push` brings it up to the history; any exception leaves it safe to call again."""

    def __init__(self, folder: Path, client: Any, uri: str, experiment: str | None, *, repair: bool) -> None:
        self.folder, self.client, self.uri, self._repair = folder, client, uri, repair
        try:
            self.spec: dict[str, Any] = json.loads((folder / "spec.json").read_bytes())
        except FileNotFoundError:
            self.spec = {}
        self.experiment = experiment or self.spec.get("name") or "musweep"
        self.parent = ""
        self.refused: dict[int, str] = {}
        """Trials that MLflow did not take whole, with its words."""
        self.done: set[int] = set()
        self._experiment_id = ""
        self._children: dict[str, tuple[str, str]] = {}  # by uid: run id, status
        self._sent: dict[int, set[int]] = {}
        self._sent_at: dict[int, float] = {}
        self._status = ""
        self._leased_at = 0.0
        self._uploaded: dict[str, list[int]] = {}
        self._written: Any = None
        self._left: list[int] = []
        """Trials that are not in MLflow whole, of the first `_taken` of the history."""
        self._taken = 0
        self._verdict = Verdict(folder, client)
        self._known = False
        self._doubtful = False

    def doubt(self) -> None:
        """Something failed, perhaps after it took effect: look again before the next write."""
        self._known, self._doubtful = False, True

    def push(self, follower: tracked.Follower, *, final: bool, go_on: Callable[[], None] = lambda: None) -> None:
        """Bring MLflow up to the history; `final` says that no driver will add to it for now.

        Raises:
            Exception: whatever MLflow raises; `doubt` and call again.
        """
        history = follower.history
        if not history.sweep_id:
            return
        if not self._known:
            self._look(history)
        self._begin(history, final)
        over = final or history.closed is not None
        if over:
            self._verdict.refresh(history)
        left = self._take(history)
        if over and len(left) > 1 and self.uri.startswith(("http://", "https://")):
            self._push_together(follower, left, go_on)
        else:
            for trial in left:
                go_on()
                if not over:
                    self._renew(history)
                self._push_trial(follower, trial, over)
        if over:
            self._settle(history, go_on)
            self._upload()
            if self._doubtful:  # a request that timed out may have been carried out since
                self._look(history)
                self._doubtful = False
                self._settle(history, go_on)
            self._finish(history, final)
        self._remember(history, over)

    def _take(self, history: History) -> list[Trial]:
        """Trials that are not in MLflow whole. Only new ones are looked at, however many there were."""
        self._left = [n for n in (*self._left, *islice(history.trials, self._taken, None)) if n not in self.done]
        self._taken = len(history.trials)
        return [history.trials[number] for number in self._left]

    def _push_together(self, follower: tracked.Follower, trials: list[Trial], go_on: Callable[[], None]) -> None:
        """Several trials at a time: a server answers a request in 50 ms and works for 8 of them.

        Raises:
            Exception: what one of them met, when none is under way any more.
        """
        left, turn, failures = iter(trials), threading.Lock(), list[BaseException]()

        def work() -> None:
            while not failures:
                with turn:
                    trial = next(left, None)
                if trial is None:
                    return
                try:
                    go_on()
                    self._push_trial(follower, trial, True)
                except BaseException as error:
                    failures.append(error)

        # Not an executor's threads, which would hold up the end of a program that is interrupted.
        threads = [threading.Thread(target=work, name="mlflow-writer", daemon=True) for _ in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _settle(self, history: History, go_on: Callable[[], None]) -> None:
        uids = {n: tracked.trial_uid(history.sweep_id, history.trials[n]) for n in sorted(self.done)}
        runs = {number: self._children[uid][0] for number, uid in uids.items()}
        self._verdict.settle(self.parent, runs, history, go_on)

    def _look(self, history: History) -> None:
        """Ask MLflow what it holds of this sweep, and remove what must not be there."""
        client = self.client
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            place = {}
            if not self.uri.startswith(("http://", "https://")):  # a database: its default is the working directory
                sqlite = self.uri.startswith("sqlite:///")
                beside = Path(self.uri.removeprefix("sqlite:///")) if sqlite else self.folder
                place = {"artifact_location": (beside.resolve().parent / "mlartifacts" / self.experiment).as_uri()}
            self._experiment_id = client.create_experiment(self.experiment, **place)
        else:
            self._experiment_id = found.experiment_id
        filters = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tracked.identity(history).items())
        runs, token = [], None
        while True:
            page = client.search_runs([self._experiment_id], filters, max_results=PAGE, page_token=token)
            runs.extend(page)
            token = page.token
            if not token:
                break
        # Of twins the one that was finished stays, else the first.
        runs.sort(key=lambda run: (run.info.status not in ("FINISHED", "FAILED"), run.info.start_time, run.info.run_id))
        self._children, self.done, self.parent = {}, set(), ""
        self._left, self._taken = [], 0
        self._sent.clear()
        self._sent_at.clear()
        valid = {tracked.trial_uid(history.sweep_id, trial): trial for trial in history.trials.values()}
        parents = [run for run in runs if tracked.TRIAL_UID not in run.data.tags]
        if parents:
            self.parent, self._status = parents[0].info.run_id, parents[0].info.status
        kept, extra = [], parents[1:]
        for run in runs:
            uid = run.data.tags.get(tracked.TRIAL_UID)
            if uid is None:
                continue
            if uid in self._children or uid not in valid:
                extra.append(run)
                continue
            kept.append(run)
            self._children[uid] = run.info.run_id, run.info.status
            trial = valid[uid]
            ended = trial.state != "running" and run.info.status == tracked.trial_status(trial)
            if ended and (not self._repair or self._is_whole(run, history, trial)):
                self.done.add(trial.number)
        for run in extra:
            client.set_terminated(run.info.run_id, "KILLED")
            client.delete_run(run.info.run_id)
        self._verdict.looked(parents[0] if parents else None, kept)
        self._known = True

    def _is_whole(self, run: Any, history: History, trial: Trial) -> bool:
        """Whether an ended child has all that it should. What comes last is written last, so the rest is there too."""
        return not (
            tracked.differs(tracked.trial_tags(history, self.parent, trial, self.spec), run.data.tags)
            or tracked.differs(tracked.trial_params(trial), run.data.params)
            or tracked.differs(tracked.last_metrics(trial, self.spec), run.data.metrics)
        )

    def _tags(self, history: History) -> dict[str, str]:
        """Of the parent run; with its page, if $MUSWEEP_URL says where the service is that shows the sweep's folder."""
        tags, service = tracked.sweep_tags(history, self.spec), os.environ.get("MUSWEEP_URL", "")
        if service.startswith(("http://", "https://")):
            tags["musweep.url"] = f"{tracked.redact(service).rstrip('/')}/sweeps/{quote(self.folder.name)}"
        return tags

    def _begin(self, history: History, final: bool) -> None:
        """Have a parent run that is RUNNING while a driver lives, with a fresh sign of life."""
        client, now = self.client, time.time()
        if not self.parent:
            tags = {"mlflow.source.name": "musweep", "mlflow.user": os.environ.get("USER", "")}
            start = tracked.millis(history.opened_at or now)
            tags |= self._tags(history)
            self.parent = client.create_run(self._experiment_id, start, tags, history.sweep_id).info.run_id
            self._status = "RUNNING"
            self.client.write(self.parent, params=tracked.sweep_params(self.spec))
        elif history.closed is None and self._status != "RUNNING" and not final:
            client.update_run(self.parent, status="RUNNING")
            self.client.write(self.parent, tags=self._tags(history))
            self._status = "RUNNING"
        if not final:
            self._renew(history)

    def _renew(self, history: History) -> None:
        """Give the parent run a sign of life, now and then: a trial can take MLflow seconds, and there can be many."""
        now = time.time()
        if history.closed is None and now - self._leased_at > LEASE_S / 3:
            self.client.write(self.parent, tags={"musweep.lease_until": f"{now + LEASE_S:.0f}"})
            self._leased_at = now

    def _push_trial(self, follower: tracked.Follower, trial: Trial, over: bool) -> None:
        ended = trial.state != "running"
        late = time.time() - max(trial.asked_at, self._sent_at.get(trial.number, 0.0)) > EARLY_S
        killed = self._children.get(tracked.trial_uid(follower.history.sweep_id, trial), ("", ""))[1] == "KILLED"
        if not ended and (killed and trial.number in self._sent if over else not late):
            return
        for with_params in (True, False):
            try:
                self._write_trial(follower, trial, over, with_params)
                break
            except Exception as error:
                # What MLflow calls invalid stays invalid (a param it has otherwise, from an older version, say):
                # one such trial must not hold up the others.
                if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                    raise
                self.refused[trial.number] = tracked.redact(str(error))
        if ended:
            self.done.add(trial.number)

    def _write_trial(self, follower: tracked.Follower, trial: Trial, over: bool, with_params: bool) -> None:
        """Create, fill and end a child, each step left out that is not due: three requests for a short trial."""
        sweep_id = follower.history.sweep_id
        uid = tracked.trial_uid(sweep_id, trial)
        tags = tracked.trial_tags(follower.history, self.parent, trial, self.spec)
        run_id, status = self._children.get(uid, ("", ""))
        if not run_id:
            start = tracked.millis(trial.asked_at)
            run_id = self.client.create_run(self._experiment_id, start, tags, trial.id).info.run_id
            self._children[uid] = run_id, "RUNNING"
            tags = {}  # they went with the creation
        elif status in ("KILLED", "FAILED") and trial.state == "running" and not over:  # interrupted, now resumed
            self.client.update_run(run_id, status="RUNNING")
            self._children[uid] = run_id, "RUNNING"
        if status == "FAILED" and trial.state != "failed":  # it was retried
            tags = {"musweep.reason": "", **tags}
        sent = self._sent.get(trial.number)
        times = follower.times.get(trial.number, {})
        fresh = sorted(set(trial.metrics) - (sent or set()))
        points = [(name, value, times[at], at) for at in fresh for name, value in sorted(trial.metrics[at].items())]
        ended = trial.state != "running"
        if ended:
            end = tracked.millis(trial.ended_at or follower.now)
            points += [
                (name, value, end, trial.updates) for name, value in tracked.final_metrics(trial, self.spec).items()
            ]
            points += self._verdict.first(run_id, trial, end)
        params = tracked.trial_params(trial) if sent is None and with_params else {}
        self.client.write(run_id, points, params, tags)
        self._verdict.wrote(run_id, points)
        self._sent[trial.number] = (sent or set()) | set(fresh)
        self._sent_at[trial.number] = time.time()
        if ended:
            self.client.set_terminated(run_id, tracked.trial_status(trial), end)
            self._sent.pop(trial.number)
        elif over and self._children[uid][1] != "KILLED":
            self.client.set_terminated(run_id, "KILLED", tracked.millis(follower.now))
            self._children[uid] = run_id, "KILLED"

    def _upload(self) -> None:
        """Attach the files that are there and have changed since they were last attached."""
        for name in ARTIFACTS:
            path = self.folder / name
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if self._uploaded.get(name) == [stat.st_mtime_ns, stat.st_size]:
                continue
            if name == "spec.json":
                self.client.log_text(self.parent, tracked.redact(path.read_text()), name)
            else:
                self.client.log_artifact(self.parent, str(path))
            self._uploaded[name] = [stat.st_mtime_ns, stat.st_size]

    def _finish(self, history: History, final: bool) -> None:
        status = tracked.sweep_status(history)
        if status == "RUNNING" and final:
            status = "KILLED"  # the driver died without a word
        if status == self._status and not self._repair:
            return
        trials = history.trials.values()
        end = max((trial.ended_at or 0.0 for trial in trials), default=0.0) or history.opened_at or 0.0
        objectives = [
            t.objective
            for t in trials
            if t.state == "complete" and t.objective is not None and tracked.role(t.stage) == "search"
        ]
        cost = bill(self.spec, history.held, sum(trial.wall_s for trial in trials))
        points = [
            ("trials", float(len(trials)), tracked.millis(end), len(trials)),
            (f"{cost.kind.lower()}_seconds", cost.held, tracked.millis(end), len(trials)),
        ]
        if objectives:
            best = max(objectives) if self.spec.get("mode") == "max" else min(objectives)
            points.append(("best_objective", best, tracked.millis(end), len(trials)))
        self.client.write(self.parent, points, tags=self._tags(history))
        self.client.set_terminated(self.parent, status, tracked.millis(end))
        self._status = status

    def _remember(self, history: History, over: bool) -> None:
        """Write which run is which trial, for links; nothing depends on it."""
        written = len(self._written["children"]) if self._written else 0
        if not over and self._written and len(self._children) < _MAP_GROWTH * written:
            return
        trials = {t.id: self._children.get(tracked.trial_uid(history.sweep_id, t)) for t in history.trials.values()}
        found = {
            "format": 1,
            "uri": tracked.redact(self.uri),
            "experiment": self.experiment,
            "experiment_id": self._experiment_id,
            "parent": self.parent,
            "children": {name: child[0] for name, child in trials.items() if child},
        }
        if found != self._written:
            atomic_write(self.folder / _MAP, json.dumps(found, indent=1).encode())
            self._written = found
