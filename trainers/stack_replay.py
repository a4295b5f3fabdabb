"""Updates of K trials that need nothing of the host: recorded once as a CUDA graph, then replayed.

An update of small nets is tens of kernels of some microseconds each: to launch them one by one takes longer than to
run them. Hence all that changes from one update to the next lies on the device, the number of the update included:
coefficients (learning rates, momenta), where batches begin (`trainers.stack_source`), and where sums of the output
delta go. The host writes tables for SPAN updates, replays, and looks at the sums once at the end.

On a CPU a recording is the call itself, so that what a GPU replays is what tests run. What a recording takes for
granted, and how it is kept true: the program's arrays stay (an engine drops its programs with them), those of the
source stay (`Source.generation`), every update counts itself (`check`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from trainers.passes import Call
from trainers.stack_methods import Coefficients
from trainers.stack_program import SPAN, Program
from trainers.stack_source import Source

Record = Callable[[Call], Call]
"""Makes of a call one that does the same, faster; raises RuntimeError where it cannot. It may not make the call."""

_WARM = 3  # updates before a recording: libraries make themselves ready at their first calls
_BLOCK = 32  # updates of one recording, at most
_NODES = 4096  # kernels of one recording, about: larger ones take long to make


def plain(call: Call) -> Call:
    """Record nothing."""
    return call


def graphed(call: Call) -> Call:
    """Record a call as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    # A recording that fails may leave its own stream the current one.
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
        call()
    return graph.replay


def recording(device: torch.device) -> Record:
    """How to record on a device."""
    return graphed if device.type == "cuda" else plain


class Replayed:
    """The updates of a program on what a source has prepared."""

    def __init__(self, program: Program, source: Source, record: Record) -> None:
        self._program, self._source, self._record = program, source, record
        rows, batch, k = program.rows, program.batch, program.k
        slots = len(rows) // batch
        coefficients = len(program.coefficients)
        self._table = rows.new_zeros(SPAN + 1, coefficients, k)
        self._where = torch.zeros(SPAN, slots, dtype=torch.int64, device=rows.device)
        self._sums = rows.new_zeros(SPAN, k)
        self._at = torch.zeros(1, dtype=torch.int64, device=rows.device)
        """Number of the update to come, in this span."""
        self._begin = self._where[:1].clone()
        self._lane = torch.arange(batch, device=rows.device)
        self._index = torch.zeros(slots, batch, dtype=torch.int64, device=rows.device)
        self._chosen = self._index.flatten().clone()
        self._total = rows.new_zeros(1, k)
        self._now = program.coefficients.unsqueeze(0)
        self._warm = _WARM
        self._block = max(1, min(_BLOCK, _NODES // program.kernels))
        self._recorded: dict[int, Call] = {}
        self._generation = source.generation

    def run(self, coefficients: Coefficients, where: Tensor) -> tuple[Tensor, Tensor]:
        """Make an update for each row of `where` [count, S], SPAN at most, without waiting for the device.

        Returns the sum of the output delta of each, [count, K], and how many were made, [1]: see `check`.
        """
        count = len(where)
        self._table[: count + 1].copy_(coefficients.table)
        self._where[:count].copy_(where)
        self._at.zero_()
        self._program.coefficients.copy_(self._table[0])
        for call in self._program.look:
            call()
        left = count
        while left:
            left -= self._some(left)
        return self._sums[:count].clone(), self._at.clone()

    def _some(self, left: int) -> int:
        """Make one or more of the updates left; returns how many."""
        if self._generation != self._source.generation:
            self._recorded, self._generation, self._warm = {}, self._source.generation, 1
        if self._warm:
            self._warm -= 1
            self._update()
            return 1
        size = self._block if left >= self._block else 1
        if size not in self._recorded:
            self._recorded[size] = self._made(size)
        self._recorded[size]()
        return size

    def _made(self, size: int) -> Call:
        """Record so many updates, or have them made one by one where that cannot be."""

        def updates() -> None:
            for _ in range(size):
                self._update()

        try:
            return self._record(updates)
        except RuntimeError as error:
            words = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(f"updates are made one by one, which is slower: no CUDA graph ({words})", stacklevel=2)
            self._record = plain
            return updates

    def _update(self) -> None:
        """Make the update `_at`; every array here and below is the same one each time."""
        program, source, at = self._program, self._source, self._at
        torch.index_select(self._where, 0, at, out=self._begin)
        torch.add(self._begin.view(-1, 1), self._lane, out=self._index)
        torch.index_select(source.orders, 0, self._index.view(-1), out=self._chosen)
        torch.index_select(source.table, 0, self._chosen, out=program.rows)
        if program.steps is not None:
            assert source.steps is not None
            torch.index_select(source.steps, 0, self._chosen, out=program.steps)
        for call in program.forward:
            call()
        torch.sum(program.flat_delta, 1, out=self._total[0])
        self._sums.index_copy_(0, at, self._total)
        at.add_(1)
        torch.index_select(self._table, 0, at, out=self._now)
        for call in program.backward:
            call()


def check(made: Tensor, count: int) -> None:
    """Raise RuntimeError unless the device made as many updates as it was asked for."""
    if (found := int(made)) != count:
        raise RuntimeError(f"a recording made {found} updates where {count} were asked for: please report this")
