import math
from dataclasses import replace

import pytest

from tests.trainers.cases import (
    AUTOENCODER,
    FIRST_ORDER,
    NETS,
    RESIDUAL,
    data,
    distance,
    same_bits,
    task,
    trial,
    trials,
)
from trainers.calibrate import shape_key
from trainers.config import NetConfig
from trainers.group import Group
from trainers.serial import SerialTrial

DEEPER = NetConfig((12, 10, 9, 4, 9, 10, 12), ("sigmoid", "sigmoid", "linear", "sigmoid", "sigmoid"), "logistic")
BOTH = pytest.mark.parametrize("engines", ["loop", "stacked"])


def group_of(engines: object, dtype: str = "float64") -> Group:
    """Six trials of two shapes."""
    group = Group(task(AUTOENCODER), engines, dtype=dtype, eval_examples=20)  # type: ignore[arg-type]
    for number in range(6):
        group.add(trial((AUTOENCODER, DEEPER)[number % 2], number, ("sgd", "cm", "nag")[number % 3]))
    return group


@BOTH
def test_trials_of_several_shapes_train_together_and_measure_as_alone(engines: str) -> None:
    group = group_of(engines)
    seconds = group.advance({number: 5 + number for number in range(6)})
    assert set(seconds) == set(range(6))
    assert group.seconds_per_update() > 0
    measured = group.evaluate(range(6))
    tensors = data(AUTOENCODER)
    for number in range(6):
        twin = SerialTrial(trial((AUTOENCODER, DEEPER)[number % 2], number, ("sgd", "cm", "nag")[number % 3]), tensors)
        twin.advance(5 + number)
        assert set(measured[number]) == set(tensors.info.objectives)
        for name, part in (("train", tensors.train.head(20)), ("valid", tensors.valid.head(20))):
            for metric, value in twin.evaluate(part).items():
                assert measured[number][f"{name}_{metric}"] == pytest.approx(value, rel=1e-10)


@BOTH
def test_a_fork_is_more_updates_at_capped_mu_and_leaves_the_trials_bits(engines: str) -> None:
    group = group_of(engines)
    group.advance(dict.fromkeys(range(6), 60))
    before = {number: group.state(number) for number in range(6)}
    forked = group.fork([1, 2, 5], updates=9, mu=0.6)
    assert set(forked) == {1, 2, 5}
    tensors = data(AUTOENCODER)
    for number, measured in forked.items():
        config = trial((AUTOENCODER, DEEPER)[number % 2], number, ("sgd", "cm", "nag")[number % 3])
        twin = SerialTrial(replace(config, method=replace(config.method, mu_max=0.6)), tensors, state=before[number])
        twin.advance(9)
        assert measured["valid_loss"] == pytest.approx(twin.evaluate(tensors.valid.head(20))["loss"], rel=1e-10)
    for number in range(6):
        assert same_bits(group.state(number), before[number])
    assert group.fork([1, 2, 5], updates=9, mu=0.6) == forked


@BOTH
def test_a_fork_also_caps_the_tail(engines: str) -> None:
    config = replace(trial(AUTOENCODER, tail_updates=390, tail_mu=0.9), updates=400)
    group = Group(task(AUTOENCODER), engines, dtype="float64")
    group.add(config)
    group.advance({0: 100})
    capped = replace(config, method=replace(config.method, mu_max=0.3, tail_mu=0.3))
    twin = SerialTrial(capped, data(AUTOENCODER), state=group.state(0))
    twin.advance(5)
    forked = group.fork([0], 5, 0.3)[0]["train_loss"]
    assert forked == pytest.approx(twin.evaluate(data(AUTOENCODER).train)["loss"], rel=1e-10)


@BOTH
def test_divergence_is_a_result(engines: str) -> None:
    net = NETS["squared-sigmoid"]
    group = Group(task(net), engines, dtype="float32")
    group.add(trial(net, 0, lr=1e30))
    group.add(trial(net, 1))
    group.advance({0: 40, 1: 40})
    assert group.diverged_at(0) is not None
    assert group.diverged_at(1) is None
    measured = group.evaluate([0, 1])
    assert math.isnan(measured[0]["valid_loss"])
    assert measured[1]["valid_loss"] < 1e3
    forked = group.fork([0, 1], 5, 0.5)
    assert forked[1]["valid_loss"] < 1e3


