"""GB10 and HR18 at init, on nets small enough for a test."""

import math

import pytest

from trainers.figures.at_init import gradients, lengths, residual_lengths


def test_lengths_follow_kappa() -> None:
    rates = lengths(depth=8, width=60, seeds=100)["rate_per_layer"]
    for kappa, rate in rates.items():
        assert rate == pytest.approx(math.log(float(kappa) / 2), abs=0.05)


def test_residual_lengths_explode_only_at_eta_one() -> None:
    growth = residual_lengths(modules=30, seeds=100)["growth_of_last_half"]
    assert growth["1"] > 100
    assert growth["0.5"] == pytest.approx(1, abs=0.01)  # b^16 and on add nothing
    assert growth["0.9"] < 10


@pytest.mark.usefixtures("data_folder")
def test_gradients_shrink_under_standard_init_only() -> None:
    found = gradients(width=60, depth=4, examples=100, seeds=2)
    shrink = found["gradient_sd_first_over_last"]
    assert max(shrink["standard"]) < 0.4 < min(shrink["normalized"])
    for found_on in found["jacobian_mean_singular_value"].values():
        assert found_on["standard"] < 0.49 < found_on["normalized"] < 0.85
