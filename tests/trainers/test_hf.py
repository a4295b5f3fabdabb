"""The algorithm, on the dense curvature of its twin and on quadratics whose answers are known."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainers.cases import AUTOENCODER, NETS, data, trial
from tests.trainers.hf_twin import Dense, Twin
from trainers.config import NetConfig
from trainers.config_hf import HFConfig
from trainers.curvature import curvature
from trainers.data import Part
from trainers.hf import RATES, HessianFree, Outcome, OverBudget, Piece, Progress, adapted, line_search, step_size
from trainers.hf_cg import ConjugateGradients, Dot, has_stalled, kept_steps
from trainers.state import initial_state

LINEAR = NetConfig((5, 4), (), "squared")
EXACT = HFConfig(damping=1e-12, l2=0.0, cg_max=200, cg_tolerance=1e-30, chunks=1)


def system(size: int, condition: float = 1e3) -> tuple[Tensor, Tensor]:
    """A positive definite matrix and a vector."""
    draw = np.random.default_rng(size)
    q, _ = np.linalg.qr(draw.standard_normal((size, size)))
    matrix = q @ np.diag(np.geomspace(1, condition, size)) @ q.T
    return torch.from_numpy(matrix), torch.from_numpy(draw.standard_normal(size))


def by(matrix: Tensor) -> Callable[[Tensor, Tensor], None]:
    def product(v: Tensor, out: Tensor) -> None:
        torch.mv(matrix, v, out=out)

    return product


def whole(part: Part, chunks: int = 1) -> list[Piece]:
    rows = torch.arange(len(part.inputs)).chunk(chunks)
    return [Piece(part, some, len(some)) for some in rows]


def start(net: NetConfig) -> Tensor:
    return Dense(net).pack(initial_state(trial(net), torch.float64).params)


def optimiser(net: NetConfig, curvature: Dense | None = None) -> Callable[..., Outcome]:
    """Outer iterations of the net's."""
    curvature = curvature or Dense(net)
    return partial(HessianFree(net, torch.empty(curvature.size, dtype=torch.float64)).iterate, curvature)


