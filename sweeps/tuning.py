"""Have Ray Tune place the groups' workers. The board says who trains what, and who gets another worker."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from sweeps import places
from sweeps.connect import shared
from sweeps.drive import Drive
from sweeps.resolve import Resolved
from sweeps.spec import SweepSpec


class SweepFailed(RuntimeError):
    """No group was left that could train, or Ray failed."""


def start_board(folder: Path, spec: SweepSpec, epoch: int, extend: int, groups: int, slots: int) -> Any:
    """Start the board's actor; it replays the journal while others start."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from sweeps.board_actor import BoardActor

    path, plain = str(folder.resolve()), spec.model_dump(mode="json")  # actors have a working directory of their own
    # It dies with the driver's node if at all: on another it would be one more that a sweep can lose.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = BoardActor  # Ray's decorator adds methods that its types do not show
    return actor.options(max_concurrency=1000, scheduling_strategy=here).remote(
        path, plain, groups, slots, epoch, extend
    )


def tune_groups(drive: Drive, board: Any, resolved: Resolved) -> None:
    """Have Ray Tune place the groups and wait until the board says that the sweep is over."""
    import ray
    from ray import tune

    from sweeps.callback import Ends
    from sweeps.own_worker import OwnWorker
    from sweeps.seats import Seats, WhenOver
    from sweeps.watching import watching
    from sweeps.worker import GroupWorker

    folder, resources = drive.folder.resolve(), drive.spec.resources
    place = {
        "folder": str(folder),
        "url": places.remote_of(folder),
        "spec": drive.spec.model_dump(mode="json"),
        "engines": resolved.engines,
        "device": resolved.device,
        "capture": True,
        "board": board,
        "cwd": str(Path.cwd()),  # files that the user's own code opens; Tune gives workers folders of their own
    }
    # A GPU's memory is not the node's; a machine of our own was looked at when the size of groups was chosen.
    memory = resolved.worker_bytes if shared() and resolved.device == "cpu" else 0
    seats = Seats(resolved.workers, place)
    worker = OwnWorker if drive.spec.trainer else GroupWorker
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resolved.workers)  # one by one they would wait for each other
    tuner = tune.Tuner(
        tune.with_resources(
            worker, {"cpu": resources.cpu, "gpu": resources.gpu, **({"memory": memory} if memory else {})}
        ),
        tune_config=tune.TuneConfig(
            metric="trials",
            mode="min",
            search_alg=seats,
            num_samples=-1,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            stop=WhenOver(seats),
            failure_config=tune.FailureConfig(max_failures=0),  # who is started again, and when, is the board's to say
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # groups keep their own
            callbacks=[Ends(board, seats)],
            verbose=0,
        ),
    )
    reason = "failed"
    try:
        with watching(drive, board, seats, memory):
            tuner.fit()
        if drive.failed:
            raise SweepFailed(drive.failed)
        finished, lost = ray.get(board.outcome.remote(), timeout=60)
        if drive.interrupted:
            reason = "interrupted"
        elif finished:
            reason = "finished"
        else:
            raise SweepFailed("; ".join(f"group {g}: {why}" for g, why in lost.items()) or "Ray Tune ended early")
    except (ray.exceptions.RayActorError, tune.TuneError) as error:
        if "ActorDiedError" not in f"{type(error).__name__}: {error}":
            raise
        # A worker's death ends no sweep: this is the board's, or that of all that Ray had on this machine.
        raise SweepFailed(f"its board died; nothing is lost, go on with: musweep resume {drive.folder}") from error
    finally:
        with contextlib.suppress(Exception):
            ray.get(board.close.remote(reason), timeout=30)
        if not drive.failed:  # without its head Ray would not answer
            ray.kill(board)
