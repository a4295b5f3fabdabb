"""A sweep folder as notebooks see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import history as histories
from sweeps.stages import SEARCH

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.comparison import Comparison
    from sweeps.spec import SweepSpec


class Sweep:
    """A finished, running or interrupted sweep, read afresh from its folder at each access.

    Raises:
        FileNotFoundError: the folder holds no sweep.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "spec.json").is_file():
            raise FileNotFoundError(f"{self.folder}: no sweep here (no spec.json)")

    def __repr__(self) -> str:
        return f"Sweep({str(self.folder)!r})"

    @property
    def spec(self) -> SweepSpec:
        """The resolved spec."""
        from sweeps.folder import read_spec

        return read_spec(self.folder)

    @property
    def history(self) -> histories.History:
        """Everything the journal says."""
        return histories.load(self.folder)

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trial, columns as in trials.parquet."""
        from sweeps import store

        frame: pd.DataFrame = store.trials_table(self.history).to_pandas()
        return frame

    @property
    def rows(self) -> pd.DataFrame:
        """A row per measurement: trial_id, update, metric, value."""
        from sweeps import store

        frame: pd.DataFrame = store.rows_table(self.history).to_pandas()
        return frame

    @classmethod
    def run(cls, spec: SweepSpec, out: Path | None = None) -> Sweep:
        """Run a new sweep to its end."""
        from sweeps.run import run

        return cls(run(spec, out))

    def best(self, n: int = 1) -> pd.DataFrame:
        """The `n` best complete trials of the search, best first: only these were trained to the full budget.

        Being the best of many they are lucky too: what confirmed trials came to is in `trials`, by `stage`.
        """
        trials: Any = self.trials
        complete = trials[(trials["stage"] == SEARCH) & (trials["state"] == "complete") & trials["objective"].notna()]
        ordered = complete.sort_values(["objective", "number"], ascending=[self.spec.mode == "min", True])
        frame: pd.DataFrame = ordered.head(n).reset_index(drop=True)
        return frame

    def compare(self, against: str | Path | None = None, *others: str | Path) -> Comparison:
        """Its confirmed points against a baseline, or with `others` the best points of several sweeps.

        Raises:
            NothingToCompare: nothing was confirmed, or there is no such baseline.
        """
        from sweeps.compared import compare

        return compare(self.folder, against, [Path(other) for other in others])

    def resume(self) -> Sweep:
        """Go on with what is unfinished, and wait for it."""
        from sweeps.run import resume

        resume(self.folder)
        return self

    def extend(self, n: int) -> Sweep:
        """Add `n` trials to the budget, run them, and wait for them."""
        from sweeps.run import extend

        extend(self.folder, n)
        return self
