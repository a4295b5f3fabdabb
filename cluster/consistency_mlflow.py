"""What MLflow has of a sweep folder: a copy that may be late, but must not say RUNNING of what is dead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cluster.consistency import Found, Sweep
from cluster.doctor import BAD, OK, WARN, Finding
from cluster.doctor import mlflow as reach
from sweeps import tracked, tracking


def check(sweep: Sweep) -> Iterator[Found]:
    """Hold MLflow against the journal, if it can be reached."""
    from sweeps import mlflow_runs

    uri = tracking.place_of(sweep.path)
    if uri is None or sweep.told is None or not sweep.told.sweep_id:
        return
    near = reach(uri)
    if near.state != OK or "will be made" in near.says:
        missing = near.state == OK
        says = "no runs yet" if missing else near.says
        yield Found(Finding("MLflow", OK if missing else WARN, tracked.redact(says), "musweep sync sends all"))
        return
    runs = mlflow_runs.of_sweep(tracking.connect(uri), mlflow_runs.Identity.of(sweep.told))
    uids = [run.data.tags[tracked.TRIAL_UID] for run in runs if tracked.TRIAL_UID in run.data.tags]
    if sweep.living:
        yield Found(Finding("MLflow", OK, f"{len(set(uids))} trials so far"))
        return
    running = sum(run.info.status == "RUNNING" for run in runs)
    ended = {
        tracked.trial_uid(sweep.told.sweep_id, trial)
        for trial in sweep.told.trials.values()
        if trial.state != "running"
    }
    wrong = [f"{running} runs are RUNNING, though no driver lives"] if running else []
    wrong += [f"{len(ended - set(uids))} ended trials are missing"] if ended - set(uids) else []
    wrong += [f"{len(uids) - len(set(uids))} trials are there twice"] if len(uids) != len(set(uids)) else []

    def again() -> str:
        return tracking.sync(sweep.path)

    if wrong:
        step = "musweep reap, musweep sync, or --repair" if running else "musweep sync, or --repair"
        yield Found(Finding("MLflow", BAD, "; ".join(wrong), step), again)
    else:
        yield Found(Finding("MLflow", OK, f"{len(uids)} trials, none RUNNING"))


def stored_spec(folder: Path) -> bytes | None:
    """The copy of spec.json that MLflow has, if there is one; passwords in it are replaced."""
    import tempfile

    from sweeps.spec import SweepSpec

    try:
        known = json.loads((folder / "mlflow.json").read_bytes())
        uri, parent = str(known["uri"]), str(known["parent"])
        if "***" in uri:
            uri = tracking.tracking_uri(folder)
        if reach(uri).state != OK:
            return None
        with tempfile.TemporaryDirectory() as place:
            data = Path(tracking.connect(uri).download_artifacts(parent, "spec.json", place)).read_bytes()
        plain = json.loads(data)
        SweepSpec.model_validate({key: value for key, value in plain.items() if key != "resolved"})
    except Exception:  # a copy that cannot be had is no copy
        return None
    return data
