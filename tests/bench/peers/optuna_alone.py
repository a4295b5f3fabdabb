"""Optuna alone: one process, one thread, TPE and its successive-halving pruner, study in memory."""

import problem


def main() -> None:
    """Run and time it."""
    arguments = problem.arguments(trials=128)
    clock = problem.Clock()
    import optuna
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = problem.load()

    def objective(trial: optuna.Trial) -> float:
        config = {
            "lr": trial.suggest_float("lr", *problem.LR, log=True),
            "one_minus_mu": trial.suggest_float("one_minus_mu", *problem.ONE_MINUS_MU, log=True),
            "method": trial.suggest_categorical("method", problem.METHODS),
            "init": trial.suggest_categorical("init", problem.INITS),
            "depth": trial.suggest_categorical("depth", problem.DEPTHS),
        }
        training = problem.Training(config, data)
        for report in range(1, problem.REPORTS + 1):
            metrics = training.to_next_report()
            trial.report(metrics[problem.OBJECTIVE], report)
            if not training.done and trial.should_prune():
                clock.tell(str(trial.number), metrics)
                raise optuna.TrialPruned
        clock.tell(str(trial.number), metrics)
        return metrics[problem.OBJECTIVE]

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=1),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=problem.FACTOR),
    )
    clock.ask()
    study.optimize(objective, n_trials=arguments.trials, n_jobs=1)
    problem.hand_over(clock.result(), arguments.json)


if __name__ == "__main__":
    main()
