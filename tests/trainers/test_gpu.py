"""What needs CUDA: that the device computes what the same code computes on a CPU, and what only a device can show."""

from dataclasses import replace

import pytest
import torch

from tests.trainers.cases import AUTOENCODER, BATCH, NETS, RESIDUAL, distance, task, trial
from trainers import stack_fused
from trainers.config import MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.data import Data
from trainers.group import Group
from trainers.hf_engine import HFEngine
from trainers.serial import SerialTrial
from trainers.stack import StackedEngine
from trainers.stack_layout import Layout, Packed, arena_size
from trainers.stack_methods import Momentum
from trainers.stack_replay import graphed, plain
from trainers.state import TrialState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
]
SHAPES = {**NETS, "residual": RESIDUAL}
FAMILIES = {"momentum": ("nag", "cm", "sgd"), "adam": ("adam", "adamw"), "diagonal": ("diagonal",)}


def here(state: TrialState) -> TrialState:
    """A state's numbers on the CPU."""
    return TrialState.from_arrays(state.to_arrays())


def configs(net: NetConfig, family: str) -> list[TrialConfig]:
    """Methods of a family in turn, of two seeds, at rates that contract rounding."""
    kinds = FAMILIES[family]
    found = [trial(net, n, kinds[n % len(kinds)], lr=0.002 * (n + 1), mu_max=0.8) for n in range(6)]
    return [replace(config, seed=SeedConfig(1, replicate=config.number % 2)) for config in found]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_recorded_updates_are_the_twins_in_float64(shape: str, family: str) -> None:
    net = SHAPES[shape]
    there, beside = Data(task(net), "cuda", "float64"), Data(task(net), "cpu", "float64")
    engine = StackedEngine(net, BATCH, there, family, record=graphed)
    twins = [SerialTrial(config, beside) for config in configs(net, family)]
    for twin in twins:
        engine.add(twin.config)
    for until in (9, 10, 80):
        engine.advance({n: until + n % 3 for n in engine.numbers()})
        for twin in twins:
            twin.advance(engine.update(twin.config.number) - twin.update)
            assert distance(here(engine.state(twin.config.number)), twin.state()) < 1e-11


def test_a_graph_is_taken_and_replays_what_the_calls_do() -> None:
    net = AUTOENCODER
    made = []

    def record(call):  # type: ignore[no-untyped-def]
        made.append(graphed(call))
        return made[-1]

    engines = [StackedEngine(net, BATCH, Data(task(net), "cuda"), record=how) for how in (plain, record)]
    for engine in engines:
        for config in configs(net, "momentum"):
            engine.add(config)
        engine.advance(dict.fromkeys(range(6), 200))
        engine.remove(2)
        engine.add(trial(net, 9))
        engine.advance({n: engine.update(n) + 100 for n in engine.numbers()})
    assert made
    for number in engines[0].numbers():
        assert distance(*(here(engine.state(number)) for engine in engines)) < 1e-5


@pytest.mark.skipif(not stack_fused.available(), reason="Triton is not installed")
@pytest.mark.parametrize("nag", [False, True])
def test_the_fused_update_is_that_of_the_calls(nag: bool) -> None:
    net, k = SHAPES["mlp-tanh"], 5
    layout = Layout(net, BATCH)
    torch.manual_seed(0)
    arenas = [torch.randn(arena_size(layout, k), device="cuda") for _ in range(3)]
    coefficients = torch.rand(Momentum.coefficients, k, device="cuda")
    found = Momentum([Packed(layout, a.clone(), k) for a in arenas], coefficients, nag)
    expected = Momentum([Packed(layout, a.double(), k) for a in arenas], coefficients.double(), nag)
    assert len(found.after) == 1 < len(expected.after)
    for rule in (found, expected):
        for call in (*rule.look, *rule.after):
            call()
    for one, other in ((found.point, expected.point), (found.into, expected.into)):
        for w, x in zip(one.layers, other.layers, strict=True):
            assert float((w.double() - x).abs().max()) < 1e-5


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_rounded_products_are_those_that_a_cpu_rounds(precision: str) -> None:
    """Nearer to the CPU's emulation than float32 is."""
    net = AUTOENCODER
    reached = {}
    for name, device, how in (("gpu", "cuda", precision), ("cpu", "cpu", precision), ("plain", "cpu", "float32")):
        engine = StackedEngine(net, BATCH, Data(task(net), device), precision=how)
        engine.add(trial(net, 0, kind="sgd", lr=1.0))
        engine.advance({0: 1})
        reached[name] = here(engine.state(0))
    assert distance(reached["gpu"], reached["cpu"]) < distance(reached["gpu"], reached["plain"])


def test_recurrent_nets_and_hessian_free_on_a_gpu() -> None:
    net = NETS["mlp-tanh"]
    method = MethodConfig("hf", 1.0)
    config = TrialConfig(0, net, trial(net).init, method, 400, BATCH, SeedConfig(1))
    engines = [HFEngine(net, BATCH, Data(task(net), device, "float64")) for device in ("cuda", "cpu")]
    for engine in engines:
        engine.add(config)
        engine.advance({0: 200})
    assert engines[0].notes(0)["hf_iterations"] == engines[1].notes(0)["hf_iterations"] > 0
    assert distance(here(engines[0].state(0)), here(engines[1].state(0))) < 1e-8


def test_a_group_trains_measures_and_forks_on_a_gpu() -> None:
    net = AUTOENCODER
    groups = [Group(task(net), "stacked", device=device, dtype="float64") for device in ("cuda", "cpu")]
    for group in groups:
        for config in configs(net, "momentum"):
            group.add(config)
        group.advance(dict.fromkeys(range(6), 40))
    for found, expected in zip(*(group.evaluate(range(6)).values() for group in groups), strict=True):
        assert found == pytest.approx(expected, rel=1e-9)
    forked = [group.fork(range(6), 10, 0.5) for group in groups]
    for number in range(6):
        assert forked[0][number] == pytest.approx(forked[1][number], rel=1e-9)
