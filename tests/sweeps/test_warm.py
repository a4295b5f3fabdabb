"""A search that starts from an earlier one: which points are taken, what is told, what is refused."""

import json

import pytest

from sweeps import history as histories
from sweeps import journal, stages, warm
from sweeps.errors import SpecError
from sweeps.folder import write_spec_file
from sweeps.search import Proposer
from sweeps.space import point_id
from sweeps.spec import SweepSpec, load, parse
from tests.sweeps.pretend import SPEC, play, spec_with


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A finished sweep: 40 trials to the end, or diverged."""
    folder = tmp_path_factory.mktemp("runs") / "earlier"
    folder.mkdir()
    spec = spec_with(early_stopping=None)
    write_spec_file(folder, spec.model_dump(mode="json"))
    play(folder, spec, 2, 3).close("finished")
    return folder


def ranked(folder):
    return stages.ranked(stages.in_stage(histories.load(folder), "search"), "min")


def warmed(folder, source=None, **changes):
    search = {**SPEC["search"], "warm": source or str(folder)}
    return parse({**SPEC, **changes, "search": search})


def test_the_best_points_are_tried_first_after_ones_own(earlier):
    own = {"lr": 0.02, "mu_max": 0.9, "method": "cm", "depth": 1}
    spec = parse({**SPEC, "search": {**SPEC["search"], "points": [own], "warm": {"sweep": str(earlier), "top": 2}}})
    best = [dict(point.params) for point in ranked(earlier)[:2]]
    assert spec.search.started == [own, *best]
    proposer = Proposer(spec)
    assert [proposer.ask(n) for n in range(3)] == [own, *best]
    plain = Proposer(spec_with())
    assert proposer.ask(3) == [plain.ask(n) for n in range(4)][3]


def test_a_spec_keeps_what_was_found_whatever_becomes_of_the_source(earlier, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in earlier.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    spec = warmed(folder)
    stored = json.loads(json.dumps(spec.model_dump(mode="json")))
    (folder / "spec.json").unlink()
    assert SweepSpec.model_validate(stored) == spec
    assert stored["search"]["warm"][0]["sweep"] == str(folder)


def test_points_outside_are_skipped_and_counted_and_what_is_missing_is_sampled(earlier):
    best = ranked(earlier)
    lowest = best[0].params["lr"]
    space = {**SPEC["space"], "lr": {"type": "float", "low": lowest * 1.0001, "high": 1.0, "scale": "log"}}
    del space["mu_max"]
    space["init"] = ["sparse", "he"]
    spec = warmed(earlier, {"sweep": str(earlier), "top": 2}, space=space)
    inside = [point.params for point in best if point.params["lr"] > lowest]
    skipped = [point.params for point in best].index(inside[1]) - 1
    assert [point["lr"] for point in spec.search.started] == [params["lr"] for params in inside[:2]]
    assert all(set(point) == {"lr", "method", "depth"} for point in spec.search.started)
    assert spec.search.warm[0].skipped == skipped >= 1
    assert any(f"{skipped} better points" in line and "not in this space" in line for line in spec.warnings())
    assert set(Proposer(spec).ask(0)) == {"lr", "method", "depth", "init"}


def test_a_value_that_is_fixed_here_must_be_that(earlier):
    space = {**SPEC["space"], "depth": 2}
    points = warmed(earlier, space=space).search.started
    theirs = [point.params for point in ranked(earlier) if point.params["depth"] == 2][:5]
    assert [point["lr"] for point in points] == [params["lr"] for params in theirs]


def test_names_that_are_not_active_are_left_out(earlier):
    space = {**SPEC["space"], "mu_max": {**SPEC["space"]["mu_max"], "when": {"method": ["nag"]}}}
    for point in warmed(earlier, space=space).search.started:
        assert ("mu_max" in point) == (point["method"] == "nag")


def test_told_results_are_known_before_the_first_trial_and_after_a_resume(earlier):
    source = {"sweep": str(earlier), "top": 0, "tell": True}
    changes = {"algorithm": "tpe", "seed": 9}
    spec = parse({**SPEC, "search": {**changes, "warm": source}})
    found = ranked(earlier)
    assert len(spec.search.told) == len(found) >= 10
    assert spec.search.started == []
    proposer = Proposer(spec)
    values = [trial.value for trial in proposer.study.get_trials()]
    assert values == [point.objective for point in found]
    asked, records = [], []
    for n in range(8):
        asked.append(proposer.ask(n))
        records.append({"type": "ask", "trial": n, "stage": "search", "params": asked[n]})
        proposer.tell(n, "complete", 1.0 + n, {90: 1.0})
        records.append({"type": "end", "trial": n, "state": "complete", "objective": 1.0 + n})
    again = Proposer(SweepSpec.model_validate(spec.model_dump(mode="json")))
    again.replay(records)
    assert again.ask(8) == proposer.ask(8)
    sobol = Proposer(parse({**SPEC, "search": {**changes, "algorithm": "qmc"}}))
    assert asked[0] != sobol.ask(0)  # the model spoke at once


def test_told_results_are_not_exported_as_trials(earlier, tmp_path):
    spec = parse({**SPEC, "search": {"algorithm": "tpe", "warm": {"sweep": str(earlier), "tell": True}}})
    proposer = Proposer(spec)
    params = proposer.ask(0)
    proposer.tell(0, "complete", 1.0, {})
    import optuna

    proposer.export(f"sqlite:///{tmp_path}/o.db", "x")
    study = optuna.load_study(study_name="x", storage=f"sqlite:///{tmp_path}/o.db")
    assert [trial.params for trial in study.trials] == [params]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {**SPEC["training"], "updates": 180}}, r"training\.updates is 90 there and 180 here"),
        ({"objective": "train_loss"}, r"objective\.metric is valid_loss there and train_loss here"),
    ],
)
def test_results_that_do_not_compare_are_not_told(earlier, changes, words):
    with pytest.raises(SpecError, match=words) as refused:
        warmed(earlier, {"sweep": str(earlier), "tell": True}, **changes)
    assert "search.warm.0.tell" in str(refused.value)
    assert warmed(earlier, **changes).search.started  # as points to try they will do


def test_what_cannot_be_is_said_in_one_line(earlier, tmp_path):
    with pytest.raises(SpecError, match=r"search\.warm\.0\.sweep=nowhere: no sweep there or in runs"):
        warmed(earlier, "nowhere")
    far = {"lr": {"type": "float", "low": 5.0, "high": 9.0}}
    with pytest.raises(SpecError, match="complete points lies in this space"):
        warmed(earlier, space=far)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_spec_file(empty, spec_with().model_dump(mode="json"))
    with pytest.raises(SpecError, match="no trial of it is complete"):
        warmed(empty)
    near = earlier.parent / "earlie"
    with pytest.raises(SpecError, match="did you mean earlier"):
        parse({**SPEC, "storage": str(earlier.parent), "search": {"warm": near.name}})


def test_by_the_command_line_and_by_its_name_in_storage(earlier, tmp_path):
    path = tmp_path / "next.yaml"
    path.write_text(json.dumps({**SPEC, "storage": str(earlier.parent)}))
    spec = load(path, ["search.warm=earlier"])
    assert [point_id(p) for p in spec.search.started] == [point.point_id for point in ranked(earlier)[:5]]


def test_the_same_spec_is_known_again_though_its_source_went_on(earlier, tmp_path):
    spec, folder = warmed(earlier), tmp_path / "more"
    folder.mkdir()
    (folder / "spec.json").write_bytes((earlier / "spec.json").read_bytes())
    records = journal.read(earlier / "journal.jsonl")
    ends = [record for record in records if record["type"] == "end" and record["state"] == "complete"]
    ends[-1]["objective"] = -5.0
    (folder / "journal.jsonl").write_bytes(b"".join(journal.encode([record]) for record in records))
    source = spec.search.warm[0].model_copy(update={"sweep": str(folder)})
    stored = spec.model_copy(update={"search": spec.search.model_copy(update={"warm": [source]})})
    fresh = warmed(folder)
    assert fresh != stored
    assert warm.same_but_for_sources(fresh, stored)
    other = warmed(folder, {"sweep": str(folder), "top": 3})
    assert not warm.same_but_for_sources(other, stored)
