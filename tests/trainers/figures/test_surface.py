"""GB10 Fig. 5."""

import numpy as np

from trainers.figures.surface import cost_surface, costs, plateau


def test_costs_at_known_weights() -> None:
    zero = np.zeros(1)
    entropy, quadratic = costs(zero, np.ones(1), np.array([1.0, -1.0]), np.array([0.0, 1.0]))
    assert np.isclose(entropy[0, 0], np.log(2))  # whatever the target: the output is 1/2
    assert np.isclose(quadratic[0, 0], 0.25)
    weight = np.array([2.0])
    z = 2 * np.tanh(2.0)
    entropy, quadratic = costs(weight, weight, np.ones(1), np.ones(1))
    assert np.isclose(entropy[0, 0], np.log1p(np.exp(-z)))
    assert np.isclose(quadratic[0, 0], (1 / (1 + np.exp(z))) ** 2)


def test_plateau_of_a_ramp_and_of_a_step() -> None:
    x = np.linspace(0, 1, 101)
    assert plateau(np.add.outer(x, 0 * x), x[1]) == 0
    assert plateau(np.add.outer(np.where(x < 0.5, 0.0, 1.0), 0 * x), x[1]) > 0.95


def test_quadratic_cost_has_more_plateau() -> None:
    found = cost_surface(seeds=5)["plateau_share"]
    assert all(q > c for q, c in zip(found["quadratic"], found["cross_entropy"], strict=True))
