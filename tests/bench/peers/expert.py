"""An expert's way: Ray Tune class trainable, reused actors, default loggers off, fused SGD, no MLflow."""

import os
import tempfile
from pathlib import Path
from typing import Any

import problem


def trainable() -> type:
    """The class, made late so that imports count as start-up."""
    import torch
    from ray import tune

    class Trial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            torch.set_num_threads(1)
            self.data = problem.load()
            self.training = problem.Training(config, self.data, fused=True)

        def step(self) -> dict[str, Any]:
            metrics = self.training.to_next_report()
            return {**metrics, "done": self.training.done}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.training = problem.Training(new_config, self.data, fused=True)
            return True

    return Trial


def main() -> None:
    """Run and time it."""
    arguments = problem.arguments(trials=128)
    clock = problem.Clock()
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import logging

    import ray
    import tuning
    from ray import tune

    with tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=tuning.CONCURRENT, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        tuner = tune.Tuner(
            tune.with_resources(trainable(), {"cpu": 1}),
            tune_config=tuning.config(clock, arguments.trials, reuse=True),
            run_config=tune.RunConfig(
                storage_path=str(Path(folder) / "ray"),
                callbacks=[tuning.TimedEnds(clock)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()
        result = clock.result()
        ray.shutdown()
    problem.hand_over(result, arguments.json)


if __name__ == "__main__":
    main()
