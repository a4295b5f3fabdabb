"""S13 Fig. 2 and Theorem 2.1 on quadratics."""

import numpy as np

from trainers.figures.quadratic import oblong, path, twin_path


def test_one_dimension_by_hand() -> None:
    steep = np.array([2.0])
    # v1 = -0.1*2*1 = -.2, x1 = .8; cm: v2 = .5*-.2 - .1*2*.8 = -.26; nag looks from .8 - .1 = .7: v2 = -.1 - .14 = -.24
    assert np.allclose(path("cm", steep, np.ones(1), 0.1, 0.5, 2).ravel(), [1, 0.8, 0.54], atol=1e-15)
    assert np.allclose(path("nag", steep, np.ones(1), 0.1, 0.5, 2).ravel(), [1, 0.8, 0.56], atol=1e-15)
    assert np.allclose(path("sgd", steep, np.ones(1), 0.1, 0.5, 2).ravel(), [1, 0.8, 0.64], atol=1e-15)


def test_theorem_2_1_in_many_dimensions() -> None:
    rng = np.random.default_rng(3)
    curvatures, start = rng.uniform(0.1, 10, 20), rng.standard_normal(20)
    ours = path("nag", curvatures, start, 0.05, 0.95, 200)
    assert np.abs(ours - twin_path(curvatures, start, 0.05, 0.95, 200)).max() < 1e-12


def test_momentum_gains_and_only_cm_swings() -> None:
    found = oblong()
    swing, values = found["swing"], {method: each[-1] for method, each in found["values"].items()}
    assert swing["cm"] > 5 * swing["nag"]
    assert values["nag"] < values["cm"] < values["sgd"]


def test_stability_limits() -> None:
    """CM is stable below 2(1 + mu) / curvature, NAG below 2(1 + mu) / (1 + 2 mu) (SCIENCE 1.2)."""
    one, mu = np.ones(1), 0.9
    for method, limit in (("cm", 2 * (1 + mu)), ("nag", 2 * (1 + mu) / (1 + 2 * mu))):
        inside = path(method, one, one, 0.98 * limit, mu, 2000)[-1, 0]
        outside = path(method, one, one, 1.02 * limit, mu, 2000)[-1, 0]
        assert abs(inside) < 1e-6
        assert abs(outside) > 1e6
