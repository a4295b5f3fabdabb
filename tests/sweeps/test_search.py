import logging
import math
import random

import optuna
import pytest

from sweeps import designs, search
from sweeps.search import Proposer
from sweeps.space import point_id
from sweeps.spec import parse

ALGORITHMS = ("tpe", "random", "qmc", "grid", "gp", "cmaes")
LEARNING = ("tpe", "gp", "cmaes")
SPACE = {
    "mu_max": {"type": "float", "low": 0.8, "high": 0.995, "scale": "one_minus_log"},
    "lr": {"type": "float", "low": 0.001, "high": 0.5, "scale": "log"},
    "method": ["cm", "nag"],
}
CONDITIONAL = {
    **SPACE,
    "init": ["sparse", "he"],
    "fan_in": {"type": "int", "low": 5, "high": 30, "when": {"init": "sparse"}},
    "init_scale": {"type": "float", "low": 0.1, "high": 10, "scale": "log", "when": {"init": "he"}},
}
GRID = {"mu_max": 5, "lr": 5, "fan_in": 2, "init_scale": 2}


def make(algorithm, space=CONDITIONAL, mode="min", **keys):
    if algorithm == "grid":
        keys["grid"] = {name: GRID[name] for name in space if name in GRID}
    data = {"task": "digits", "space": space, "search": {"algorithm": algorithm, "seed": 7, **keys}, "mode": mode}
    return Proposer(parse(data))


def score(params):
    """Best at lr = 0.05, mu = 0.95, NAG, sparse init."""
    distance = math.log(params["lr"] / 0.05) ** 2 + math.log((1 - params["mu_max"]) / 0.05) ** 2
    return distance + (params["method"] != "nag") + 0.3 * (params.get("init") == "he")


