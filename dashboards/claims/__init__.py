"""What the papers claim, each claim judged from a stored result and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.claims import gb10, hr18, s13, s13_race
from dashboards.verdicts import Claim

CLAIMS: Mapping[str, tuple[Claim, ...]] = {**s13.CLAIMS, **s13_race.CLAIMS, **gb10.CLAIMS, **hr18.CLAIMS}
"""The claims of each experiment, in the order of its paper."""
