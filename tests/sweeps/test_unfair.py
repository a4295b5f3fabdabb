"""Comparisons that would mislead: a sweep with itself, before all seeds are in, by unlike rules, of unlike seconds."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeps import arms, compared, journal
from sweeps.compared import compare
from sweeps.comparison import Comparison
from tests.sweeps.confirmed import HF, METRIC, NAG, RESOLVED, TEN, Point, make, times

WORSE = Point(HF, 0.45, times(1.5), "hf")
ALONE: dict[str, Any] = {"baselines": []}


def rewrite(folder: Path, change: Any) -> None:
    """A folder with another journal."""
    path = folder / "journal.jsonl"
    records = change(list(journal.read(path)))
    path.unlink()
    written = journal.Journal(path)
    written.append(records)
    written.close()


def test_a_sweep_is_not_compared_with_itself_or_a_copy(tmp_path: Path) -> None:
    one = make(tmp_path / "one", Point(NAG, 0.4, TEN), spec=ALONE)
    copy = Path(shutil.copytree(one, tmp_path / "copy"))
    for found in (compare(one, one), compare(one, copy), compare(one, others=[copy])):
        assert found.contrasts == ()
        assert "is the sweep itself, or a copy of it" in found.refusals[0]
    own = {"baselines": [{"kind": "sweep", "id": "named"}]}
    assert compare(make(tmp_path / "named", Point(NAG, 0.4, TEN), spec=own)).contrasts == ()


def test_there_is_no_verdict_before_all_seeds_are_in(tmp_path: Path) -> None:
    folder = make(tmp_path, Point(NAG, 0.4, TEN[:7]), Point(HF, 0.45, times(1.5, TEN[:7]), "hf"))
    assert compare(folder).contrasts[0].verdict == "better"  # the sweep is done: these are all there will be
    rewrite(folder, lambda records: records[:-1])  # killed between two trials
    found = compare(folder)
    assert found.contrasts == ()
    assert found.refusals[:2] == ("p1: 3 runs are still to come", "hf: 3 runs are still to come")


def test_sweeps_that_call_other_runs_stuck_are_refused(tmp_path: Path) -> None:
    one = make(tmp_path / "one", Point(NAG, 0.4, TEN), spec=ALONE | {"compare": {"stuck": 0.5}})
    other = make(tmp_path / "other", Point(NAG, 0.4, TEN), spec=ALONE)
    found = compare(one, other)
    assert found.contrasts == ()
    assert found.refusals == ("p1 is not compared with other: stuck above: 0.5 against 6.3",)


def test_a_line_drawn_through_runs_of_one_kind_makes_none_of_them_stuck(tmp_path: Path) -> None:
    """All end near the line of 6.3, NAG 3% below and HF as little above: 0 and 10 of 10 stuck is no difference."""
    near = [1 + 0.001 * i for i in range(10)]
    runs = (Point(NAG, 6.0, [6.1 * f for f in near]), Point(HF, 6.2, [6.31 * f for f in near], "hf"))
    found = compare(make(tmp_path / "near", *runs))
    assert found.stuck_above is None
    assert [arm.stuck.count for arm in found.arms] == [0, 0]
    assert (found.contrasts[0].verdict, found.contrasts[0].decided_by) != ("better", "failures")
    assert found.contrasts[0].ratio == pytest.approx(6.1 / 6.31)
    assert "no run is called stuck: others ended within 10% of those above 6.3" in found.refusals
    drawn = compare(make(tmp_path / "drawn", *runs, spec={"compare": {"stuck": 6.3}}))
    assert [arm.stuck.count for arm in drawn.arms] == [0, 10]  # a line that the spec draws is kept
    far = compare(make(tmp_path / "far", Point(NAG, 0.4, TEN), runs[1]))
    assert [arm.stuck.count for arm in far.arms] == [0, 10]


def test_hf_that_was_matched_on_work_may_not_be_called_matched_on_seconds(tmp_path: Path) -> None:
    slow = Point(HF, 0.45, times(1.5), "hf", seconds=9.0)
    folder = make(tmp_path / "work", Point(NAG, 0.4, TEN), slow)
    assert len(compare(folder).contrasts) == 1
    found = compare(folder, match="wall")
    assert found.contrasts == ()
    assert found.refusals[0].endswith("budget: 2 s of training a trial against 9 s of training a trial")
    in_time = {"baselines": [{"kind": "hf", "match": "wall"}]}
    assert len(compare(make(tmp_path / "wall", Point(NAG, 0.4, TEN), slow, spec=in_time)).contrasts) == 1


def test_a_baseline_that_found_nothing_leaves_a_comparison_that_says_so(tmp_path: Path) -> None:
    folder = make(tmp_path, Point(NAG, 0.4, TEN), spec={"compare": {"against": "hf"}})
    assert compared.write(folder) is not None
    found = compare(folder)
    assert (found.primary, found.refusals) == (None, ("compare.against hf: it has no confirmed run",))


def test_another_sweep_that_cannot_be_read_does_not_keep_the_rest_from_being_compared(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "spec.json").write_text("{nonsense")
    spec = {"baselines": [{"kind": "hf"}, {"kind": "sweep", "id": "broken"}]}
    found = compare(make(tmp_path / "sweep", Point(NAG, 0.4, TEN), WORSE, spec=spec))
    assert [(each.a, each.b) for each in found.contrasts] == [("p1", "hf")]
    assert "broken cannot be read" in found.refusals[0]


def test_a_report_that_was_not_finite_is_no_part_of_the_curve(tmp_path: Path) -> None:
    folder = make(tmp_path, Point(NAG, 0.4, TEN), WORSE)

    def spoil(records: list[journal.Record]) -> list[journal.Record]:
        for record in records:
            if record["type"] == "report" and record["trials"][0]["update"] == 40:
                record["trials"][0]["metrics"][METRIC] = journal.number(math.inf)
        return records

    rewrite(folder, spoil)
    path = compared.write(folder)
    assert path is not None
    assert Comparison.from_dict(json.loads(path.read_text())).arm("p1").curve.updates == (20, 60, 80, 100)


@pytest.mark.parametrize(("have", "counts"), [(None, 50), (30, 30), (0, 50)])
def test_half_an_example_is_of_those_there_are(tmp_path: Path, have: int | None, counts: int) -> None:
    data = RESOLVED["data"] | ({} if have is None else {"valid_examples": have})
    folder = make(
        tmp_path, Point({"lr": 0.1}, 0.1, (0.0, 0.04)), metric="valid_error", resolved={"data": data},
        spec={"task": "digits", "objective": "valid_error", "space": {"lr": [0.1]}, **ALONE},
    )  # fmt: skip
    study = arms.read(folder)
    assert arms.scale(study, arms.confirmed(study).values()).zero == 0.5 / counts


def test_a_trainer_measures_on_as_many_examples_as_it_likes(tmp_path: Path) -> None:
    study = arms.read(make(tmp_path, Point(NAG, 0.4, TEN), spec=ALONE))
    assert arms.examples(study) == 50
    own = arms.Study(study.folder, {**study.spec, "trainer": "mine:train"}, study.history, study.rules, METRIC, "min")
    assert arms.examples(own) is None


@pytest.mark.parametrize(("iterations", "told"), [(4.0, True), (10.0, False)])
def test_hf_that_has_hardly_begun_is_told(tmp_path: Path, iterations: float, told: bool) -> None:
    folder = make(tmp_path, Point(NAG, 0.4, TEN), WORSE)

    def counted(records: list[Any]) -> list[Any]:
        for record in records:
            for entry in record["trials"] if record["type"] == "report" else ():
                entry["metrics"]["hf_iterations"] = iterations
        return records

    rewrite(folder, counted)
    line = "hf: 4 outer iterations are too few for HF to find its damping: it stands for this budget, not for HF; "
    assert any(refusal.startswith(line) for refusal in compare(folder).refusals) == told
