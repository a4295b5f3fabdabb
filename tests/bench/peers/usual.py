"""The usual way, as guides show it: Ray Tune function trainable, OptunaSearch, ASHA, MLflowLoggerCallback on SQLite."""

import tempfile
from pathlib import Path
from typing import Any

import problem


def train(config: dict[str, Any]) -> None:
    """One trial."""
    import problem
    import torch
    from ray import tune

    torch.set_num_threads(1)
    training = problem.Training(config, problem.load())
    while not training.done:
        tune.report(training.to_next_report())


def main() -> None:
    """Run and time it."""
    arguments = problem.arguments(trials=32)
    clock = problem.Clock()
    import logging

    import ray
    import tuning
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    with tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=tuning.CONCURRENT, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        mlflow = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="digits")
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            tune_config=tuning.config(clock, arguments.trials, reuse=None),
            run_config=tune.RunConfig(
                storage_path=str(Path(folder) / "ray"), callbacks=[mlflow, tuning.TimedEnds(clock)], verbose=0
            ),
        )
        tuner.fit()
        result = clock.result()
        ray.shutdown()
    problem.hand_over(result, arguments.json)


if __name__ == "__main__":
    main()
