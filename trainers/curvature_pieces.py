"""Hand-written curvature by pieces of the examples: how many are taken together, and whose activations are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from trainers.data import Part
from trainers.engine import flush_denormals
from trainers.state import Params

PIECE = 1 << 21  # numbers: activations of examples that are taken together
KEPT = 1 << 26  # numbers: activations kept from one call to the next, 256 MiB of float32


class Vector(Protocol):
    """All parameters as one vector, as `trainers.flat.Flat`."""

    vector: Tensor

    def load(self, params: Params) -> None:
        """Copy parameters in."""

    def save(self) -> Params:
        """Copy them out."""


V = TypeVar("V", bound=Vector)
Of = TypeVar("Of", bound=Vector, contravariant=True)


class Linearised(Protocol[Of]):
    """One piece of examples about a point; sums over the piece, `passes.delta_factor` left out."""

    def fetch(self, part: Part, rows: Tensor | slice) -> None:
        """Take the examples."""

    def losses(self, point: Of, total: Tensor) -> None:
        """Run forward at a point, keep what the rest needs, and add the examples' losses to `total` [], float64."""

    def gradient(self, point: Of, into: Of, beta: float, alpha: float) -> None:
        """Make into = beta*into + alpha*g. All that have `point` are given the one of the last `losses`."""

    def squares(self, point: Of, into: Of, beta: float, alpha: float) -> None:
        """Make into = beta*into + alpha*s, s being the sum of squares of each example's gradient."""

    def product(self, point: Of, along: Of, into: Of, beta: float, alpha: float, structural: float) -> None:
        """Make into = beta*into + alpha*(G + structural*S) along; see `trainers.curvature.Curvature.product`."""


class Shared:
    """Buffers that all pieces use in turn, by name; a smaller piece has the front of a larger one's."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._buffers: dict[str, Tensor] = {}

    def own(self, *shape: int) -> Tensor:
        """Return a new buffer."""
        return self._like.new_empty(shape)

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the buffer of a name, which has at least this many numbers, in a shape."""
        numbers = torch.Size(shape).numel()
        if name not in self._buffers or len(self._buffers[name]) < numbers:
            self._buffers[name] = self._like.new_empty(numbers)
        return self._buffers[name][:numbers].view(shape)


@dataclass(frozen=True)
class Kind(Generic[V]):
    """What `Pieces` has to know of a kind of net."""

    make: Callable[[int, Shared], Linearised[V]]
    """Makes a piece of so many examples."""
    vector: Callable[[], V]
    """Makes a vector of zeros."""
    numbers: int
    """Kept of one example."""
    factor: float
    """`passes.delta_factor` of the loss."""


