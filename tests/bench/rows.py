"""Results a second that the board takes, beside Ray Tune. A result: one report of one trial, 4 metrics."""

import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import sweep

SLOTS, METRICS = 64, ("train_loss", "train_error", "valid_loss", "valid_error")
TUNE_TRIALS, TUNE_RESULTS = 4, 250


def _spec(rounds: int) -> Any:
    """A sweep of one group that reports after every update and stops nobody."""
    from sweeps.spec import SweepSpec

    training = {"updates": rounds, "reports": rounds}
    spec = sweep.with_trials(SLOTS, training=training)
    spec = {**spec, "early_stopping": None, "search": {"algorithm": "random", "seed": 1}, "mlflow": {"enabled": False}}
    return SweepSpec.model_validate(spec)


def _entries(update: int) -> list[Any]:
    from sweeps.board import Entry

    values = dict.fromkeys(METRICS, 1.2345678 / update)
    return [Entry(number, update, values, values["valid_loss"], 1e-3) for number in range(SLOTS)]


def board_alone(rounds: int) -> tuple[float, float]:
    """Results per second of `Board.report` in this process, every round fsynced; and seconds to write their rows."""
    from sweeps.board import Board
    from sweeps.history import load
    from sweeps.store import RowWriter

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        board = Board(folder, _spec(rounds), groups=1, slots=SLOTS)
        incarnation = board.attach(0).incarnation
        rounds_of_entries = [_entries(update) for update in range(1, rounds + 1)]
        began = time.perf_counter()
        for entries in rounds_of_entries:
            board.report(0, incarnation, "stacked", entries)
        seconds = time.perf_counter() - began
        board.close("finished")
        told = load(folder)
        began = time.perf_counter()
        RowWriter(folder, told).close()
        return rounds * SLOTS / seconds, rounds * SLOTS * len(METRICS) / (time.perf_counter() - began)


def board_actor(rounds: int) -> float:
    """Results per second through the Ray actor, one group's call at a time, as a worker calls it."""
    import ray

    from sweeps.board_actor import BoardActor
    from sweeps.lease import Lease

    with tempfile.TemporaryDirectory() as folder, Lease(Path(folder)) as lease:
        spec = _spec(rounds).model_dump(mode="json")
        board = BoardActor.remote(folder, spec, 1, SLOTS, lease.epoch, 0)
        ray.get(board.ready.remote())
        incarnation = ray.get(board.attach.remote(0)).incarnation
        rounds_of_entries = [_entries(update) for update in range(1, rounds + 1)]
        began = time.perf_counter()
        for entries in rounds_of_entries:
            ray.get(board.report.remote(0, incarnation, "stacked", entries))
        seconds = time.perf_counter() - began
        ray.get(board.close.remote("finished"))
        ray.kill(board)
    return rounds * SLOTS / seconds


def tune_itself(loggers: bool) -> float:
    """Results per second of Ray Tune: class trainable that does nothing, 2 at a time, from first to last result."""
    from ray import tune

    class Trivial(tune.Trainable):
        def step(self) -> dict[str, Any]:
            values = dict.fromkeys(METRICS, 1.2345678 / (self.iteration + 1))
            return {**values, "done": self.iteration + 1 >= TUNE_RESULTS}

    class Times(tune.Callback):
        seen: list[float] = []  # noqa: RUF012 - one object, read below

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            self.seen.append(time.perf_counter())

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0" if loggers else "1"
    with tempfile.TemporaryDirectory() as folder:
        no_checkpoints = tune.CheckpointConfig(checkpoint_at_end=False)
        run_config = tune.RunConfig(
            storage_path=folder, callbacks=[Times()], checkpoint_config=no_checkpoints, verbose=0
        )
        tune_config = tune.TuneConfig(num_samples=TUNE_TRIALS, reuse_actors=True)
        tune.Tuner(tune.with_resources(Trivial, {"cpu": 1}), tune_config=tune_config, run_config=run_config).fit()
    seen = Times.seen
    return (len(seen) - 1) / (seen[-1] - seen[0])


def measure(rounds: int = 500) -> dict[str, Any]:
    """Results per second of each, one after the other; the ratio is to Tune at its best, without loggers."""
    import ray

    alone, parquet = board_alone(rounds)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        actor = board_actor(rounds)
        bare, logged = tune_itself(loggers=False), tune_itself(loggers=True)
    finally:
        ray.shutdown()
    return {
        "ratio_to_tune": actor / bare,
        "board_actor": actor,
        "board_in_process": alone,
        "tune_without_loggers": bare,
        "tune_with_loggers": logged,
        "metric_values_per_result": len(METRICS),
        "parquet_metric_values_per_second": parquet,
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
