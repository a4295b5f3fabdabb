"""GB10 section 5's reference: a kernel machine against a deep net on the same finite Shapeset examples."""

from __future__ import annotations

from typing import Any

from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.evaluate import evaluate
from trainers.group import Group
from trainers.tasks import load


def svm_on_shapeset(
    size: int = 32,
    examples: int = 100_000,
    width: int = 1000,
    updates: int = 100_000,
    costs: tuple[float, ...] = (1.0, 10.0, 100.0),
    gammas: tuple[float, ...] = (0.3, 1.0, 3.0),
    lrs: tuple[float, ...] = (0.1, 0.03),
) -> dict[str, Any]:
    """Train an RBF-SVM and a depth-5 tanh net with normalized init on the same examples; test errors, read once.

    Cost and gamma (times 1 / (inputs * variance)) of the SVM, lr and moment of stopping of the net are chosen on the
    valid part.
    """
    from sklearn.svm import SVC

    task = load("shapeset", {"size": size, "examples": examples})
    best: tuple[float, Any] = (2.0, None)
    scale = 1 / (task.train.inputs.shape[1] * float(task.train.inputs.var()))
    valid, test = task.valid, task.test
    for cost in costs:
        for gamma in gammas:
            machine = SVC(C=cost, gamma=gamma * scale, cache_size=1000)
            machine.fit(task.train.inputs, task.train.targets)
            error = float((machine.predict(valid.inputs[:2000]) != valid.targets[:2000]).mean())
            best = min(best, (error, machine), key=lambda pair: pair[0])
    svm_error = float((best[1].predict(test.inputs) != test.targets).mean())
    return {"examples": examples, "svm_error": svm_error, "svm": {"C": best[1].C, "gamma": best[1].gamma},
            **_net(task, width, updates, lrs)}  # fmt: skip


def _net(task: Any, width: int, updates: int, lrs: tuple[float, ...]) -> dict[str, Any]:
    net = NetConfig((task.info.inputs, *[width] * 5, task.info.outputs), ("tanh",) * 5, "softmax")
    group = Group(task, "loop", eval_examples=2000)
    for number, lr in enumerate(lrs):
        method = MethodConfig("sgd", lr)
        group.add(TrialConfig(number, net, InitConfig("normalized"), method, updates, 10, SeedConfig(0, "figure")))
    best: tuple[float, Any, float] = (2.0, None, 0.0)
    for until in range(updates // 20, updates + 1, updates // 20):
        group.advance(dict.fromkeys(group.numbers(), until))
        for number, values in group.evaluate(group.numbers()).items():
            if values["valid_error"] < best[0]:
                best = (values["valid_error"], group.state(number), lrs[number])
    return {
        "net_error": evaluate(task, net, best[1].params, task.test)["error"],
        "lr": best[2],
        "stopped_at": best[1].update,
    }
