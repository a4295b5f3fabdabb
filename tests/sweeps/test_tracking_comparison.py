import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import history, journal, tracked, tracking
from sweeps.mlflow_copy import Copy
from tests.sweeps import told, told_compared
from tests.sweeps.mirrored import Faulty, Found, mirror, nothing

ROLES = {**dict.fromkeys(range(6), "search"), 6: "baseline", 7: "baseline", 8: "confirm", 9: "confirm",
         10: "baseline", 11: "baseline"}  # fmt: skip


def error(trial: int, update: int) -> float:
    """The told valid_loss, written out."""
    return (1 + trial) / update + 1


def gaps(typical: float) -> dict[str, float]:
    """The told trials' errors at their last report over HF's; 2 diverged, 3 failed, 5 was skipped."""
    ends = {0: 40, 1: 20, 4: 40, **dict.fromkeys(range(6, 12), 40)}
    return {f"t{trial:05d}": error(trial, update) / typical for trial, update in ends.items()}


def check(storage: Path, typical: float, arms: tuple[str, ...] = ("hf", "p1"), verdict: str = "better") -> Found:
    """MLflow shows just this comparison, and nothing twice."""
    found = Found(storage)
    assert sorted(found.children) == [f"t{trial:05d}" for trial in range(12)]
    assert len(found.runs) == 12
    shown = {n: run.data.metrics["gap_to_hf"] for n, run in found.children.items() if "gap_to_hf" in run.data.metrics}
    assert shown == pytest.approx(gaps(typical), rel=1e-12)
    assert found.parent is not None
    data = found.parent.data
    best = math.sqrt(error(8, 40) * error(9, 40))
    cost = history.load(storage / "sweep").held.seconds
    wanted = {
        "cpu_seconds": cost, "trials": 12.0, "best_objective": error(0, 40),
        "verdict_ratio": data.metrics["verdict_ratio"],
        "verdict_low": 0.9, "verdict_high": 0.99, "best_confirmed": best, "hf_confirmed": typical,
        "gap_to_hf": best / typical, **{f"stuck/{arm}": 0.0 for arm in arms},
        **{f"confirmed/{arm}": {"p1": best, "hf": typical}[arm] for arm in arms},
    }  # fmt: skip
    known = {name: value for name, value in data.metrics.items() if not math.isnan(value)}
    assert known == pytest.approx(wanted, rel=1e-12)
    assert data.tags["musweep.verdict"] == verdict
    return found


def test_a_comparison_in_mlflow(storage: Path) -> None:
    folder = told_compared.write(storage / "sweep")
    told_compared.compare(folder, told_compared.comparison())
    assert mirror(folder)
    hf = math.sqrt(error(10, 40) * error(11, 40))
    found = check(storage, hf)
    for trial, role in ROLES.items():
        tags = found.children[f"t{trial:05d}"].data.tags
        assert tags["musweep.role"] == role
        assert tags["musweep.stage"] == told_compared.STAGES.get(trial, "search")
        assert tags.get("musweep.baseline") == ("hf" if role == "baseline" else None)
        assert tags["musweep.method"] == ("hf" if role == "baseline" else ("sgd", "cm", "nag")[trial % 3])
        assert tags["musweep.look_alike"] == "look-alike of digits"
    ended = found.children["t00008"].data
    assert (ended.metrics["work"], ended.metrics["passes"], ended.metrics["seconds"]) == (32 * 40, 4.0, 2.0)
    assert (ended.tags["musweep.point_id"], ended.tags["musweep.replicate"]) == ("p0", "8")
    params = found.children["t00010"].data.params
    assert (params["method"], params["hf_damping"], params["hf_cg_max"]) == ("hf", "20.0", "30")
    assert not {"lr", "mu_max", "mu_step"} & params.keys()
    assert found.parent is not None
    tags = found.parent.data.tags
    assert tags["musweep.role"] == "sweep"
    assert tags["musweep.verdict.sentence"] == "The best point beats HF."
    assert (tags["musweep.verdict.of"], tags["musweep.verdict.against"]) == ("p1", "hf")
    note = tags["mlflow.note.content"]
    assert note.startswith("**The best point beats HF.**\n\n| ")
    assert "| p1 | label of p1 | 1.237 | 1 to 1.5 | 2 | 0 | 1.025 | 1280 | 2 |" in note
    files = [file.path for file in found.client.list_artifacts(found.parent.info.run_id)]
    assert sorted(files) == ["comparison.json", "spec.json"]


def test_mlflow_itself_filters_and_sorts(storage: Path) -> None:
    """The searches of docs/mlflow.md, each against what is known of the told sweep."""
    folder = told_compared.write(storage / "sweep")
    told_compared.compare(folder, told_compared.comparison())
    assert mirror(folder)
    client = tracking.connect(f"sqlite:///{storage / 'mlflow.db'}")
    where = [client.get_experiment_by_name("told").experiment_id]

    def searched(text: str, order: str = "attributes.run_name ASC") -> list[str]:
        return [run.info.run_name for run in client.search_runs(where, text, order_by=[order])]

    assert searched("tags.`musweep.role` = 'baseline'") == ["t00006", "t00007", "t00010", "t00011"]
    assert searched("tags.musweep.role = 'confirm'") == ["t00008", "t00009"]
    assert searched("tags.musweep.role = 'sweep'") == [told.SWEEP_ID]
    assert searched("tags.musweep.stage = 'confirm:hf'") == ["t00010", "t00011"]
    assert searched("metrics.gap_to_hf < 1 and tags.musweep.role != 'sweep'", "metrics.gap_to_hf ASC") == [
        name for name, gap in sorted(gaps(told_compared.TYPICAL["hf"]).items(), key=lambda item: item[1]) if gap < 1
    ]
    assert searched("metrics.verdict_high < 1 and tags.musweep.verdict = 'better'") == [told.SWEEP_ID]
    assert searched("params.method = 'nag' and tags.musweep.role = 'search'") == ["t00002", "t00005"]


