"""All cases by number, in order, with the title of each and how its fault is injected."""

from tests.chaos import (  # noqa: F401 - they enter themselves
    cases_cluster,
    cases_database,
    cases_folder,
    cases_mlflow,
    cases_network,
    cases_process,
    cases_storage,
)  # fmt: skip
from tests.chaos.bench import CASES


def order(number: str) -> tuple[bool, int, str]:
    """The numbered cases first, by number, then the others."""
    digits = "".join(c for c in number if c.isdigit())
    return not number[0].isdigit(), int(digits or 0), number


TITLES = {number: CASES[number][:2] for number in sorted(CASES, key=order)}