# -- conjugate gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_cg_comes_to_what_a_direct_solve_gives(preconditioned: bool, warm: bool) -> None:
    matrix, g = system(40)
    diagonal = matrix.diagonal() ** 0.75 if preconditioned else None
    begin = torch.linspace(-1, 1, 40, dtype=torch.float64) if warm else None
    last = ConjugateGradients(g).solve(by(matrix), g, begin, diagonal, 400, 1e-30)[-1]
    expected = np.linalg.solve(matrix.numpy(), -g.numpy())
    assert np.allclose(last.x.numpy(), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert last.phi == pytest.approx(g.numpy() @ expected / 2, rel=1e-12)  # phi at the minimum


def test_a_step_of_cg_is_the_best_of_its_krylov_space() -> None:
    matrix, g = system(30)
    m = matrix.diagonal() ** 0.75
    for iterate in ConjugateGradients(g).solve(by(matrix), g, None, m, 12, 1e-30):
        powers = [g / m]
        for _ in range(iterate.step - 1):
            powers.append((matrix @ powers[-1]) / m)
        basis = np.linalg.qr(torch.stack(powers, 1).numpy())[0]
        small = basis.T @ matrix.numpy() @ basis
        expected = basis @ np.linalg.solve(small, -basis.T @ g.numpy())
        assert np.allclose(iterate.x.numpy(), expected, rtol=0, atol=1e-8)
        x = iterate.x.numpy()
        assert iterate.phi == pytest.approx(g.numpy() @ x + x @ matrix.numpy() @ x / 2, rel=1e-12)


def test_kept_steps_are_five_and_on_by_three_tenths() -> None:
    assert kept_steps(250) == [5, 7, 10, 13, 17, 23, 30, 39, 51, 67, 88, 115, 150, 195]
    assert kept_steps(254)[-1] == 254
    assert kept_steps(4) == []
    matrix, g = system(60)
    solver = ConjugateGradients(g)
    assert [each.step for each in solver.solve(by(matrix), g, None, None, 19, 1e-30)] == [5, 7, 10, 13, 17, 19]
    assert [each.step for each in solver.solve(by(matrix), g, None, None, 17, 1e-30)] == [5, 7, 10, 13, 17]
    assert [each.step for each in solver.solve(by(matrix), g, None, None, 19, 1e-30, every=False)] == [19]


def test_cg_stops_where_the_rule_says() -> None:
    matrix, g = system(300, 1e4)
    solver = ConjugateGradients(g)
    # Phi after each step, from runs of that many steps.
    phis = [solver.solve(by(matrix), g, None, None, most, 1e-30, every=False)[-1].phi for most in range(1, 200)]
    for tolerance in (5e-4, 1e-4, 2e-5):
        expected = next(
            i
            for i in range(1, 200)
            if i > (k := max(10, math.ceil(i / 10)))
            and phis[i - 1] < 0
            and (phis[i - 1] - phis[i - k - 1]) / phis[i - 1] < k * tolerance
        )
        assert solver.solve(by(matrix), g, None, None, 250, tolerance)[-1].step == expected
        assert expected > 20
        assert not has_stalled(phis[: expected - 1], tolerance)


def test_the_stop_rule_needs_its_window_and_a_model_that_falls() -> None:
    assert not has_stalled([-1.0] * 10, 5e-4)
    assert has_stalled([-1.0] * 11, 5e-4)
    assert not has_stalled([1.0] * 11, 5e-4)  # a warm start that is still worse than nothing
    assert not has_stalled([-0.99, *[-1.0] * 10], 5e-4)  # .01 in 10 steps is more than .005
    assert has_stalled([-0.996, *[-1.0] * 10], 5e-4)
    window = [-0.99] + [-1.0] * 11  # at 120 steps it is 12 steps long
    assert not has_stalled([-0.5] * 107 + [-0.99] + [-1.0] * 12, 5e-4)
    assert has_stalled([-0.5] * 107 + [-0.995] + [-1.0] * 12, 5e-4)
    assert len(window) == 12


def test_cg_from_the_solution_stays_there() -> None:
    matrix, g = system(20)
    solution = torch.linalg.solve(matrix, -g)
    found = ConjugateGradients(g).solve(by(matrix), g, solution, None, 50, 5e-4)
    assert torch.allclose(found[-1].x, solution, rtol=1e-10)
    zero = ConjugateGradients(g).solve(by(matrix), torch.zeros_like(g), None, None, 50, 5e-4)
    assert [each.step for each in zero] == [0]
    assert not zero[0].x.any()


def test_dot_products_of_float32_add_up_in_float64() -> None:
    a = torch.full((1 << 20,), 0.1)
    a[0] = 3e4
    exact = float(a.double() @ a.double())
    assert float(Dot(a)(a, a)) == pytest.approx(exact, rel=1e-13)
    assert float(Dot(a.double())(a.double(), a.double())) == pytest.approx(exact, rel=1e-13)


# -- damping, line search, steps ---------------------------------------------------------------------------------


def test_the_damping_follows_the_ratio() -> None:
    for rho, factor in (
        (0.24, 1.5), (0.25, 1), (0.5, 1), (0.75, 1), (0.76, 2 / 3), (-math.inf, 1.5), (math.nan, 1.5), (7.0, 2 / 3),
    ):  # fmt: skip
        assert adapted(45.0, rho) == 45.0 * factor


def test_the_damping_stays_what_float32_holds() -> None:
    assert adapted(9e19, -math.inf) == adapted(1e20, math.nan) == 1e20
    assert adapted(1.2e-20, 1.0) == adapted(1e-20, 1.0) == 1e-20
    assert adapted(1e25, 0.0) == 1e25  # one that was told is not lowered by what should raise it
    # A convex objective whose minimum was reached long ago: no step is good, and it stays where it is.
    net = NetConfig((5, 4), (), "softmax")
    narrow, config = data(net, "float32"), HFConfig(damping=1e-2, l2=0.1, chunks=1)
    made = curvature(net, narrow)
    theta = made.pack(initial_state(trial(net), torch.float32).params)
    one, solution, progress = HessianFree(net, theta).iterate, torch.zeros_like(theta), Progress(damping=1e-2)
    for _ in range(300):
        outcome = one(made, theta, solution, progress, config, whole(narrow.train), 0)
        theta, solution, progress = outcome.theta, outcome.solution, outcome.progress
        assert not outcome.diverged
    assert progress.damping == 1e20


def test_armijo_takes_the_longest_step_that_pays() -> None:
    # f = rate^2 - rate/2: the rule asks for rate^2 - rate/2 <= -.01 rate/2, true from rate .495 down.
    asked: list[float] = []

    def f(rate: float) -> float:
        asked.append(rate)
        return rate**2 - rate / 2

    rate, value = line_search(map(f, RATES), 0.0, -0.5)
    assert asked == pytest.approx([1, 0.8, 0.64, 0.512, 0.4096])
    assert rate == pytest.approx(0.4096)
    assert value == f(rate)


def test_sixty_tries_then_nothing() -> None:
    asked: list[float] = []

    def worse(rate: float) -> float:
        asked.append(rate)
        return 2.0 if rate < 0.5 else math.nan

    assert line_search(map(worse, RATES), 1.0, -1.0) == (0.0, 1.0)
    assert len(asked) == 60
    assert asked[-1] == pytest.approx(0.8**59)
    assert line_search((1 + rate for rate in RATES), 1.0, 500.0)[0] == 0  # uphill: it may not rise all the same


def test_steps_shrink_by_the_schedule_of_s13() -> None:
    assert step_size(HFConfig(step=0.7), 900) == 0.7
    schedule = HFConfig(step_decay=500, step_from=4000)
    assert [step_size(schedule, t) for t in (1, 4000, 4001, 4500, 5000, 9000)] == [1, 1, 1, 1, 0.5, 0.1]


# -- outer iterations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioner", [0.0, 0.75])
@pytest.mark.parametrize("chunks", [1, 3])
def test_a_quadratic_is_done_in_one_outer_iteration(preconditioner: float, chunks: int) -> None:
    part = data(LINEAR).train
    theta = start(LINEAR)
    config = replace(EXACT, preconditioner=preconditioner)
    # Chunks of equal examples: each has the curvature of all.
    doubled = Part(part.inputs.repeat(chunks, 1), part.targets.repeat(chunks, 1), None)
    one = optimiser(LINEAR)
    found = one(theta, torch.zeros_like(theta), Progress(damping=1e-12), config, whole(doubled, chunks), 0)
    ones = np.ones((len(part.inputs), 1))
    w, residual, *_ = np.linalg.lstsq(np.hstack([part.inputs.numpy(), ones]), part.targets.numpy(), rcond=None)
    weights, biases = Dense(LINEAR).unpack(found.theta)[0]
    assert np.allclose(weights.numpy(), w[:-1], rtol=0, atol=1e-8)
    assert np.allclose(biases.numpy(), w[-1], rtol=0, atol=1e-8)
    assert found.progress.objective == pytest.approx(residual.sum() / len(ones), rel=1e-10)
    assert found.progress.damping == pytest.approx(1e-12 * 2 / 3)  # what was foretold came about
    assert found.progress.rejected == 0
    again = one(found.theta, found.solution, found.progress, config, whole(doubled, chunks), 0)
    assert again.progress.objective == pytest.approx(found.progress.objective, rel=1e-12)


def test_l2_is_part_of_the_objective_and_of_its_curvature() -> None:
    part = data(LINEAR).train
    theta = start(LINEAR)
    config = replace(EXACT, l2=0.3)
    found = optimiser(LINEAR)(theta, torch.zeros_like(theta), Progress(damping=1e-12), config, whole(part), 0)
    x = np.hstack([part.inputs.numpy(), np.ones((len(part.inputs), 1))])
    expected = np.linalg.solve(x.T @ x / len(x) + 0.15 * np.eye(6), x.T @ part.targets.numpy() / len(x))
    weights, biases = Dense(LINEAR).unpack(found.theta)[0]
    assert np.allclose(np.vstack([weights.numpy(), biases.numpy()]), expected, rtol=0, atol=1e-8)
    cost = ((x @ expected - part.targets.numpy()) ** 2).sum() / len(x) + 0.15 * (expected**2).sum()
    assert found.progress.objective == pytest.approx(cost, rel=1e-10)


# Rounding grows with CG's steps, fast where the damping is small: few of them there, to the stop rule with 2.
CONFIGS = {
    "classical": HFConfig(damping=2.0, chunks=3, l2=1e-3),
    "bare": HFConfig(damping=0.5, chunks=1, preconditioner=0.0, cg_decay=0.0, cg_max=7),
    "rough": HFConfig(damping=0.02, chunks=3, l2=0.0, cg_max=6),
    "chunk": HFConfig(damping=2.0, chunks=3, gradient="chunk", cg_tolerance=1e-4),
    "momentum": HFConfig(
        damping=0.3, chunks=3, gradient="chunk", line_search=False, cg_max=6, step_decay=1.2, step_from=1
    ),
    "still": HFConfig(damping=2.0, chunks=2, line_search=False, adapt=False, step=0.4, cg_decay=0.5),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("net", [AUTOENCODER, NETS["mlp-tanh"], NETS["squared-sigmoid"]], ids=lambda net: net.loss)
def test_each_outer_iteration_equals_the_twins(name: str, net: NetConfig) -> None:
    config, part, theta = CONFIGS[name], data(net, examples=25).train, start(net)
    twin, one = Twin(net, theta, config.damping), optimiser(net)
    solution, progress = torch.zeros_like(theta), Progress(damping=config.damping)
    pieces = whole(part, config.chunks)
    for iteration in range(4):
        target = iteration % config.chunks
        some, at = (pieces, target) if config.gradient == "full" else ([pieces[target]], 0)
        found = one(theta, solution, progress, config, some, at)
        before = twin.theta
        twin.iterate(config, some, at)
        assert found.progress.cg_steps - progress.cg_steps == twin.notes["steps"]
        assert found.progress.damping == pytest.approx(twin.damping, rel=1e-12)
        for mine, its in ((found.theta, twin.theta), (found.solution, twin.solution)):
            assert np.abs(mine.numpy() - its).max() < 1e-10 * np.abs(its).max()
        judged = some if config.line_search else [some[at]]
        assert found.progress.objective == pytest.approx(twin.objective(twin.theta, judged, config.l2), rel=1e-11)
        assert found.objective == pytest.approx(twin.objective(before, some, config.l2), rel=1e-12)
        theta, solution, progress = found.theta, found.solution, found.progress
        twin.theta, twin.solution = theta.numpy().copy(), solution.numpy().copy()  # rounding starts anew
    assert progress.iterations == 4


def test_the_twins_cases_meet_every_turn_an_iteration_can_take() -> None:
    net = AUTOENCODER
    part, seen = data(net, examples=25).train, []
    for name in ("classical", "rough"):
        config, twin = CONFIGS[name], Twin(net, start(net), CONFIGS[name].damping)
        for iteration in range(4):
            twin.iterate(config, whole(part, config.chunks), iteration % config.chunks)
            seen.append(dict(twin.notes))
    assert any(each["taken"] < each["steps"] for each in seen)
    assert any(each["taken"] == each["steps"] for each in seen)
    assert any(each["tried"] > 0 for each in seen)
    assert any(each["rho"] < 0.25 for each in seen)
    assert any(each["rho"] > 0.75 for each in seen)


class Counting(Dense):
    """Says what was asked of it, and of how many examples."""

    def __init__(self, net: NetConfig) -> None:
        super().__init__(net)
        self.asked: dict[str, int] = dict.fromkeys(("at", "gradient", "squares", "product", "loss"), 0)
        self._examples = 0

    def at(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:
        self._examples = len(part.inputs[rows])
        self.asked["at"] += self._examples
        return super().at(theta, part, rows)

    def gradient(self, out: Tensor) -> None:
        self.asked["gradient"] += self._examples
        super().gradient(out)

    def squares(self, out: Tensor) -> None:
        self.asked["squares"] += self._examples
        super().squares(out)

    def product(self, v: Tensor, out: Tensor, structural: float = 0.0) -> None:
        self.asked["product"] += self._examples
        super().product(v, out)

    def loss(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:
        self.asked["loss"] += len(part.inputs[rows])
        return super().loss(theta, part, rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_work_is_what_was_asked_of_the_curvature(name: str) -> None:
    net, config = NETS["mlp-tanh"], CONFIGS[name]
    theta, counting = start(net), Counting(net)
    one = optimiser(net, counting)
    pieces = whole(data(net, examples=31).train, config.chunks)
    some = pieces if config.gradient == "full" else pieces[:1]
    first = one(theta, torch.zeros_like(theta), Progress(damping=config.damping), config, some, 0)
    found = one(first.theta, first.solution, first.progress, config, some, 0)
    asked = counting.asked
    # A gradient, its forward pass included, is 1; so are squares.
    assert asked["at"] == asked["gradient"] == 2 * sum(piece.count for piece in some)
    assert asked["squares"] == (2 * some[0].count if config.preconditioner else 0)
    warm = config.cg_decay > 0  # the second time CG starts from somewhere
    assert asked["product"] == some[0].count * (found.progress.cg_steps + warm)
    assert found.progress.products == found.progress.cg_steps + warm
    expected = asked["gradient"] + asked["squares"]
    expected += asked["product"] * net.product_cost + asked["loss"] * net.forward_cost
    assert found.progress.work == pytest.approx(expected, rel=1e-12)
    if not config.line_search:
        assert asked["loss"] == 2 * some[0].count * (2 if config.adapt and config.step != 1 else 1)


def test_structural_damping_is_weighed_by_the_damping_and_no_part_of_the_model() -> None:
    asked: list[float] = []

    class Structural(Dense):
        def product(self, v: Tensor, out: Tensor, structural: float = 0.0) -> None:
            asked.append(structural)
            super().product(v, out)
            out.add_(v, alpha=3 * structural)

    net = NETS["mlp-tanh"]
    theta, pieces = start(net), whole(data(net, examples=31).train)
    config = HFConfig(damping=0.2, structural=0.5, chunks=1, cg_max=20)
    begin = torch.zeros_like(theta), Progress(damping=0.2)
    found = optimiser(net, Structural(net))(theta, *begin, config, pieces, 0)
    assert set(asked[:-1]) == {0.1}
    assert asked[-1] == 0.0  # the change that the undamped model foretold
    # Here it is 3 * structural * damping times the identity: a larger damping of CG. Rho does not know of either.
    plain = replace(config, structural=0.0, damping=0.5, preconditioner=0.0)
    same = optimiser(net, Structural(net))(theta, begin[0], Progress(damping=0.5), plain, pieces, 0)
    bare = replace(config, preconditioner=0.0)
    other = optimiser(net, Structural(net))(theta, *begin, bare, pieces, 0)
    assert torch.allclose(other.theta, same.theta, rtol=1e-9)
    assert other.progress.damping / 0.2 == pytest.approx(same.progress.damping / 0.5)
    assert found.progress.objective < found.objective


def test_an_iteration_that_costs_too_much_is_left() -> None:
    net, config = NETS["mlp-tanh"], CONFIGS["classical"]
    theta, pieces = start(net), whole(data(net, examples=31).train, 3)
    one, begin = optimiser(net), Progress(damping=0.5)
    cost = one(theta, torch.zeros_like(theta), begin, config, pieces, 0).progress.work
    with pytest.raises(OverBudget):
        one(theta, torch.zeros_like(theta), begin, config, pieces, 0, cost - 1e-6)
    assert one(theta, torch.zeros_like(theta), begin, config, pieces, 0, cost).progress.work == cost


def test_what_is_not_finite_is_said() -> None:
    net = NETS["squared-sigmoid"]
    theta, pieces = start(net), whole(data(net, examples=31).train)
    still, begin = torch.zeros_like(theta), Progress(damping=1.0)
    one = optimiser(net)
    broken = theta.clone()
    broken[0] = math.nan
    assert one(broken, still, begin, CONFIGS["bare"], pieces, 0).lost
    config = replace(CONFIGS["bare"], line_search=False, step=1e300)
    assert one(theta, still, begin, config, pieces, 0).diverged
    found = one(theta, still, begin, replace(config, step=1.0), pieces, 0)
    assert not found.diverged
    assert not found.lost
    # A warm start that is no number is tried in vain, and forgotten.
    lost = one(theta, torch.full_like(theta, math.nan), begin, CONFIGS["classical"], pieces, 0)
    assert torch.equal(lost.theta, theta)
    assert lost.progress.rejected == 1
    assert lost.progress.damping == 1.5
    assert not lost.solution.any()
