"""Nights in their course: specs, broken folders, events, and that judging is a function."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps import nights
from sweeps.night_file import Night, digest
from sweeps.nights import judge, tonight
from sweeps.spec import SpecError, load, parse
from tests.sweeps import nightly
from tests.sweeps.nightly import DAY, fixed, values

FRESH = {**nightly.FIXED, "night": {"kind": "fresh"}, "confirm": {"top": 1, "seeds": 6}}


def test_a_spec_without_nights_says_nothing_of_them() -> None:
    plain = parse({**nightly.FIXED, "night": None}).model_dump(mode="json")
    assert "night" not in plain  # or ids and files of all sweeps there are would change


def test_a_fixed_night_is_the_spec_itself() -> None:
    spec = parse(nightly.FIXED)
    assert tonight(spec, "2026-11-21") == spec


def test_a_fresh_night_has_a_seed_of_its_own_and_is_otherwise_the_spec() -> None:
    spec = parse(FRESH)
    seeds = {tonight(spec, f"2026-11-{day:02d}").search.seed for day in range(1, 31)}
    assert len(seeds) == 30
    assert tonight(spec, "2026-11-21") == tonight(spec, "2026-11-21")
    other = parse({**FRESH, "search": {"algorithm": "grid", "seed": 5}})
    assert tonight(other, "2026-11-21").search.seed != tonight(spec, "2026-11-21").search.seed
    one, two = (tonight(spec, key).model_dump(mode="json") for key in ("a", "b"))
    assert digest(one, seed=False) == digest(two, seed=False) != digest(one, seed=True)
    assert parse(one).search.seed == one["search"]["seed"]  # what is stored is read back


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"confirm": None}, "confirm: fresh nights compare confirmed trials, and none are confirmed"),
        ({"search": {"algorithm": "tpe"}}, "search.algorithm=tpe: fresh nights need the same points every night"),
        ({"night": {"kind": "fresh", "expect": {"trials": {"t00001": 1.0}}}}, "have other seeds every night"),
        ({"night": {"kind": "fixed", "expect": {"trials": {"one": 1.0}}}}, "no trial's name"),
        ({"night": {"kind": "fixed", "expect": {"best": [2.0, 1.0]}}}, "the lower bound is above the upper one"),
        ({"night": {"kind": "fixed", "tolerance": 0}}, "night.tolerance"),
        ({"night": {"kind": "nightly"}}, "night.kind"),
    ],
)
def test_nights_that_cannot_be_judged_are_refused(change: dict, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse({**FRESH, **change})
    assert any(line in each for each in caught.value.lines), caught.value.lines


def test_what_would_alarm_without_a_change_is_warned_of() -> None:
    spec = parse({**nightly.FIXED, "resources": {"engine": "stacked"}, "budget": {"trials": 3, "wall": "1m"}})
    assert sum(line.startswith("night.kind fixed") for line in spec.warnings()) == 2
    loose = parse({**FRESH, "baselines": [{"kind": "hf"}]})
    assert any("may find another point every night" in line for line in loose.warnings())


NIGHTLY = ["optimisers", "inits", "curves", "recurrent", "against-hf"]


@pytest.mark.parametrize("name", NIGHTLY)
def test_the_shipped_nights_are_fit_for_it(name: str) -> None:
    spec = load(f"nightly/{name}")
    assert spec.night is not None
    assert spec.resources.engine == "loop"
    assert spec.search.algorithm == "grid"
    assert spec.night.expect is not None
    assert spec.night.expect.source
    if spec.night.kind == "fresh":
        assert spec.confirm is not None
        assert spec.confirm.top == len(spec.space.grid(spec.search.grid))  # all points are confirmed every night


def truncated(folder: Path) -> None:
    data = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(data[: len(data) // 2])


def rotten(folder: Path) -> None:
    data = bytearray((folder / "journal.jsonl").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / "journal.jsonl").write_bytes(bytes(data) + bytes(data))


BREAKS: dict[str, Callable[[Path], object]] = {
    "no folder": lambda folder: None,
    "no journal": lambda folder: (fixed(folder) / "journal.jsonl").unlink(),
    "empty journal": lambda folder: (fixed(folder) / "journal.jsonl").write_bytes(b""),
    "torn journal": lambda folder: truncated(fixed(folder)),
    "rotten journal": lambda folder: rotten(fixed(folder)),
    "journal of noise": lambda folder: (fixed(folder) / "journal.jsonl").write_bytes(b"\x00\xff\n" * 40),
    "no spec": lambda folder: (fixed(folder) / "spec.json").unlink(),
    "damaged spec": lambda folder: (fixed(folder) / "spec.json").write_text('{"night": {"kind":'),
    "spec of something else": lambda folder: (fixed(folder) / "spec.json").write_text("[1, 2]"),
    "unknown night": lambda folder: (fixed(folder) / "spec.json").write_text('{"night": {"kind": "monthly"}}'),
    "failed": lambda folder: fixed(folder, states=["failed"] * 3),
    "one failed": lambda folder: fixed(folder, states=["complete", "failed"]),
    "diverged": lambda folder: fixed(folder, states=["diverged"] * 3),
    "interrupted": lambda folder: fixed(folder, states=["complete", "running"], closed="interrupted"),
    "killed": lambda folder: fixed(folder, states=["complete", "running"], closed=None),
    "no trials": lambda folder: fixed(folder, []),
    "fewer trials": lambda folder: fixed(folder, values(2)),
    "more trials": lambda folder: fixed(folder, values(4)),
    "one diverged": lambda folder: fixed(folder, states=["complete", "diverged"]),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_night_is_a_result_and_no_exception(how: str, tmp_path: Path) -> None:
    before = judge(fixed(tmp_path / "before"), [], DAY)
    BREAKS[how](tmp_path / "night")
    night = judge(tmp_path / "night", [before], 2 * DAY)
    assert night.result == "broken"
    assert night.sentence.startswith("Broken: ")
    assert len(night.sentence.splitlines()) == 1
    assert night.event.startswith("broken:")
    assert Night.from_dict(json.loads(json.dumps(night.to_dict(), allow_nan=False))) == night
    after = judge(fixed(tmp_path / "after"), [before, night], 3 * DAY)  # a broken night is no reference
    assert (after.result, after.reference, after.event) == ("ok", "before", "")


def test_a_sweep_without_night_rules_is_judged_by_its_end(tmp_path: Path) -> None:
    assert judge(fixed(tmp_path / "a", spec={"night": None}), [], DAY).result == "ok"
    assert judge(fixed(tmp_path / "b", spec={"night": None}, closed=None), [], DAY).result == "broken"


def test_a_night_is_written_and_read(tmp_path: Path) -> None:
    night = judge(fixed(tmp_path), [], DAY)
    assert nights.read(tmp_path) is None
    nights.write(tmp_path, night)
    assert nights.read(tmp_path) == night
    (tmp_path / "night.json").write_text('{"schema_version": 9}')
    with pytest.raises(ValueError, match="format 9"):
        nights.read(tmp_path)


def test_judging_is_a_function_and_the_order_of_the_past_does_not_matter(tmp_path: Path) -> None:
    past: list[Night] = []
    for day in range(6):
        told = values()
        told[1]["valid_loss"][3] *= 1.01 if day in (3, 4) else 1.0
        past.append(judge(fixed(tmp_path / f"n{day}", told), past, (day + 1) * DAY))
    assert [night.result for night in past] == ["ok", "ok", "ok", "worse", "worse", "ok"]
    files = {path: path.read_bytes() for path in (tmp_path / "n5").iterdir()}
    mixed = [*past, replace_at(past[-1], 99 * DAY)]  # what is later is left out
    random.Random(1).shuffle(mixed)
    assert judge(tmp_path / "n5", mixed, 6 * DAY) == past[5] == judge(tmp_path / "n5", past[:5], 6 * DAY)
    assert files == {path: path.read_bytes() for path in (tmp_path / "n5").iterdir()}


def replace_at(night: Night, at: float) -> Night:
    return Night.from_dict({**night.to_dict(), "at": at})


def test_one_event_while_the_same_change_lasts_another_for_another(tmp_path: Path) -> None:
    past: list[Night] = []
    for day, factor in enumerate([1, 1.01, 1.01, None, 1.01, 1.05, 1.05, 1]):
        told = values()
        told[0]["valid_loss"][3] *= factor or 1.0
        folder = fixed(tmp_path / f"n{day}", told, closed="finished" if factor else None)
        past.append(judge(folder, past, (day + 1) * DAY))
    assert [night.result for night in past] == ["ok", *["worse"] * 2, "broken", *["worse"] * 3, "ok"]
    events = [night.event for night in past]
    assert events[1] == events[2] == events[4] != ""  # a night without power in between is another event
    assert events[3] not in ("", events[1])
    assert events[5] == events[6] != events[4]
    assert events[0] == events[7] == ""
    assert past[2].since == past[1].at
    assert past[6].since == past[4].at  # worse since then, whatever the event


def test_an_accepted_night_is_the_new_reference(tmp_path: Path) -> None:
    told = values()
    told[0]["valid_loss"][3] *= 1.01
    first = judge(fixed(tmp_path / "n0"), [], DAY)
    second = judge(fixed(tmp_path / "n1", told), [first], 2 * DAY)
    assert second.result == "worse"
    accepted = nights.accept(second)
    assert judge(fixed(tmp_path / "n2", told), [first, accepted], 3 * DAY).result == "ok"
    back = judge(fixed(tmp_path / "n3"), [first, accepted], 3 * DAY)
    assert (back.result, back.reference) == ("better", "n1")


def test_another_spec_begins_another_reference_and_says_so(tmp_path: Path) -> None:
    first = judge(fixed(tmp_path / "n0"), [], DAY)
    other = fixed(tmp_path / "n1", spec={"training": {"updates": 40, "reports": 4, "batch": 16}})
    second = judge(other, [first], 2 * DAY)
    assert (second.result, second.reference) == ("ok", "")
    assert "a new reference begins" in second.sentence
    moved = judge(fixed(tmp_path / "n2", spec={"storage": "elsewhere", "name": "other"}), [first], 2 * DAY)
    assert moved.reference == "n0"  # places and names are no change


def test_what_has_changed_since_is_said(tmp_path: Path) -> None:
    first = judge(fixed(tmp_path / "n0"), [], DAY)
    told = values()
    told[0]["valid_loss"][3] *= 1.001
    new = {"torch": "2.10.0", "git": "b" * 40, "cpu": "Other CPU"}
    night = judge(fixed(tmp_path / "n1", told, versions=new), [first], 2 * DAY)
    assert night.changed == (f"git {'a' * 10} -> {'b' * 10}", "torch 2.9.0 -> 2.10.0", "cpu Example CPU -> Other CPU")
    for words in ("code (git", "libraries (torch 2.9.0 -> 2.10.0)", "machine (cpu Example CPU -> Other CPU)"):
        assert words in night.sentence
    same = judge(fixed(tmp_path / "n2", told), [first], 2 * DAY)
    assert "Code, libraries and machine are those of 1970-01-02." in same.sentence
