"""Counts that are kept are what counting afresh gives, after any prefix of a journal."""

import math
import random
from collections import Counter

import pytest

from sweeps import journal
from sweeps.history import History, Trial
from sweeps.stages import is_search
from sweeps.tally import LEADING
from tests.sweeps import told
from tests.sweeps.pretend import kill, play, spec_with


def recount(history: History) -> dict:
    """The slow twin: every count from all trials."""
    trials = list(history.trials.values())
    searched = [trial for trial in trials if is_search(trial.stage)]
    rungs = {update for trial in searched for update in (*trial.scores, *trial.promoted)}
    return {
        "states": Counter((t.stage, t.state) for t in trials),
        "updates": Counter({t.stage: 0 for t in trials}) + Counter(sum_by_stage(trials, "updates")),
        "running": {t.number for t in trials if t.state == "running"},
        "reached": {u: sum(u in t.scores or u in t.promoted for t in searched) for u in rungs},
        "passed": Counter(u for t in searched for u in t.promoted),
        "min": best(searched, 1),
        "max": best(searched, -1),
        "ended": sum(t.state != "running" for t in trials),
    }


def sum_by_stage(trials: list[Trial], name: str) -> dict:
    return {stage: sum(getattr(t, name) for t in trials if t.stage == stage) for stage in {t.stage for t in trials}}


def best(trials: list[Trial], sign: int) -> int | None:
    for state in LEADING:
        if found := [t for t in trials if t.state == state and t.objective is not None]:
            return min(found, key=lambda t: (sign * t.objective, t.number)).number
    return None


def kept(history: History) -> dict:
    tally = history.tally
    return {
        "states": Counter({(stage, s): n for stage, counts in tally.states.items() for s, n in counts.items() if n}),
        "updates": +tally.updates,
        "running": set(tally.running),
        "reached": dict(+tally.reached),
        "passed": +tally.passed,
        "min": (leader := tally.best("min")) and leader.number,
        "max": (leader := tally.best("max")) and leader.number,
        "ended": tally.ended_trials,
    }


def check(records: list[journal.Record]) -> None:
    history = History()
    for record in records:
        history.apply(record)
        assert kept(history) == recount(history)
        for stage, seconds in sum_by_stage(list(history.trials.values()), "wall_s").items():
            assert math.isclose(history.tally.seconds[stage], seconds, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_counts_of_a_sweep_that_was_killed_and_confirmed(tmp_path, seed):
    spec = spec_with(confirm={"top": 2, "seeds": 2}, baselines=[{"kind": "hf"}], budget={"trials": 12})
    kill(play(tmp_path, spec, 3, 2, seed=seed, rounds=30 + 7 * seed))
    play(tmp_path, spec, 2, 3, seed=seed).close("finished")
    check(journal.read(tmp_path / "journal.jsonl"))


def test_counts_where_failed_trials_train_again_and_reports_come_twice():
    said = [record for commit in told.commits() for record in commit]
    failed = [record["trial"] for record in said if record["type"] == "end" and record["state"] == "failed"]
    end = next(record for record in said if record["type"] == "end" and record["state"] == "failed")
    reports = [record for record in said if record["type"] == "report"]
    again = {"type": "retry", "time": told.START, "trials": failed}
    done = {**end, "state": "complete", "objective": -1.0, "updates": 40, "wall_s": 9.0}
    check([*said, again, end, again, *random.Random(0).sample(reports, len(reports)), done])
