"""What tests of the MLflow copy share: a mirror's life, what MLflow then holds, and a client that fails on demand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps import tracked, tracking


class Found:
    """What MLflow holds."""

    def __init__(self, storage: Path) -> None:
        self.client = tracking.connect(f"sqlite:///{storage / 'mlflow.db'}")
        experiment = self.client.get_experiment_by_name("told")
        runs = list(self.client.search_runs([experiment.experiment_id])) if experiment else []
        parents = [run for run in runs if tracked.PARENT not in run.data.tags]
        assert len(parents) <= 1
        self.parent = parents[0] if parents else None
        self.runs = [run for run in runs if tracked.PARENT in run.data.tags]
        self.children = {run.info.run_name: run for run in self.runs}

    def points(self, trial: str) -> list[tuple[str, int, float, int]]:
        """(name, update, value, time) of all that was logged of a trial."""
        run = self.children[trial]
        return sorted(
            (point.key, point.step, "nan" if math.isnan(point.value) else point.value, point.timestamp)
            for name in run.data.metrics
            for point in self.client.get_metric_history(run.info.run_id, name)
        )


def mirror(folder: Path, connect: Callable[[str], Any] = tracking.connect, timeout: float = 150.0) -> bool:
    """One life of a mirror."""
    follower = tracking.Mirror(folder, connect=connect)
    follower.start()
    try:
        done = follower.drain(timeout)
        print(follower.status())  # seen where a test fails
        return done
    finally:
        follower.stop()


class Faulty:
    """A client that consults `before` and `after` with the name of each request that writes."""

    WRITES = (
        "create_run", "write", "set_terminated", "update_run", "log_text", "log_artifact", "create_experiment",
        "delete_tag",
    )  # fmt: skip

    def __init__(self, client: Any, before: Callable[[str], None], after: Callable[[str], None]) -> None:
        self._client, self._before, self._after = client, before, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in self.WRITES:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._before(name)
            result = method(*args, **kwargs)
            self._after(name)
            return result

        return call


def nothing(name: str) -> None:
    pass
