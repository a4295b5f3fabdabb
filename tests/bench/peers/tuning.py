"""What both Ray Tune peers share: the space, the search, the stopping rule, and where times are taken."""

from typing import Any

import problem
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

CONCURRENT = 2


class TimedSearch(OptunaSearch):
    """OptunaSearch that notes when it is first asked."""

    clock: problem.Clock

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        self.clock.ask()
        return super().suggest(trial_id)


class TimedEnds(tune.Callback):
    """Notes when a trial's end is known; put last, so that whatever stores results has stored it."""

    def __init__(self, clock: problem.Clock) -> None:
        self._clock = clock

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._clock.tell(trial.trial_id, trial.last_result)


def config(clock: problem.Clock, trials: int, reuse: bool | None) -> tune.TuneConfig:
    """TPE over the five parameters, stopped by ASHA after reports 1 and 3 of 9."""
    from optuna.samplers import TPESampler

    space = {
        "lr": tune.loguniform(*problem.LR),
        "one_minus_mu": tune.loguniform(*problem.ONE_MINUS_MU),
        "method": tune.choice(problem.METHODS),
        "init": tune.choice(problem.INITS),
        "depth": tune.choice(problem.DEPTHS),
    }
    search = TimedSearch(space=space, metric=problem.OBJECTIVE, mode="min", sampler=TPESampler(seed=1))
    search.clock = clock
    scheduler = ASHAScheduler(grace_period=1, reduction_factor=problem.FACTOR, max_t=problem.REPORTS)
    return tune.TuneConfig(
        search_alg=search,
        scheduler=scheduler,
        metric=problem.OBJECTIVE,
        mode="min",
        num_samples=trials,
        max_concurrent_trials=CONCURRENT,
        **({} if reuse is None else {"reuse_actors": reuse}),
    )