def changed() -> Any:
    """A second comparison: HF measured anew, other verdict, decided by nothing."""
    first = told_compared.comparison()
    p1, hf = first.arms
    contrast = replace(first.contrasts[0], verdict="worse", decided_by="", ratio=1.5)
    return replace(first, arms=(p1, replace(hf, typical=2.0)), contrasts=(contrast,))


def test_a_comparison_made_anew_is_updated(storage: Path) -> None:
    folder = told_compared.write(storage / "sweep")
    follower = tracking.Mirror(folder)
    follower.start()
    try:
        assert follower.drain(60), follower.status()
        assert "gap_to_hf" not in Found(storage).children["t00000"].data.metrics
        told_compared.compare(folder, told_compared.comparison())  # by the sweep's end or by `musweep compare`
        assert follower.drain(60), follower.status()
        check(storage, told_compared.TYPICAL["hf"])
        told_compared.compare(folder, changed())
        assert follower.drain(60), follower.status()
    finally:
        follower.stop()
    tags = check(storage, 2.0, verdict="worse").parent.data.tags  # type: ignore[union-attr]
    assert "musweep.verdict.decided_by" not in tags
    told_compared.compare(folder, changed())  # the same again, in a new file
    assert mirror(folder)
    tracking.sync(folder)
    found = check(storage, 2.0, verdict="worse")
    for name, run in found.children.items():
        history_ = found.client.get_metric_history(run.info.run_id, "gap_to_hf")
        assert len(history_) == (2 if name in gaps(1) else 0)
    run_id = found.parent.info.run_id  # type: ignore[union-attr]
    counts = {n: len(found.client.get_metric_history(run_id, n)) for n in ("verdict_ratio", "verdict_low")}
    assert counts == {"verdict_ratio": 2, "verdict_low": 1}


def test_what_a_new_comparison_no_longer_knows_is_not_a_number(storage: Path) -> None:
    folder = told_compared.write(storage / "sweep")
    first = told_compared.comparison()
    told_compared.compare(folder, first)
    assert mirror(folder)
    told_compared.compare(folder, replace(first, arms=first.arms[:1], contrasts=(), refusals=("HF was left out",)))
    for _ in range(2):
        assert mirror(folder)
        found = Found(storage)
        assert found.parent is not None
        shown = found.parent.data
        gone = {name for name, value in shown.metrics.items() if math.isnan(value)}
        assert gone == {"verdict_ratio", "verdict_low", "verdict_high", "hf_confirmed", "gap_to_hf", "confirmed/hf",
                        "stuck/hf"}  # fmt: skip
        assert shown.tags["musweep.verdict"] == "no verdict"
        assert shown.tags["musweep.verdict.sentence"] == "HF was left out"
        assert "musweep.verdict.against" not in shown.tags
        assert math.isnan(found.children["t00000"].data.metrics["gap_to_hf"])
        assert len(found.client.get_metric_history(found.parent.info.run_id, "gap_to_hf")) == 2


def test_killed_after_every_request_of_a_comparison(storage: Path) -> None:
    """Each life of a mirror ends after one more request than the last; the second comparison comes half way."""

    class Killed(BaseException):
        pass

    folder = told_compared.write(storage / "sweep")
    assert mirror(folder)
    follower = tracked.Follower()
    follower.apply(journal.read(folder / "journal.jsonl"))
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    told_compared.compare(folder, told_compared.comparison())
    for life in range(60):
        if life == 5:
            told_compared.compare(folder, changed())
        left = [life % 3]

        def die(name: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1

        try:
            client = Faulty(tracking.connect(uri), nothing, die)
            Copy(folder, client, uri, None, repair=False).push(follower, final=False)
            break
        except Killed:
            continue
    assert 6 < life < 40
    found = check(storage, 2.0, verdict="worse")
    for run in found.runs:
        assert len(found.client.get_metric_history(run.info.run_id, "gap_to_hf")) <= 2


def test_a_whole_copy_is_synced_without_writing_it_again(storage: Path) -> None:
    folder = told_compared.write(storage / "sweep")
    told_compared.compare(folder, told_compared.comparison())
    tracking.sync(folder)
    names: list[str] = []
    tracking.sync(folder, connect=lambda uri: Faulty(tracking.connect(uri), names.append, nothing))
    assert "create_run" not in names
    assert names.count("write") == names.count("set_terminated") == 1  # the parent's
    check(storage, told_compared.TYPICAL["hf"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arms": 3}', '{"schema_version": 9, "arms": [], "new": 1}'])
def test_a_comparison_that_cannot_be_read_holds_up_nothing(storage: Path, text: str) -> None:
    folder = told_compared.write(storage / "sweep")
    (folder / "comparison.json").write_text(text)
    assert mirror(folder)
    found = Found(storage)
    assert len(found.children) == 12
    assert found.parent is not None
    assert found.parent.info.status == "FINISHED"
    assert "musweep.verdict" not in found.parent.data.tags


def test_best_objective_is_of_the_search(storage: Path) -> None:
    """The last trials are confirmed ones; in mode max one of them would be the best."""
    folder = told_compared.write(storage / "sweep")
    (folder / "spec.json").write_text(json.dumps({**told_compared.SPEC, "mode": "max"}))
    assert mirror(folder)
    assert max(trial.objective or 0 for trial in history.load(folder).trials.values()) == error(11, 40)
    assert Found(storage).parent.data.metrics["best_objective"] == error(4, 40)  # type: ignore[union-attr]
