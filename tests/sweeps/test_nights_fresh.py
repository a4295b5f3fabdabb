"""Fresh-seed nights: false alarms are rare, changes are found, an event is one event, and it ends."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeps.compare_samples import permutation
from sweeps.night_file import Night
from sweeps.nights import judge
from sweeps.nights_fresh import HOPELESS, LEVEL, WINDOWS, _alarm, could_find, finished, shifts_of
from sweeps.nights_words import pooled
from sweeps.schema_night import NightRules
from tests.bench import nights as bench
from tests.sweeps import confirmed, nightly
from tests.sweeps.nightly import ARM, DAY, course, drawn

RULES = NightRules(kind="fresh", reference=8)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(list(seed))


def test_while_the_reference_is_collected_nothing_is_compared() -> None:
    done = course(nightly.history(rng(0), [0.0] * 7 + [3.0]), RULES)
    assert [(night.result, night.collected, night.wanted) for night in done] == [("ok", i + 1, 8) for i in range(8)]
    assert done[4].sentence.startswith("Collecting the reference, 5 of 8 nights")
    assert all(night.effect is None for night in done)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_of_three_times_the_spread_is_found_the_same_night(sign: int) -> None:
    for seed in range(5):
        *before, last = course(nightly.history(rng(1, seed), [0.0] * 10 + [sign * 0.45]), RULES)
        assert {night.result for night in before} == {"ok"}
        assert last.result == ("worse" if sign > 0 else "better"), last.sentence
        assert last.effect == pytest.approx(math.exp(0.45 * sign), rel=0.25)
        assert (last.low or 0) < (last.effect or 0) < (last.high or 0)
        assert not (last.low or 0) <= 1 <= (last.high or 0)


def test_failures_come_first() -> None:
    """Runs that get stuck are worse even if those left end lower."""
    before = nightly.history(rng(2), [0.0] * 9, seeds=8)
    last = drawn(9, [-0.1] * 8, stuck=[True] * 6 + [False] * 2)
    night = course([*before, last], RULES)[-1]
    assert night.result == "worse"
    assert "6 of 8 runs failed tonight, in the reference 0 of 64" in night.sentence
    lost = replace(last, arms={ARM: {**last.arms[ARM], "errors": [None] * 6 + [0.9, 0.9], "stuck": [False] * 8}})
    assert course([*before, lost], RULES)[-1].result == "worse"  # diverged is as good as stuck


def test_an_event_is_one_event_and_is_over_when_it_is_over() -> None:
    shifts = [0.0] * 12 + [0.4] * 6 + [0.0] * 10
    done = course(nightly.history(rng(3), shifts), RULES)
    assert [night.result for night in done[12:18]] == ["worse"] * 6
    assert len({night.event for night in done[12:18]}) == 1
    assert {night.since for night in done[12:18]} == {done[12].at}
    assert all(night.result == "ok" for night in done[19:])  # though windows of 8 and more reach into the event
    assert [night.at for night in done if night.restart is not None] == [done[18].at]
    assert "An earlier change is over." in done[18].sentence
    later = nightly.history(rng(4), [0.0] * 4 + [0.4], seeds=6)
    again = course([replace(night, at=(40 + i) * DAY) for i, night in enumerate(later)], RULES, done)[-1]
    assert again.result == "worse"
    assert again.event != done[12].event


def test_a_slow_change_is_found_too() -> None:
    """Two percent a night: no night stands out, and the reference does not follow."""
    done = course(nightly.history(rng(5), [0.0] * 8 + [0.02 * i for i in range(20)]), RULES)
    found = [night.collected + i for i, night in enumerate(done) if night.result == "worse"]
    assert found
    assert all(night.result == "worse" for night in done[-5:])
    assert len({night.event for night in done[-5:]}) == 1


def test_an_accepted_level_begins_another_reference() -> None:
    done = course(nightly.history(rng(6), [0.0] * 10 + [0.5]), RULES)
    assert done[-1].result == "worse"
    done[-1] = replace(done[-1], accepted=True)
    later = nightly.history(rng(7), [0.5] * 10)
    after = course([replace(night, at=(20 + i) * DAY) for i, night in enumerate(later)], RULES, done)
    assert {night.result for night in after} == {"ok"}
    assert (after[0].collected, after[0].event) == (2, "")


def test_the_order_of_runs_does_not_matter() -> None:
    nights = nightly.history(rng(8), [0.0] * 10 + [0.15])
    shuffled = []
    for i, night in enumerate(nights):
        errors = list(night.arms[ARM]["errors"])
        random.Random(i).shuffle(errors)
        shuffled.append(replace(night, arms={ARM: {**night.arms[ARM], "errors": errors}}))
    one, other = course(nights, RULES)[-1], course(shuffled, RULES)[-1]
    assert (one.result, one.nights) == (other.result, other.nights)
    assert one.effect == pytest.approx(other.effect)


def test_what_could_be_found_is_found_with_the_power_that_is_claimed() -> None:
    draw, found, claimed = rng(9), 0, []
    for _ in range(200):
        base = draw.normal(0, 0.3, 60)
        size = could_find(base, draw.normal(0, 0.3, 10), 0.01)
        assert size is not None
        claimed.append(size)
    typical = math.log(float(np.median(claimed)))
    for _ in range(200):
        base = draw.normal(0, 0.3, 60)
        found += permutation(draw.normal(typical, 0.3, 10), base) <= 0.01
    assert 0.7 < found / 200 < 0.9  # 0.8 +- 3.5 standard errors
    assert could_find([0.0, 1.0], [0.0, 1.0], 0.01) is None


def test_waiting_makes_smaller_changes_findable() -> None:
    done = course(nightly.history(rng(10), [0.0] * 30), RULES)
    sizes = [night.could_find for night in done[8:]]
    assert sizes[0] is not None
    assert sizes[-1] is not None
    assert 1 < sizes[-1] < sizes[0]
    assert all(night.could_find_tonight >= night.could_find for night in done[8:])  # type: ignore[operator]


def test_unchanged_nights_seldom_give_an_alarm() -> None:
    """A part of tests/bench/nights.py: 1,200 unchanged nights; their alarms come in clusters, so 2% has some room."""
    found = bench.measured(bench.Case("false alarms", 5, histories=12), seed=7)
    assert found["per_100"] <= 2 + 3 * found["error"]


def test_the_level_is_shared_by_windows_and_arms() -> None:
    """The union bound, by which an unchanged night gives a false alarm in 2% at most: each share adds up to LEVEL."""
    nights = [drawn(i, [0.1 * i, 0.2, 0.3], hf=[0.1, 0.2, 0.3]) for i in range(20)]
    for after in (1, 2, 5, 12):
        shifts = shifts_of(nights[:8], nights[8 : 8 + after])
        assert len(shifts) == 2 * sum(window <= after for window in WINDOWS)
        level = LEVEL / len(shifts)
        sure = [replace(shift, p=1.0) for shift in shifts]
        assert _alarm(sure) is None
        assert _alarm([*sure[1:], replace(shifts[0], p=level * 1.01)]) is None
        assert _alarm([*sure[1:], replace(shifts[0], p=level * 0.99)]) is not None


@pytest.mark.parametrize(("shape", "stuck", "ratio"), [("normal", 0.0, 1.12), ("skewed", 0.3, 1.12)])
def test_the_simulated_judge_decides_as_the_real_one(shape: str, stuck: float, ratio: float) -> None:
    case = bench.Case("false alarms", 5, shape, stuck=stuck, ratio=ratio, nights=20)
    logs = bench.history(case, rng(11))
    nights = [
        drawn(i, [0.0 if math.isnan(x) else float(x) for x in row], stuck=[math.isnan(x) for x in row])
        for i, row in enumerate(logs)
    ]
    twin = bench.Twin(logs)
    split = bench.REFERENCE
    real = [_alarm(shifts_of(nights[:split], nights[split : split + n])) is not None for n in range(1, 21)]
    assert real == [twin.alarm(n) for n in range(1, 21)]
    assert any(real)
    assert not all(real)


STORED = Path(__file__).parents[1] / "bench" / "results" / "20261121-nights.json"


def test_the_stored_figures_are_what_is_promised() -> None:
    stored = json.loads(STORED.read_text())
    assert (stored["level"], tuple(stored["windows"]), HOPELESS) == (LEVEL, WINDOWS, 0.2)
    null = [row for row in stored["results"] if row["what"] == "false alarms"]
    assert {(row["seeds"], row["stuck"]) for row in null} >= {(s, p) for s in (5, 10) for p in (0.0, 0.2, 0.5)}
    for row in null:
        assert row["per_100"] <= 2
        assert row["nights"] >= 100
    everything = sum(row["per_100"] * row["histories"] for row in null) / sum(row["histories"] for row in null)
    assert everything <= 2
    found = {(r["seeds"], r["sd"], r["stuck"], r["ratio"]): r for r in stored["results"] if r["what"] != "false alarms"}
    for (seeds, sd, stuck, ratio), row in found.items():
        smaller = found.get((seeds, sd, stuck, {1.5: 1.25, 1.25: 1.1}.get(ratio, 0)))
        assert smaller is None or row["found"] >= smaller["found"]
    assert found[10, 0.15, 0.0, 1.25]["ninth"] <= 7


FRESH = {
    "name": "told", "night": {"kind": "fresh", "reference": 3}, "search": {"algorithm": "grid"},
    "space": {"method": ["nag"], "mu_max": [0.99], "lr": [0.012]}, "budget": {"trials": 1},
    "confirm": {"top": 1, "seeds": 10},
    "baselines": [{"kind": "hf", "space": {"hf_damping": 45.0, "hf_cg_max": 100}}],
}  # fmt: skip


def folder(path: Path, ours: list[float | None], hf: list[float | None], **spec: object) -> Path:
    points = (
        confirmed.Point(confirmed.NAG, 0.5, ours),
        confirmed.Point(confirmed.HF, 0.5, hf, stage="hf"),
    )
    return confirmed.make(path, *points, spec={**FRESH, **spec})


def ends(draw: np.random.Generator, middle: float, runs: int = 10) -> list[float | None]:
    return [float(x) for x in middle * np.exp(0.1 * draw.standard_normal(runs))]


def test_folders_are_judged_from_their_confirmed_runs(tmp_path: Path) -> None:
    draw, past = rng(12), []
    for day in range(6):
        ours = ends(draw, 0.6 if day < 5 else 0.9)
        if day == 1:
            ours[0], ours[1] = None, 6.9  # one diverged, one ended above 0.9 of a constant's error
        path = folder(tmp_path / f"n{day}", ours, ends(draw, 0.5))
        past.append(judge(path, past, (day + 1) * DAY))
    assert [night.result for night in past] == ["ok"] * 5 + ["worse"], past[-1].sentence
    arm = next(arm for arm in past[1].arms if arm.startswith("confirm/"))
    assert past[1].arms[arm]["errors"][0] is None
    assert past[1].arms[arm]["stuck"] == [False, True] + [False] * 8
    assert len(finished(pooled(past[:3], arm))) == 28
    assert past[5].effect == pytest.approx(1.5, rel=0.15)
    assert past[5].about.startswith("NAG")
    assert "HF" in past[5].sentence  # both are shown
    assert len(past[5].arms) == 2
    assert Night.from_dict(json.loads(json.dumps(past[5].to_dict(), allow_nan=False))) == past[5]


def test_a_worse_baseline_is_told_too(tmp_path: Path) -> None:
    draw, past = rng(13), []
    for day in range(4):
        path = folder(tmp_path / f"n{day}", ends(draw, 0.6), ends(draw, 0.5 if day < 3 else 0.8))
        past.append(judge(path, past, (day + 1) * DAY))
    assert past[-1].result == "worse"
    assert past[-1].about.startswith("HF")


@pytest.mark.parametrize(("best", "result"), [([0.5, 0.7], "ok"), ([0.1, 0.3], "worse"), ([1.0, 2.0], "better")])
def test_the_first_fresh_night_is_held_against_what_is_known(best: list[float], result: str, tmp_path: Path) -> None:
    rules = {"kind": "fresh", "reference": 3, "expect": {"best": best, "source": "a paper"}}
    night = judge(folder(tmp_path / "n0", ends(rng(14), 0.6), ends(rng(15), 0.2), night=rules), [], DAY)
    assert night.result == result, night.sentence
    assert "a paper" in night.sentence


def test_nights_without_confirmed_runs_are_broken(tmp_path: Path) -> None:
    path = confirmed.make(tmp_path / "n0", confirmed.Point(confirmed.NAG, 0.5, []), spec=FRESH)
    night = judge(path, [], DAY)
    assert (night.result, night.kind) == ("broken", "fresh")
