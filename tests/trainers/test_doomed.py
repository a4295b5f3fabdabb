"""The rule on nets of which theory says what becomes of them."""

import math

import numpy as np
import pytest
import torch

from trainers.config import InitConfig, NetConfig, SeedConfig
from trainers.data import Part
from trainers.diagnostics import measure
from trainers.doomed import NEEDED, Bounds, verdict
from trainers.inits import initial


def part(inputs: int, outputs: int = 10) -> Part:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(60) % outputs
    x = torch.rand((60, inputs), generator=generator, dtype=torch.float64)
    return Part(x, torch.nn.functional.one_hot(classes, outputs).double(), classes)


def relu(depth: int, width: int, eta: tuple[float, ...] = ()) -> NetConfig:
    return NetConfig((100,) + (width,) * depth + (10,), ("relu",) * depth, "softmax", eta)


def judged(net: NetConfig, kappa: float, replicate: int, bounds: Bounds = Bounds()) -> str | None:  # noqa: B008 - frozen
    init = InitConfig("he", scale=math.sqrt(kappa / 2))  # variance kappa / fan-in
    params = initial(net, init, SeedConfig(3, replicate=replicate))
    return verdict(measure(net, params, part(100), NEEDED), bounds)


@pytest.mark.parametrize("replicate", range(3))
def test_relu_nets_are_doomed_by_kappa_as_hr18_says(replicate: int) -> None:
    assert judged(relu(40, 40), 2.0, replicate) is None
    shrunk = judged(relu(40, 40), 1.0, replicate)
    assert shrunk is not None
    assert shrunk.startswith("lengths shrink with depth: M_40 / M_0 = ")
    assert shrunk.endswith(", below 1e-05")
    assert (judged(relu(40, 40), 4.0, replicate) or "").startswith("lengths grow with depth")
    assert judged(relu(10, 20), 1.0, replicate) is None  # M_10 = 2^-10: seen to start (SCIENCE 11)


def test_the_number_in_the_reason_is_theorys_on_average() -> None:
    """M_40 / M_0 = 2^-40 for kappa = 1; one net's logarithm is off by about sqrt(5 sum 1/n)."""
    net = relu(40, 150)
    found = measure(net, initial(net, InitConfig("he", scale=math.sqrt(0.5)), SeedConfig(0)), part(100), NEEDED)
    ratio = found["length"].values[-1, 0] / found["length"].values[0, 0]
    assert abs(math.log(ratio) + 40 * math.log(2)) < 4 * math.sqrt(5 * 40 / 150)
    assert f"{ratio:.3g}" in (verdict(found, Bounds()) or "")


@pytest.mark.parametrize("replicate", range(3))
def test_residual_nets_are_doomed_by_the_sum_of_eta(replicate: int) -> None:
    """Lengths grow like exp(sum eta): plain sums explode, eta = b^l does not at any depth (HR18 theorem 6)."""
    assert (judged(relu(40, 5, (1.0,) * 39), 2.0, replicate) or "").startswith("lengths grow with depth")
    assert judged(relu(40, 5, tuple(0.5**l for l in range(1, 40))), 2.0, replicate) is None  # noqa: E741
    assert judged(relu(80, 5, tuple(0.7**l for l in range(1, 80))), 2.0, replicate) is None  # noqa: E741


def test_sparse_init_at_a_quarter_of_its_scale_is_doomed_by_its_gradients() -> None:
    """S13 Table 3: with 11 hidden layers a scale of .25 stays at the mean image, 1 and 2 learn."""
    encoder = (196, 150, 100, 80, 50, 25, 6)
    widths = encoder + encoder[-2::-1]
    hidden = tuple("linear" if i == 5 else "sigmoid" for i in range(11))
    net = NetConfig(widths, hidden, "logistic")
    x = part(196).inputs
    reasons = {
        scale: verdict(
            measure(net, initial(net, InitConfig(scale=scale), SeedConfig(0)), Part(x, x, None), NEEDED), Bounds()
        )
        for scale in (0.25, 1.0, 2.0)
    }
    assert (reasons[0.25] or "").startswith("gradients shrink on the way back: sd at layer 1 / at layer 11 = ")
    assert reasons[1.0] is None
    assert reasons[2.0] is None


def test_a_dead_layer_and_numbers_beyond_finite_are_named() -> None:
    net = relu(3, 8)
    params = initial(net, InitConfig("he"), SeedConfig(0))
    params[1] = (params[1][0], np.full(8, -1e3))
    assert verdict(measure(net, params, part(100), NEEDED), Bounds()) == (
        "layer 2 is dead: its units are 0 on every example"
    )
    params[1] = (params[1][0] * 1e300, np.full(8, 1e308))
    assert verdict(measure(net, params, part(100), NEEDED), Bounds()) == "M of layer 2 is not finite"


def test_bounds_are_the_users_and_refuse_what_excludes_every_net() -> None:
    assert judged(relu(10, 20), 1.0, 0, Bounds(length=(1e-1, 1e5))) is not None
    assert judged(relu(40, 40), 1.0, 0, Bounds((0.0, math.inf), (0.0, math.inf))) is None
    with pytest.raises(ValueError, match="one in \\[0, 1\\), one above 1"):
        Bounds(length=(2.0, 10.0))


def test_shallow_and_recurrent_nets_are_not_judged() -> None:
    flat = NetConfig((100, 10), (), "softmax")
    assert verdict(measure(flat, initial(flat, InitConfig("he"), SeedConfig(0)), part(100), NEEDED), Bounds()) is None
    assert verdict({}, Bounds()) is None
    assert judged(relu(1, 30), 1e-3, 0) is None
