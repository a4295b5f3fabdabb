from typing import Any

import numpy as np
import pytest
import torch

from tests.trainers.cases import BATCH
from trainers.config import MU_SCHEDULES, InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig
from trainers.data import Data
from trainers.group import make_engine
from trainers.optim import constant_until, learning_rate, momentum, span
from trainers.serial import SerialTrial
from trainers.state import TrialState, zeros
from trainers.tasks import Split, Task

LATE = 10**7  # an update at which the schedule has long reached mu_max
SCALES = np.array([0.2, 0.5, 1.0])
CURVATURES = 2 * SCALES**2


@pytest.mark.parametrize(
    ("t", "mu"),
    [(0, 0.5), (249, 0.5), (250, 0.75), (500, 1 - 1 / 6), (1000, 0.9), (2500, 1 - 1 / 22), (10_000, 1 - 1 / 82)],
)
def test_schedule_has_the_values_of_equation_5(t: int, mu: float) -> None:
    assert momentum(t, MethodConfig("nag", 0.1, 0.999), 750_000) == pytest.approx(mu, rel=0, abs=1e-15)


@pytest.mark.parametrize(("mu_max", "first"), [(0.9, 1000), (0.99, 12_250), (0.995, 24_750), (0.999, 124_750)])
def test_mu_max_is_reached_at_the_updates_of_the_paper(mu_max: float, first: int) -> None:
    method = MethodConfig("cm", 0.1, mu_max)
    assert momentum(first, method, 750_000) == mu_max
    assert momentum(first - 1, method, 750_000) < mu_max
    assert constant_until(first, method, 750_000) is None


def test_last_phase_is_at_most_tail_mu_and_starts_on_time() -> None:
    method = MethodConfig("nag", 0.1, 0.99, tail_updates=1000, tail_mu=0.9)
    assert momentum(748_999, method, 750_000) == 0.99
    assert momentum(749_000, method, 750_000) == 0.9
    assert momentum(600, method, 1500) == pytest.approx(1 - 1 / 6)  # lower already: unchanged
    assert momentum(749_500, MethodConfig("cm", 0.1, 0.0, tail_updates=1000), 750_000) == 0


def test_sgd_has_no_momentum() -> None:
    assert momentum(5000, MethodConfig("sgd", 0.1, 0.99), 10_000) == 0


def test_adaptive_methods_have_no_momentum_of_this_kind() -> None:
    assert momentum(5000, MethodConfig("adam", 0.1, 0.99), 10_000) == 0


def test_constant_momentum_is_mu_max_from_the_first_update() -> None:
    assert momentum(0, MethodConfig("cm", 0.1, 0.995, mu_schedule="constant"), 1000) == 0.995


def test_recurrent_nets_of_the_paper_train_a_thousand_updates_at_point_nine() -> None:
    for mu_max in (0.0, 0.9, 0.98, 0.995):  # S13 section 4
        method = MethodConfig("nag", 1e-3, mu_max, mu_schedule="first")
        assert [momentum(t, method, 50_000) for t in (0, 999, 1000, 49_999)] == [0.9, 0.9, mu_max, mu_max]
        assert constant_until(0, method, 50_000) == 1000
        assert constant_until(1000, method, 50_000) is None


def test_nesterovs_own_momentum_starts_at_nothing_and_tends_to_one_minus_three_over_t_plus_five() -> None:
    method = MethodConfig("nag", 0.1, 1 - 1e-9, mu_schedule="nesterov")
    a1 = (1 + 5**0.5) / 2  # a_0 = 1
    a2 = (1 + (4 * a1**2 + 1) ** 0.5) / 2
    assert momentum(0, method, 10**6) == 0
    assert momentum(1, method, 10**6) == pytest.approx((a1 - 1) / a2, abs=1e-15)
    for t in (100, 1000, 10_000, 100_000):
        # S13 section 2: ~ 1 - 3/(t+5), up to an offset of t that grows as its logarithm.
        assert (1 - momentum(t, method, 10**6)) * (t + 5) == pytest.approx(3, rel=0.3 / t**0.5)


