import numpy as np
import pytest
import torch

from tests.trainers.cases import BATCH
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig
from trainers.data import Data
from trainers.group import make_engine
from trainers.optim import constant_until, momentum
from trainers.serial import SerialTrial
from trainers.state import TrialState
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


@pytest.mark.parametrize("tail", [0, 17, 30, 55, 200])
@pytest.mark.parametrize("mu_max", [0.0, 0.4, 0.7, 0.9])
def test_mu_is_constant_exactly_until_it_says(tail: int, mu_max: float) -> None:
    method = MethodConfig("nag", 0.1, mu_max, mu_step=10, tail_updates=tail, tail_mu=0.6)
    for t in range(100):
        until = constant_until(t, method, 100)
        values = {momentum(u, method, 100) for u in range(t, 100 if until is None else until)}
        assert len(values) == 1
        assert until is None or until > t


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


def run(engine: str, kind: str, mu: float, lr: float, updates: int) -> TrialState:
    """Train from a fixed start with constant mu; every batch is the whole data."""
    net = NetConfig((3, 2), (), "squared")
    config = TrialConfig(0, net, InitConfig("he"), MethodConfig(kind, lr, mu), 2 * LATE, BATCH, SeedConfig(0))
    rng = torch.Generator().manual_seed(0)
    start = [(torch.randn(3, 2, generator=rng, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))]
    still = [(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))]
    state = TrialState(LATE, start, still)
    if engine == "serial":
        serial = SerialTrial(config, quadratic(), state=state)
        serial.advance(updates)
        return serial.state()
    fast = make_engine(engine, net, BATCH, quadratic())
    fast.add(config, state)
    fast.advance({0: LATE + updates})
    return fast.state(0)


ALL = pytest.mark.parametrize("engine", ["serial", "loop", "stacked"])


@ALL
def test_nag_is_cm_with_mu_times_one_minus_lr_curvature_in_each_eigendirection(engine: str) -> None:
    mu, lr = 0.9, 0.3  # lr * curvature = 0.024, 0.15, 0.6
    nag = run(engine, "nag", mu, lr, 60)
    for row, curvature in enumerate(CURVATURES):
        cm = run(engine, "cm", mu * (1 - lr * curvature), lr, 60)  # S13 theorem 2.1
        torch.testing.assert_close(nag.params[0][0][row], cm.params[0][0][row], rtol=0, atol=1e-12)
        torch.testing.assert_close(nag.velocity[0][0][row], cm.velocity[0][0][row], rtol=0, atol=1e-12)


@ALL
def test_nag_diverges_past_its_limit_where_cm_does_not(engine: str) -> None:
    mu = 0.9
    limit = 2 * (1 + mu) / (1 + 2 * mu)  # SCIENCE 1.2: 1.357; CM's is 2(1 + mu) = 3.8
    beyond, within = (1 + 0.05) * limit, (1 - 0.05) * limit

    def speed(kind: str, lr_curvature: float) -> float:
        return float(run(engine, kind, mu, lr_curvature / CURVATURES[-1], 400).velocity[0][0][-1].norm())

    assert speed("nag", beyond) > 1e6
    assert speed("nag", within) < 1e-6
    assert speed("cm", beyond) < 1e-6
    assert speed("cm", 3.7) < 1e-2
    assert speed("cm", 3.9) > 1e3
