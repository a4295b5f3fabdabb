"""What following a sweep costs its copy in MLflow: a trial that is there whole is not looked at again."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sweeps import journal, mlflow_copy, tracked
from sweeps.board import Board
from sweeps.mlflow_copy import Copy
from tests.sweeps import told
from tests.sweeps.pretend import PretendWorker, spec_with

TRIALS = 300


class Page(list[Any]):
    token = None


class Client:
    """An MLflow that takes everything and holds nothing before."""

    def __init__(self) -> None:
        self.ids = itertools.count()
        self.ended: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_options: None

    def create_experiment(self, name: str, **place: str) -> str:
        return "1"

    def search_runs(self, *arguments: Any, **options: Any) -> Page:
        return Page()

    def create_run(self, *arguments: Any) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run{next(self.ids)}"))

    def set_terminated(self, run: str, *arguments: Any) -> None:
        self.ended.append(run)


def test_each_trial_is_sent_once_and_the_map_grows_by_a_share(tmp_path: Path, monkeypatch: Any) -> None:
    written: list[int] = []

    def write(path: Path, data: bytes) -> None:
        written.append(len(json.loads(data)["children"]))
        path.write_bytes(data)

    monkeypatch.setattr(mlflow_copy, "atomic_write", write)
    board = Board(tmp_path, spec_with(budget={"trials": TRIALS}), 1, 2)
    worker, follower, offset = PretendWorker(board, 0), tracked.Follower(), 0
    client = Client()
    copy = Copy(tmp_path, client, "nowhere", None, repair=False)
    pushes = 0
    while True:
        records, offset = journal.tail(tmp_path / "journal.jsonl", offset)
        follower.apply(records)
        copy.push(follower, final=False)
        pushes += 1
        ended = {n for n, trial in follower.history.trials.items() if trial.state != "running"}
        assert copy.done == ended
        assert len(client.ended) == len(ended)
        if worker.gone:
            break
        worker.obey(worker.report()[0])
    assert len(copy.done) == TRIALS
    assert pushes > TRIALS / 2
    assert len(written) < 60, "each at least a tenth more than the one before, not one for each push"
    board.close("finished")
    follower.apply(journal.tail(tmp_path / "journal.jsonl", offset)[0])
    copy.push(follower, final=True)
    assert written[-1] == TRIALS


def test_the_parent_run_says_where_the_sweeps_page_is(tmp_path: Path, monkeypatch: Any) -> None:
    folder, made = told.write(tmp_path / "a sweep", told.commits()[:3]), list[dict[str, str]]()

    class Noting(Client):
        def create_run(self, *arguments: Any) -> Any:
            made.append(arguments[2])
            return super().create_run(*arguments)

    for url in ("", "http://ann:secret@lab.example:8321/", "javascript:x"):
        monkeypatch.setenv("MUSWEEP_URL", url)
        follower = tracked.Follower()
        follower.apply(journal.read(folder / "journal.jsonl"))
        Copy(folder, Noting(), "nowhere", None, repair=False).push(follower, final=False)
    parents = [tags for tags in made if tracked.TRIAL_UID not in tags]
    assert [tags.get("musweep.url") for tags in parents] == [
        None, "http://ann:***@lab.example:8321/sweeps/a%20sweep", None,
    ]  # fmt: skip
