"""A sweep and its trials in MLflow's terms: params, metrics, tags and end states, as plain values.

Everything here is a function of the journal and the spec, times included, so writing it twice changes nothing.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from sweeps import journal
from sweeps.cost import Devices
from sweeps.history import History, Trial

SWEEP_ID = "musweep.sweep_id"
OPENED_AT = "musweep.opened_at"
TRIAL_UID = "musweep.trial_uid"
PARENT = "mlflow.parentRunId"

_HUGE = sys.float_info.max
_SECRET = re.compile(r"(://[^:/@\s]*):[^/\s]*@")
_ENDS = {"finished": "FINISHED", "budget": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


def redact(text: str) -> str:
    """A text without the passwords of the URIs in it."""
    return _SECRET.sub(r"\1:***@", text)


def millis(seconds: float) -> int:
    """MLflow's unit of time."""
    return round(seconds * 1000)


def trial_uid(sweep_id: str, trial: Trial) -> str:
    """The name of a trial among all trials of all sweeps, `SWEEP/t00012/search/0`."""
    return f"{sweep_id}/{trial.id}/{trial.stage}/{trial.replicate}"


def trial_status(trial: Trial) -> str:
    """The MLflow end state of an ended trial; a diverged or stopped one is a result."""
    return "FAILED" if trial.state == "failed" else "FINISHED"


def sweep_status(history: History) -> str:
    """The MLflow state of the parent run by why the last driver left."""
    return "RUNNING" if history.closed is None else _ENDS.get(history.closed, "FAILED")


def trial_params(trial: Trial) -> dict[str, str]:
    """Searched values, and of the rest of the config what has an effect on this trial."""
    config = trial.config
    params = {"updates": config["updates"]}
    params |= _nets(config) if "net" in config else {"trainer": config["trainer"]}
    params |= {f"seed.{name}": value for name, value in config["seed"].items()}
    params |= trial.params
    if isinstance(params.get("mu_max"), int | float):
        params["one_minus_mu_max"] = f"{1 - params['mu_max']:.12g}"
    return {name: str(value) for name, value in params.items()}


def _nets(config: Mapping[str, Any]) -> dict[str, Any]:
    """What has an effect on a net trained by musweep's own methods."""
    net, init, method = config["net"], config["init"], config["method"]
    params: dict[str, Any] = {"batch": config["batch"]}
    if own := net.get("module"):
        params |= {"model": own, "loss": net["loss"]} | {f"model.{k}": v for k, v in json.loads(net["options"]).items()}
        return params | _method(method)
    params |= {"widths": "-".join(map(str, net["widths"])), "activations": "-".join(net["hidden"]), "loss": net["loss"]}
    params |= {"init": init["kind"], "init_scale": init["scale"]}
    if init["kind"] == "sparse":
        params["fan_in"] = init["fan_in"]
    return params | _method(method)


def _method(method: Mapping[str, Any]) -> dict[str, Any]:
    """What a method is told, and nothing that it does not heed."""
    kind = method["kind"]
    if kind == "hf":
        told = {f"hf_{name}": value for name, value in method["hf"].items() if name != "phases"}
        phases = method["hf"].get("phases")
        return {"method": kind, **told} | ({"hf_phases": len(phases)} if phases else {})
    params = {"method": kind, "lr": method["lr"]}
    if kind in ("cm", "nag"):
        params |= {"mu_max": method["mu_max"], "mu_step": method["mu_step"]}
        if method["tail_updates"]:
            params |= {"tail_updates": method["tail_updates"], "tail_mu": method["tail_mu"]}
    return params


def identity(history: History) -> dict[str, str]:
    """The tags of all runs of a sweep and of no other: folders can be named alike, but not opened at one instant."""
    return {SWEEP_ID: history.sweep_id, OPENED_AT: f"{history.opened_at or 0.0:.6f}"}


def role(stage: str) -> str:
    """What a stage's trials are there for: search, confirm, or baseline, whether it searches or confirms."""
    own, _, baseline = stage.partition(":")
    return "baseline" if baseline else own


def data_tags(spec: Mapping[str, Any]) -> dict[str, str]:
    """What must be known of the data before an error is set beside another's."""
    data = (spec.get("resolved") or {}).get("data") or {}
    if not data.get("look_alike"):
        return {}
    return {"musweep.look_alike": data.get("source") or "true"}