@BOTH
@pytest.mark.parametrize("kind", FIRST_ORDER)
@pytest.mark.parametrize("net", [AUTOENCODER, NETS["squared-sigmoid"], NETS["mlp-tanh"], RESIDUAL])
def test_a_diverged_trial_never_scores_well(engines: str, kind: str, net: NetConfig) -> None:
    group = Group(task(net), engines, dtype="float32", eval_examples=20)
    for number, lr in enumerate((1e2, 1e10, 1e20, 1e30, 1e38)):
        group.add(trial(net, number, kind, lr))
    at_birth = group.evaluate(range(5))
    for update in (1, 2, 3, 10, 60):
        group.advance(dict.fromkeys(range(5), update))
        measured = group.evaluate(range(5))
        for number in range(5):
            if group.diverged_at(number) is not None:
                assert all(math.isnan(value) for value in measured[number].values())
            elif not group.state(number).is_finite():
                assert not measured[number]["valid_loss"] < at_birth[number]["valid_loss"]
    assert group.diverged_at(4) is not None or net.loss != "squared"


@BOTH
def test_infinite_weights_that_answer_score_nothing(engines: str) -> None:
    group = Group(task(AUTOENCODER), engines, dtype="float64")
    group.add(trial(AUTOENCODER))
    state = group.state(0)
    state.params[0][0].fill_(math.inf)  # a layer of units that are always on
    group.remove(0)
    group.add(trial(AUTOENCODER), state)
    group.advance({0: 1})
    assert group.diverged_at(0) is not None
    assert all(math.isnan(value) for value in group.evaluate([0])[0].values())


@BOTH
def test_methods_of_all_families_share_a_group(engines: str) -> None:
    group = Group(task(AUTOENCODER), engines, dtype="float64", eval_examples=20)
    configs = [trial(AUTOENCODER, number, kind, 0.01) for number, kind in enumerate(FIRST_ORDER)]
    for config in configs:
        group.add(config)
    group.advance(dict.fromkeys(range(len(FIRST_ORDER)), 9))
    measured, forked = group.evaluate(range(len(FIRST_ORDER))), group.fork(range(len(FIRST_ORDER)), 3, 0.1)
    tensors = data(AUTOENCODER)
    for config in configs:
        twin = SerialTrial(config, tensors)
        twin.advance(9)
        assert distance(group.state(config.number), twin.state()) < 1e-12
        loss = twin.evaluate(tensors.valid.head(20))["loss"]
        assert measured[config.number]["valid_loss"] == pytest.approx(loss, rel=1e-10)
        capped = replace(config, method=replace(config.method, mu_max=0.1))
        fork = SerialTrial(capped, tensors, state=twin.state())  # of methods without momentum the trial itself
        fork.advance(3)
        loss = fork.evaluate(tensors.valid.head(20))["loss"]
        assert forked[config.number]["valid_loss"] == pytest.approx(loss, rel=1e-10)


@BOTH
def test_a_fork_also_caps_the_first_momentum(engines: str) -> None:
    schedule = {"mu_schedule": "first", "mu_first": 0.9, "mu_first_updates": 300}
    config = trial(AUTOENCODER, kind="cm", **schedule)
    group = Group(task(AUTOENCODER), engines, dtype="float64")
    group.add(config)
    group.advance({0: 20})
    capped = replace(config, method=replace(config.method, mu_first=0.2))
    twin = SerialTrial(capped, data(AUTOENCODER), state=group.state(0))
    twin.advance(5)
    assert group.fork([0], 5, 0.2)[0]["train_loss"] == pytest.approx(
        twin.evaluate(data(AUTOENCODER).train)["loss"], rel=1e-10
    )


def test_engines_may_differ_by_shape() -> None:
    keys = [shape_key(net, 8) for net in (AUTOENCODER, DEEPER)]
    group = group_of({keys[0]: "loop", keys[1]: "stacked"})
    assert [group.engine(number) for number in range(4)] == ["loop", "stacked"] * 2


def test_a_trial_leaves_and_its_number_can_come_again() -> None:
    group = group_of("stacked")
    state = group.state(3)
    group.remove(3)
    assert group.numbers() == [0, 1, 2, 4, 5]
    with pytest.raises(KeyError):
        group.diverged_at(3)
    group.add(trial(DEEPER, 3, "sgd"), state)
    assert group.update(3) == 0


def test_what_cannot_be_is_refused() -> None:
    group = group_of({shape_key(net, 8): "loop" for net in (AUTOENCODER, DEEPER)})
    with pytest.raises(ValueError, match="already in this group"):
        group.add(trial(AUTOENCODER, 0))
    with pytest.raises(ValueError, match="no engine was chosen for shape"):
        group.add(replace(trials(AUTOENCODER)[9], batch=4))
    with pytest.raises(ValueError, match="engine 'fast': one of loop, stacked"):
        Group(task(AUTOENCODER), "fast").add(trial(AUTOENCODER))