class Pieces(Generic[V]):
    """See `trainers.curvature.Curvature`. Of examples beyond `kept` numbers the activations are made anew each time.

    The gradient of those is taken on the way, in `at`, so that one gradient never costs two forward passes.
    """

    def __init__(self, kind: Kind[V], piece: int = PIECE, kept: int = KEPT) -> None:
        self._kind, self._factor = kind, kind.factor
        self._examples = max(1, piece // kind.numbers)
        self._limit = max(1, kept // (kind.numbers * self._examples))
        self._point, self._other, self._along, self._into, self._rest = (kind.vector() for _ in range(5))
        self._total = torch.zeros((), device=self._point.vector.device, dtype=torch.float64)
        self._shared = Shared(self._point.vector)
        self.size = len(self._point.vector)
        self._made: dict[tuple[int, int], Linearised[V]] = {}  # by place, the last for all beyond the limit, and size
        self._part: Part | None = None
        self._spans: list[Tensor | slice] = []
        self._count = 0

    def pack(self, params: Params) -> Tensor:  # noqa: D102 - on the protocol
        made = self._kind.vector()
        made.load(params)
        return made.vector

    def unpack(self, vector: Tensor) -> Params:  # noqa: D102
        made = self._kind.vector()
        made.vector.copy_(vector)
        return made.save()

    @torch.no_grad()
    def at(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:  # noqa: D102
        flush_denormals()
        self._point.vector.copy_(theta)
        self._part, self._spans = part, list(_spans(rows, part, self._examples))
        self._count = sum(_length(span) for span in self._spans)
        self._total.zero_()
        for place in range(len(self._spans)):
            piece = self._run(place)
            if place >= self._limit:
                piece.gradient(self._point, self._rest, float(place > self._limit), 1.0)
        return self._total / self._count

    @torch.no_grad()
    def gradient(self, out: Tensor) -> None:  # noqa: D102
        assert self._part is not None, "at no point yet"
        alpha = self._factor / self._count
        for place in range(min(self._limit, len(self._spans))):
            self._piece(place).gradient(self._point, self._into, float(place > 0), alpha)
        if len(self._spans) > self._limit:
            self._into.vector.add_(self._rest.vector, alpha=alpha)
        out.copy_(self._into.vector)

    @torch.no_grad()
    def squares(self, out: Tensor) -> None:  # noqa: D102
        assert self._part is not None, "at no point yet"
        for place in range(len(self._spans)):
            piece = self._piece(place) if place < self._limit else self._run(place)
            piece.squares(self._point, self._into, float(place > 0), self._factor**2 / self._count)
        out.copy_(self._into.vector)

    @torch.no_grad()
    def product(self, v: Tensor, out: Tensor, structural: float = 0.0) -> None:  # noqa: D102
        assert self._part is not None, "at no point yet"
        self._along.vector.copy_(v)
        alpha = self._factor / self._count
        for place in range(len(self._spans)):
            piece = self._piece(place) if place < self._limit else self._run(place)
            piece.product(self._point, self._along, self._into, float(place > 0), alpha, structural / self._factor)
        out.copy_(self._into.vector)

    @torch.no_grad()
    def loss(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:  # noqa: D102
        flush_denormals()
        self._other.vector.copy_(theta)
        self._total.zero_()
        count = 0
        for span in _spans(rows, part, self._examples):
            piece = self._of(self._limit, _length(span))
            piece.fetch(part, span)
            piece.losses(self._other, self._total)
            count += _length(span)
        return self._total / count

    def forget(self) -> None:  # noqa: D102
        self._made.clear()
        self._shared = Shared(self._point.vector)
        self._part, self._spans = None, []

    def _run(self, place: int) -> Linearised[V]:
        """Run a piece forward at the point, its losses added to the total."""
        assert self._part is not None, "at no point yet"
        piece = self._piece(place)
        piece.fetch(self._part, self._spans[place])
        piece.losses(self._point, self._total)
        return piece

    def _piece(self, place: int) -> Linearised[V]:
        return self._of(min(place, self._limit), _length(self._spans[place]))

    def _of(self, place: int, examples: int) -> Linearised[V]:
        """Return the piece of a place; it is made again when it has another size, of which it keeps the last only."""
        if (place, examples) not in self._made:
            for key in [key for key in self._made if key[0] == place]:
                if place < self._limit:
                    del self._made[key]
            with torch.inference_mode(False):  # what is made in one call serves in others, inside and outside
                self._made[place, examples] = self._kind.make(examples, self._shared)
        return self._made[place, examples]


def _spans(rows: Tensor | slice, part: Part, most: int) -> Iterator[Tensor | slice]:
    """Cut examples of a part into pieces of one size, the last excepted. Raises ValueError when there are none."""
    if isinstance(rows, slice):
        start, stop, step = rows.indices(len(part.inputs))
        if step != 1:
            rows = torch.arange(start, stop, step, device=part.inputs.device)
        else:
            length = stop - start
    if isinstance(rows, Tensor):
        start, length = 0, len(rows)
    if length < 1:
        raise ValueError("curvature: no examples")
    pieces = -(-length // most)
    each = -(-length // pieces)
    for first in range(start, start + length, each):
        last = min(first + each, start + length)
        yield rows[first:last] if isinstance(rows, Tensor) else slice(first, last)


def _length(span: Tensor | slice) -> int:
    return len(span) if isinstance(span, Tensor) else span.stop - span.start