class Sweep:
    """A sweep of K slots without training: asks, ends trials in a seeded order and journals as the board does."""

    def __init__(self, proposer, slots=4, sign=1, only_complete=False):
        self.proposer, self.slots, self.sign, self.only_complete = proposer, slots, sign, only_complete
        self.records, self.running, self.asked = [], {}, []
        self.steps = []  # number of records after each step

    def step(self):
        """One ask, after one end if all slots are taken. What happens depends on the number of records only."""
        rng = random.Random(len(self.records))
        if len(self.running) == self.slots:
            self.end(rng.choice(sorted(self.running)), rng)
        number = len(self.asked)
        params = self.proposer.ask(number)
        self.records.append({"type": "ask", "trial": number, "stage": "search", "params": params})
        self.running[number] = params
        self.asked.append(params)
        self.steps.append(len(self.records))

    def end(self, number, rng):
        value = self.sign * score(self.running.pop(number))
        state = rng.choices(["complete", "stopped", "diverged", "failed", "skipped"], [6, 4, 1, 1, 1])[0]
        state = "complete" if self.only_complete else state
        curve = {10: value + 1, 20: value} if state != "diverged" else {10: math.nan}
        rows = [{"trial": number, "update": u, "score": s if math.isfinite(s) else "nan"} for u, s in curve.items()]
        objective = value if state in ("complete", "stopped") else None
        self.records.append({"type": "report", "trials": rows})
        self.records.append({"type": "end", "trial": number, "state": state, "objective": objective})
        self.proposer.tell(number, state, objective, curve)

    def run(self, asks):
        for _ in range(asks):
            self.step()
        return self


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["plain", "conditional"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_interrupted_anywhere_goes_on_as_if_it_had_not_been(algorithm, space, monkeypatch):
    monkeypatch.setitem(search.STARTUP, "gp", 2)  # so that its model, slow as it is, speaks soon
    asks, cuts = (13, (7, 11)) if algorithm == "gp" else (36, range(1, 36))
    keys = {"points": [{"lr": 0.1}]}
    whole = Sweep(make(algorithm, space, **keys)).run(asks)
    for cut in cuts:
        resumed = Sweep(make(algorithm, space, **keys))
        resumed.asked = whole.asked[:cut]
        resumed.records = whole.records[: whole.steps[cut - 1]]
        resumed.proposer.replay(resumed.records)
        ended = {record["trial"] for record in resumed.records if record["type"] == "end"}
        resumed.running = {n: whole.asked[n] for n in range(cut) if n not in ended}
        resumed.run(min(asks - cut, 3))
        assert resumed.asked == whole.asked[: len(resumed.asked)], f"cut after {cut}"


@pytest.mark.parametrize("algorithm", ["random", "qmc", "grid"])
def test_designs_do_not_depend_on_results_or_slots(algorithm):
    expected = Sweep(make(algorithm), slots=1).run(60).asked
    assert Sweep(make(algorithm), slots=7, sign=-1).run(60).asked == expected
    assert [make(algorithm).ask(n) for n in range(60)] == expected


@pytest.mark.parametrize("algorithm", LEARNING)
@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_models_learn_where_the_optimum_is(algorithm, mode, sign):
    asks = 20 if algorithm == "gp" else 100
    asked = Sweep(make(algorithm, SPACE, mode), 2, sign, only_complete=True).run(asks).asked
    late = [score(params) for params in asked[-6:]]
    sobol = [score(params) for params in Sweep(make("qmc", SPACE)).run(100).asked]
    assert sum(late) / len(late) < 0.5 * sum(sobol) / len(sobol)


def test_tpe_proposes_what_optuna_alone_would():
    """Same seeds, same tells: our own grouping and storage change nothing of Optuna's arithmetic."""
    proposer = make("tpe", SPACE)
    sweep = Sweep(proposer, slots=3)
    study = optuna.create_study(direction="minimize")
    distributions = {
        "mu_max": optuna.distributions.FloatDistribution(0.005, 0.2, log=True),
        "lr": optuna.distributions.FloatDistribution(0.001, 0.5, log=True),
        "method": optuna.distributions.CategoricalDistribution(["cm", "nag"]),
    }
    seen = 0
    for number in range(40):
        sweep.step()
        for record in sweep.records[seen:]:
            if record["type"] != "end":
                continue
            place, state = record["trial"], record["state"]
            trial = optuna.trial.Trial(study, place)
            if state == "complete":
                study.tell(place, record["objective"])
            elif state == "failed":
                study.tell(place, state=optuna.trial.TrialState.FAIL)
            else:
                bad = {0: math.inf}
                curve = {10: record["objective"] + 1, 20: record["objective"]} if state == "stopped" else bad
                for update, value in curve.items():
                    trial.report(value, update)
                study.tell(place, state=optuna.trial.TrialState.PRUNED)
        seen = len(sweep.records)
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        params = sweep.asked[-1]
        if len(study.get_trials(states=states)) < 10:  # ours start with a Sobol sequence
            study.enqueue_trial({**params, "mu_max": round(1 - params["mu_max"], 15)})
            study.ask(distributions)
            continue
        seed = search.SeedConfig(7).stream(f"sampler/{number}/0") % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        theirs = study.ask(distributions).params
        assert theirs["lr"] == params["lr"]
        assert theirs["method"] == params["method"]
        assert theirs["mu_max"] == pytest.approx(1 - params["mu_max"], abs=1e-14)


def test_params_are_external_active_and_in_range():
    for algorithm in ALGORITHMS:
        for params in Sweep(make(algorithm)).run(24).asked:
            assert 0.8 <= params["mu_max"] <= 0.995
            assert 0.001 <= params["lr"] <= 0.5
            assert ("fan_in" in params) == (params["init"] == "sparse")
            assert ("init_scale" in params) == (params["init"] == "he")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_points_to_start_from_come_first_and_are_filled_up(algorithm):
    points = [{"lr": 0.1, "mu_max": 0.9, "method": "cm", "init": "sparse", "fan_in": 9}, {"init": "he", "lr": 0.2}]
    asked = Sweep(make(algorithm, points=points), slots=1).run(3).asked
    assert asked[0] == points[0]
    assert asked[1].items() >= points[1].items()
    assert set(asked[1]) == {"lr", "mu_max", "method", "init", "init_scale"}
    assert asked[2]["lr"] not in (0.1, 0.2)


@pytest.mark.parametrize("algorithm", LEARNING)
def test_a_late_point_of_its_own_is_kept_by_a_model_that_speaks(algorithm, monkeypatch):
    monkeypatch.setitem(search.STARTUP, "gp", 2)
    points = [{"lr": 0.01 + 0.01 * n, "init": "he"} for n in range(13)]
    sweep = Sweep(make(algorithm, points=points), slots=1, only_complete=True).run(13)
    assert [(p["lr"], p["init"]) for p in sweep.asked] == [(p["lr"], "he") for p in points]


def test_the_grid_ends_with_each_point_once():
    proposer = make("grid", points=[{"lr": 0.3}])
    # 5 mu x 5 lr x 2 methods x (2 fan-ins under sparse + 2 scales under he), and the point to start from
    assert proposer.size() == 5 * 5 * 2 * 4 + 1
    asked = [proposer.ask(n) for n in range(proposer.size())]
    assert len({point_id(params) for params in asked}) == proposer.size()
    assert not proposer.exhausted(proposer.size() - 1)
    assert proposer.exhausted(proposer.size())
    with pytest.raises(ValueError, match="grid ends"):
        proposer.ask(proposer.size())


def test_a_point_to_start_from_is_not_tried_again_by_the_grid():
    space = {"method": ["cm", "nag"], "init": ["sparse", "he"]}
    proposer = make("grid", space, points=[{"method": "nag", "init": "he"}])
    assert proposer.size() == 4
    assert len({point_id(proposer.ask(n)) for n in range(4)}) == 4


CHOICES = {"method": ["sgd", "cm", "nag"], "init": ["sparse", "he"], "depth": [1, 2, 3]}
SAMPLING = ("tpe", "random", "qmc", "gp", "cmaes")


def ask_all(proposer, most=40):
    """Points until the search has no more, each trained at once."""
    asked = []
    while len(asked) < most and not proposer.exhausted(len(asked)):
        params = proposer.ask(len(asked))
        proposer.tell(len(asked), "complete", params["depth"] + (params["method"] != "nag"), {10: 1.0})
        asked.append(params)
    return asked


@pytest.mark.parametrize("algorithm", SAMPLING)
def test_a_space_of_choices_ends_when_each_point_was_tried_once(algorithm):
    proposer = make(algorithm, CHOICES)
    assert proposer.size() == 18
    asked = ask_all(proposer)
    assert len(asked) == len({point_id(params) for params in asked}) == proposer.size() == 18
    with pytest.raises(ValueError, match="all points are tried"):
        proposer.ask(18)
    records = [{"type": "ask", "trial": n, "stage": "search", "params": params} for n, params in enumerate(asked[:11])]
    again = make(algorithm, CHOICES)
    again.replay(records)
    assert again.size() == 18
    rest = [again.ask(n) for n in range(11, 18)]
    assert len({point_id(params) for params in (*asked[:11], *rest)}) == 18


@pytest.mark.parametrize("algorithm", SAMPLING)
def test_points_may_repeat_where_one_says_so(algorithm):
    proposer = make(algorithm, CHOICES, duplicates="repeat")
    assert proposer.size() is None
    asked = ask_all(proposer)
    assert len(asked) == 40
    assert len({point_id(params) for params in asked}) <= 18


def test_given_points_and_replicates_count_where_all_are_tried():
    points = [{"method": "sgd", "init": "he", "depth": 1}, {"depth": 2}, {"method": "sgd", "init": "he", "depth": 1}]
    proposer = make("random", CHOICES, points=points, seeds=2)
    asked = ask_all(proposer, most=100)
    ids = [point_id(params) for params in asked]
    assert ids[0] == ids[1] == ids[4] == ids[5]  # given twice, so trained twice
    assert len(set(ids)) == 18
    assert len(ids) == proposer.size() == 2 * 19


@pytest.mark.parametrize("algorithm", ["tpe", "random", "qmc"])
def test_a_space_too_large_to_list_repeats_no_point_either(algorithm, monkeypatch):
    monkeypatch.setattr(designs, "finite", lambda space: None)
    proposer = make(algorithm, CHOICES)
    assert proposer.size() is None
    asked = ask_all(proposer, most=18)
    assert len({point_id(params) for params in asked}) >= 17  # looked for, not sworn to
    assert len(ask_all(make(algorithm, CHOICES), most=40)) == 40  # and it never hangs


@pytest.mark.parametrize("algorithm", ["tpe", "random", "cmaes"])
def test_a_retried_trial_counts_by_its_last_end_only(algorithm):
    plain = Sweep(make(algorithm), slots=3, only_complete=True).run(30)
    ends = [i for i, record in enumerate(plain.records) if record["type"] == "end"][4:22:3]
    records = []
    for i, record in enumerate(plain.records):
        if i in ends:  # it failed here first, perhaps twice
            failed = {**record, "state": "failed", "objective": None}
            records += [failed, {"type": "retry", "trials": [record["trial"]]}] * (1 + i % 2)
        records.append(record)
    again, expected = make(algorithm), make(algorithm)
    again.replay(records)
    expected.replay(plain.records)
    assert states(again) == states(expected) == states(plain.proposer)
    assert again.ask(30) == expected.ask(30) == plain.proposer.ask(30)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_replicates_of_a_point_follow_each_other(algorithm):
    sweep = Sweep(make(algorithm, seeds=3), slots=2, only_complete=True).run(24)
    ids = [point_id(params) for params in sweep.asked]
    assert all(len(set(ids[n : n + 3])) == 1 for n in range(0, 24, 3))
    assert len(set(ids)) == 8
    again = make(algorithm, seeds=3)
    records = sweep.records
    cut = next(i for i, record in enumerate(records) if record.get("trial") == 19)  # in mid-point
    again.replay(records[: cut + 1])
    assert again.ask(20) == sweep.asked[20]


def states(proposer):
    return [(t.state.name, t.value, t.intermediate_values) for t in proposer.study.get_trials()]


@pytest.mark.parametrize(("mode", "worst"), [("min", math.inf), ("max", -math.inf)])
def test_how_ends_are_told(mode, worst):
    proposer = make("tpe", SPACE, mode)
    for number in range(8):
        proposer.ask(number)
    proposer.tell(0, "complete", 2.0, {10: 3.0, 20: 2.0})
    proposer.tell(1, "stopped", 3.0, {10: 4.0, 20: 3.0})
    proposer.tell(2, "diverged", None, {10: 4.0, 20: math.nan})
    proposer.tell(3, "failed", None, {10: 4.0})
    proposer.tell(4, "skipped", None, {})
    proposer.tell(5, "complete", math.nan, {10: 1.0})
    proposer.tell(6, "stopped", None, {10: 1.0, 20: math.inf})
    assert states(proposer) == [
        ("COMPLETE", 2.0, {}),
        ("PRUNED", 3.0, {10: 4.0, 20: 3.0}),
        ("PRUNED", worst, {0: worst}),
        ("FAIL", None, {}),
        ("PRUNED", worst, {0: worst}),
        ("PRUNED", worst, {0: worst}),
        ("PRUNED", worst, {0: worst}),
        ("RUNNING", None, {}),
    ]


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_tpe_keeps_away_from_where_trials_diverge(mode, sign):
    # Above lr = 0.05 everything diverges, and late; below, everything is stopped at the first rung.
    space = {"lr": SPACE["lr"]}
    proposer = make("tpe", space, mode)
    late = []
    for number in range(60):
        lr = proposer.ask(number)["lr"]
        if lr > 0.05:
            proposer.tell(number, "diverged", None, {10: sign * 0.1, 1000: math.nan})
        else:
            proposer.tell(number, "stopped", 1.0, {10: sign * abs(math.log(lr / 0.01))})
        late = [*late, lr][-20:]
    assert sum(lr > 0.05 for lr in late) <= 2


def test_by_waves_a_model_learns_the_same_whatever_the_slots():
    """25 trials of TPE in waves of 10: the second and third learn, so they are no Sobol points, but alike for all."""
    spec = parse({"task": "digits", "space": CONDITIONAL, "search": {"algorithm": "tpe", "seed": 7}})
    tables = []
    for slots in (1, 3, 10, 30):
        sweep = Sweep(Proposer(spec, wave=10), slots)
        while len(sweep.asked) < 25:
            rng = random.Random(len(sweep.records))
            if sweep.proposer.ready and len(sweep.running) < slots:
                sweep.step()
            else:
                sweep.end(rng.choice(sorted(sweep.running)), random.Random(0))
        again = Proposer(spec, wave=10)
        again.replay(sweep.records)
        assert again.ready == sweep.proposer.ready
        assert again.ask(25) == sweep.proposer.ask(25)
        tables.append(sweep.asked)
    assert all(table == tables[0] for table in tables)
    sobol = [make("qmc").ask(number) for number in range(25)]
    assert tables[0][:10] == sobol[:10]
    assert not any(point in sobol for point in tables[0][10:])


def test_asking_twice_and_unknown_states_are_refused():
    proposer = make("random")
    proposer.ask(0)
    with pytest.raises(ValueError, match="asked for before"):
        proposer.ask(0)
    with pytest.raises(ValueError, match="unheard"):
        proposer.tell(0, "unheard", None, {})


def test_replay_skips_other_stages_and_leaves_running_what_has_no_end():
    sweep = Sweep(make("tpe"), slots=3).run(12)
    confirm = {"type": "ask", "trial": 99, "stage": "confirm", "params": sweep.asked[0]}
    end = {"type": "end", "trial": 99, "state": "complete", "objective": 1.0}
    again = make("tpe")
    again.replay([*sweep.records, {"type": "open"}, confirm, end])
    assert states(again) == states(sweep.proposer)
    assert sum(state == "RUNNING" for state, *_ in states(again)) == 3


def test_the_journals_points_count_where_cmaes_would_now_differ(caplog):
    sweep = Sweep(make("cmaes"), slots=2, only_complete=True).run(20)
    records = [dict(record) for record in sweep.records]
    changed = [i for i, record in enumerate(records) if record["type"] == "ask"][10:14]
    for i in changed:
        records[i]["params"] = {**records[i]["params"], "lr": 0.123}
    again = make("cmaes")
    with caplog.at_level(logging.WARNING, logger="sweeps.search"):
        again.replay(records)
    assert len(caplog.records) == 1
    assert [t.params["lr"] for t in again.study.get_trials()].count(0.123) == 4
    again.ask(20)


def test_export_is_a_finished_study_in_the_users_values(tmp_path):
    sweep = Sweep(make("cmaes"), slots=3).run(20)
    url = f"sqlite:///{tmp_path}/optuna.db"
    sweep.proposer.export(url, "name")
    sweep.proposer.export(url, "name")  # replaced, not added to
    study = optuna.load_study(study_name="name", storage=url)
    ended = [n for n in range(20) if n not in sweep.running]
    assert [t.user_attrs["trial"] for t in study.trials] == [f"t{n:05d}" for n in ended]
    assert [t.params for t in study.trials] == [sweep.asked[n] for n in ended]
    assert all(t.state.is_finished() for t in study.trials)
    assert study.best_value == min(t.value for t in study.trials if t.state.name == "COMPLETE")