def trial_tags(history: History, parent: str, trial: Trial, spec: Mapping[str, Any]) -> dict[str, str]:
    """What a person filters trials by, and how the mirror finds them again."""
    method = trial.config["method"]["kind"] if "method" in trial.config else trial.params.get("method", "")
    tags = {
        PARENT: parent,
        **identity(history),
        **data_tags(spec),
        TRIAL_UID: trial_uid(history.sweep_id, trial),
        "musweep.role": role(trial.stage),
        "musweep.baseline": trial.stage.partition(":")[2],
        "musweep.method": str(method),
        "musweep.state": trial.state,
        "musweep.reason": trial.reason,
        "musweep.doomed": trial.doomed,
        "musweep.stage": trial.stage,
        "musweep.point_id": trial.point_id,
        "musweep.replicate": str(trial.replicate),
        "musweep.group": str(trial.group),
        "musweep.engine": trial.engine,
    }
    if trial.stopped_at_rung is not None:
        tags["musweep.stopped_at_rung"] = str(trial.stopped_at_rung)
    return {name: value for name, value in tags.items() if value}


def final_metrics(trial: Trial, spec: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an ended trial. `work` is in gradients of one example, `passes` in sweeps over the training set.

    `seconds` are of training, `gpu_seconds` or `cpu_seconds` those of the devices that were its share of a worker.
    Where examples are drawn online there are no passes.
    """
    devices = Devices.of(spec)
    cost = {f"{devices.kind.lower()}_seconds": devices.seconds(trial.wall_s)}
    finals = {"updates": float(trial.updates), "work": trial.work, "seconds": trial.wall_s, **cost}
    examples = ((spec.get("resolved") or {}).get("data") or {}).get("train_examples")
    if examples:
        finals["passes"] = trial.work / examples
    return finals if trial.objective is None else {"objective": trial.objective, **finals}


def last_metrics(trial: Trial, spec: Mapping[str, Any]) -> dict[str, float]:
    """What MLflow shows of an ended trial: each metric's last value, an infinity as its databases hold one."""
    last = {name: value for _, row in sorted(trial.metrics.items()) for name, value in row.items()}
    last |= final_metrics(trial, spec)
    return {name: max(-_HUGE, min(_HUGE, value)) if value == value else value for name, value in last.items()}


def differs(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `wanted` that `found` lacks or has otherwise; numbers may differ by a database's rounding."""
    return {name: value for name, value in wanted.items() if name not in found or not _same(value, found[name])}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def sweep_params(spec: Mapping[str, Any]) -> dict[str, str]:
    """What the sweep as a whole was, from spec.json."""
    search = spec.get("search") or {}
    params = {
        "trainer": spec.get("trainer"),
        "task": _name(spec.get("task"), "name") or None,
        "objective": _name(spec.get("objective"), "metric"),
        "mode": spec.get("mode"),
        "search.algorithm": search.get("algorithm"),
        "search.seed": search.get("seed"),
        "budget.trials": (spec.get("budget") or {}).get("trials"),
        "space": " ".join(sorted(spec.get("space") or {})),
    }
    return {name: str(value) for name, value in params.items() if value is not None}


def _name(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else value


def sweep_tags(history: History, spec: Mapping[str, Any]) -> dict[str, str]:
    """Identity and versions of a sweep."""
    tags = {**identity(history), **data_tags(spec), "musweep.role": "sweep", "musweep.epoch": str(history.epoch)}
    git = history.versions.get("git", "")
    if git:
        tags["musweep.git_sha"] = git.split("+")[0]
        tags["musweep.git_dirty"] = str("+" in git).lower()
    return tags | {f"musweep.version.{name}": text for name, text in history.versions.items() if name != "git"}


class Follower:
    """The history up to some byte of a journal, and when each measurement was first reported."""

    def __init__(self) -> None:
        self.history = History()
        self.times: dict[int, dict[int, int]] = {}
        """First time in ms, by trial and update: a repeat after a crash gets the same, so MLflow sees one point."""
        self.now = 0.0
        """Time of the last record."""

    def apply(self, records: list[journal.Record]) -> None:
        """Fold in records."""
        for record in records:
            self.history.apply(record)
            self.now = record.get("time", self.now)
            if record["type"] == "report":
                for entry in record["trials"]:
                    times = self.times.setdefault(entry["trial"], {})
                    for update in (entry["update"], *([0] if "init" in entry else [])):
                        times.setdefault(update, millis(self.now))
