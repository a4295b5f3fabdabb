"""A whole sweep in this process, by one worker and without Ray: what a disturbed sweep has to end as."""

import math
from pathlib import Path

import torch

from sweeps import folder as folders
from sweeps.board import Board
from sweeps.spec import SweepSpec
from sweeps.worker import GroupWorker


def run_alone(spec: SweepSpec, out: Path) -> Path:
    """Train all trials of a sweep for the loop engine in one group and return its folder."""
    folder, threads = folders.create(spec, out), torch.get_num_threads()
    board = Board(folder, spec, 1, spec.budget.trials)
    worker = object.__new__(GroupWorker)
    worker._group, worker._folder, worker._spec = 0, folder, spec
    worker._engines, worker._device = "loop", "cpu"
    worker._prepare({"device": "cpu"})
    worker._open()
    worker._checkpoint_cost = math.inf
    attached = board.attach(0)
    worker._restore(attached.trials)
    while not worker._obey(board.report(0, attached.incarnation, "loop", worker._advance())[0]):
        pass
    board.close("finished")
    torch.set_num_threads(threads)
    return folder