@pytest.mark.parametrize("mu_max", [0.0, 0.5, 0.9, 0.999])
def test_nesterovs_momentum_rises_to_mu_max_and_stays(mu_max: float) -> None:
    method = MethodConfig("cm", 0.1, mu_max, mu_schedule="nesterov")
    mus = [momentum(t, method, 10**7) for t in range(3200)]
    assert mus == sorted(mus)
    assert mus[-1] == momentum(10**7 - 1, method, 10**7) == mu_max
    assert constant_until(3199, method, 10**7) is None
    assert momentum(3200, MethodConfig("cm", 0.1, 0.999, 250, 1, 0.4, "nesterov"), 3201) == 0.4


def test_learning_rates_have_their_closed_forms() -> None:
    step = MethodConfig("adam", 0.8, lr_schedule="step", lr_step=10, lr_factor=0.5)
    assert [learning_rate(t, step, 100) for t in (0, 9, 10, 25)] == pytest.approx([0.8, 0.8, 0.4, 0.2], rel=1e-15)
    cosine = MethodConfig("nag", 0.8, lr_schedule="cosine")
    assert [learning_rate(t, cosine, 90) for t in (0, 30, 45, 60, 90)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0])
    warm = MethodConfig("sgd", 0.8, lr_warmup=4)
    assert [learning_rate(t, warm, 100) for t in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    both = MethodConfig("sgd", 0.8, lr_warmup=4, lr_schedule="cosine")
    assert learning_rate(1, both, 3) == pytest.approx(0.8 * 0.75 / 2)
    assert learning_rate(7, MethodConfig("sgd", 0.3), 100) == 0.3


@pytest.mark.parametrize(
    "lr", [{}, {"lr_warmup": 7}, {"lr_schedule": "step", "lr_step": 13}, {"lr_schedule": "cosine"}]
)
@pytest.mark.parametrize("schedule", MU_SCHEDULES)
@pytest.mark.parametrize("tail", [0, 17, 55, 200])
@pytest.mark.parametrize("mu_max", [0.0, 0.4, 0.9])
def test_all_is_constant_exactly_until_it_says(mu_max: float, tail: int, schedule: str, lr: dict[str, object]) -> None:
    method = MethodConfig("nag", 0.1, mu_max, 10, tail, 0.6, schedule, 0.3, 20, **lr)  # type: ignore[arg-type]

    def at(t: int) -> tuple[float, float]:
        return momentum(t, method, 100), learning_rate(t, method, 100)

    for t in range(100):
        until = constant_until(t, method, 100)
        assert len({at(u) for u in range(t, 100 if until is None else until)}) == 1
        assert until is None or until > t
        mus, lrs = span(t, 9, method, 100)
        assert mus == [momentum(u, method, 100) for u in range(t, t + 10)]
        assert lrs == [learning_rate(u, method, 100) for u in range(t, t + 9)]


def quadratic() -> Data:
    """A linear net's squared loss on orthogonal inputs: weight row i is an eigendirection of curvature 2 s_i^2.

    The columns are those of a Hadamard matrix without the constant one, so that biases (curvature 2) decouple.
    """
    h2 = np.array([[1, 1], [1, -1]])
    columns = np.kron(np.kron(h2, h2), h2)[:, 1:4]
    inputs = (columns * SCALES).astype(np.float64)
    targets = np.random.default_rng(0).standard_normal((BATCH, 2))
    split = Split(inputs, targets)
    info = TaskInfo("quadratic", "autoencoder", 3, 2, "squared", ("loss", "squared_error"))
    return Data(Task(info, split, split, split, "made", False), dtype="float64")


def run(engine: str, method: MethodConfig, updates: int, start: int = LATE, total: int = 2 * LATE) -> TrialState:
    """Train from a fixed start; every batch is the whole data."""
    net = NetConfig((3, 2), (), "squared")
    config = TrialConfig(0, net, InitConfig("he"), method, total, BATCH, SeedConfig(0))
    rng = torch.Generator().manual_seed(0)
    params = [(torch.randn(3, 2, generator=rng, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))]
    state = TrialState(start, params, zeros(params))
    if engine == "serial":
        serial = SerialTrial(config, quadratic(), state=state)
        serial.advance(updates)
        return serial.state()
    fast = make_engine(engine, net, BATCH, quadratic())
    fast.add(config, state)
    fast.advance({0: start + updates})
    return fast.state(0)


ALL = pytest.mark.parametrize("engine", ["serial", "loop", "stacked"])


@ALL
def test_nag_is_cm_with_mu_times_one_minus_lr_curvature_in_each_eigendirection(engine: str) -> None:
    mu, lr = 0.9, 0.3  # lr * curvature = 0.024, 0.15, 0.6
    nag = run(engine, MethodConfig("nag", lr, mu), 60)
    for row, curvature in enumerate(CURVATURES):
        cm = run(engine, MethodConfig("cm", lr, mu * (1 - lr * curvature)), 60)  # S13 theorem 2.1
        torch.testing.assert_close(nag.params[0][0][row], cm.params[0][0][row], rtol=0, atol=1e-12)
        torch.testing.assert_close(nag.velocity[0][0][row], cm.velocity[0][0][row], rtol=0, atol=1e-12)


@ALL
def test_nag_diverges_past_its_limit_where_cm_does_not(engine: str) -> None:
    mu = 0.9
    limit = 2 * (1 + mu) / (1 + 2 * mu)  # SCIENCE 1.2: 1.357; CM's is 2(1 + mu) = 3.8
    beyond, within = (1 + 0.05) * limit, (1 - 0.05) * limit

    def speed(kind: str, lr_curvature: float) -> float:
        method = MethodConfig(kind, lr_curvature / CURVATURES[-1], mu)
        return float(run(engine, method, 400).velocity[0][0][-1].norm())

    assert speed("nag", beyond) > 1e6
    assert speed("nag", within) < 1e-6
    assert speed("cm", beyond) < 1e-6
    assert speed("cm", 3.7) < 1e-2
    assert speed("cm", 3.9) > 1e3


MOVING = {
    "ramp-cosine": {"mu_step": 5, "lr_schedule": "cosine", "lr_warmup": 8},
    "nesterov-step": {"mu_schedule": "nesterov", "lr_schedule": "step", "lr_step": 7, "tail_updates": 9},
    "first-warmup": {"mu_schedule": "first", "mu_first": 0.4, "mu_first_updates": 11, "lr_warmup": 23},
    "constant-cosine": {"mu_schedule": "constant", "lr_schedule": "cosine", "tail_updates": 5, "tail_mu": 0.2},
}


@ALL
@pytest.mark.parametrize("kind", ["cm", "nag"])
@pytest.mark.parametrize("moving", MOVING.values(), ids=MOVING)
def test_momentum_under_moving_mu_and_lr_is_the_scalar_recursion(
    engine: str, kind: str, moving: dict[str, Any]
) -> None:
    updates = 40
    method = MethodConfig(kind, 0.6, 0.95, **moving)
    start = run(engine, method, 0, 0, updates).params[0][0].numpy()
    reached = run(engine, method, updates, 0, updates)
    data = quadratic()
    best = np.linalg.lstsq(data.train.inputs.numpy(), data.train.targets.numpy(), rcond=None)[0]
    for (row, column), weight in np.ndenumerate(start):
        x, v = float(weight), 0.0
        for t in range(updates):
            mu, lr = momentum(t, method, updates), learning_rate(t, method, updates)
            ahead = x + mu * v if kind == "nag" else x
            v = mu * v - lr * CURVATURES[row] * (ahead - best[row, column])  # S13 eq. 1, 3
            x += v  # S13 eq. 2, 4
        assert float(reached.params[0][0][row, column]) == pytest.approx(x, rel=0, abs=1e-12)
        assert float(reached.velocity[0][0][row, column]) == pytest.approx(v, rel=0, abs=1e-12)
