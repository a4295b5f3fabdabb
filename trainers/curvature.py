"""Exact Gauss-Newton products of the matching losses, and what else an optimiser asks of a point.

Forward over reverse, as Pearlmutter 1994 and Schraudolph 2002 have it: v is carried forward through the net
linearised at theta (J v), the loss's second derivative at the logits is applied (H J v), and ordinary
back-propagation carries the result back (J' H J v). Activations are kept, so a product costs `NetConfig.product_cost`
gradients and no matrix is ever formed.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from trainers import passes
from trainers.config import NetConfig
from trainers.curvature_feedforward import Linearised
from trainers.curvature_pieces import KEPT, PIECE, Kind, Pieces
from trainers.curvature_recurrent import LinearisedRecurrent
from trainers.data import Data, Part
from trainers.flat import Flat
from trainers.state import Params


class Curvature(Protocol):
    """The loss of one net around a point, for flat vectors of all its parameters.

    Vectors are laid out as `trainers.flat.Flat` has them, gaps of zeros included, those of nets of the user's own as
    `trainers.curvature_module` says: `pack` and `unpack` are the way in and out. The loss is `models.loss`, a mean over
    examples without L2, and so are all other quantities means over the examples that `at` was given. Nothing here waits
    for a device: what is returned is a tensor there, and to read it is the caller's.
    """

    size: int
    """Length of the vectors, [P]."""

    def pack(self, params: Params) -> Tensor:
        """Return parameters as a new vector [P]."""

    def unpack(self, vector: Tensor) -> Params:
        """Return a vector [P] as parameters; copies."""

    def at(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:
        """Take a point and the examples of a part that all else is about until the next call; returns their mean loss.

        Nothing of `theta` [P] is kept but a copy. The loss, [] in float64 on the device, is not finite where the net's
        answers are not.
        """

    def gradient(self, out: Tensor) -> None:
        """Write the loss's gradient to `out` [P]."""

    def squares(self, out: Tensor) -> None:
        """Write to `out` [P] the mean over examples of the squares of each example's own gradient."""

    def product(self, v: Tensor, out: Tensor, structural: float = 0.0) -> None:
        """Write to `out` [P] the Gauss-Newton matrix times v [P].

        With `structural` that many times the matrix of recurrent nets' structural damping is added to it: the mean over
        sequences of the sum over steps of J' diag(1 - h^2) J, J taking parameters to what goes into the hidden units
        (Martens, Sutskever 2011). Other nets have no such matrix.
        """

    def loss(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:
        """Return the mean loss, [] in float64, at another point or of other examples; what `at` was given stays."""

    def forget(self) -> None:
        """Give back the memory of all activations; `at` comes next."""


def curvature(net: NetConfig, data: Data, piece: int = PIECE, kept: int = KEPT, waits: bool | None = None) -> Curvature:
    """Make the curvature of a net of any kind, in buffers of its own.

    `piece` is how many numbers, activations of some examples, are worked on together; of at most `kept` they stay in
    memory until the next `at`, and those of further examples are made again for each product. `waits` says that to read
    a number is to wait for the device, so that none is; None: as the data's device has it.
    Raises TaskError when a net of the user's own cannot be made.
    """
    like, factor = torch.empty(0, device=data.device, dtype=data.dtype), passes.delta_factor(net.loss)
    waits = data.device.type != "cpu" if waits is None else waits
    with torch.inference_mode(False):  # what is made once serves inside and outside
        if net.module:
            from trainers.curvature_module import module_kind

            return Pieces(module_kind(net, data), piece, kept)
        if net.steps:
            numbers, make = net.steps * (sum(net.widths) + 1), partial(LinearisedRecurrent, net, data, waits)
            return Pieces(Kind(make, partial(Flat, net, like), numbers, factor), piece, kept)
        numbers = sum(net.widths) + sum(net.widths[2:-1]) * bool(net.eta)
        return Pieces(Kind(partial(Linearised, net, data), partial(Flat, net, like), numbers, factor), piece, kept)
