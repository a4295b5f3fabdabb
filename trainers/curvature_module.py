"""Gauss-Newton products of nets of the user's own: forward derivatives and autograd through the user's module.

A vector holds the trained parameters one after another, in the module's order. The module is used as it is when it is
not trained (no dropout, running statistics of batches), so that the loss is a function of the parameters alone. What
else it holds, frozen parameters and buffers, are those of the last `pack`: trials that differ in them need curvatures
of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainers import models, passes
from trainers.config import NetConfig, SeedConfig
from trainers.curvature_pieces import PIECE, Kind, Shared
from trainers.data import Data, Part
from trainers.module import build, check_answers, rest, trained
from trainers.state import Params
from trainers.tasks.options import TaskError

_SEED = SeedConfig(0)  # of weights that are replaced before they are used
_UNUSED: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}  # a parameter without effect has gradient 0


class ModuleVector:
    """See `trainers.curvature_pieces.Vector`."""

    def __init__(self, module: nn.Module) -> None:
        parameters = trained(module)
        self.vector = torch.cat([torch.zeros_like(p).view(-1) for p in parameters]).detach()
        pieces = torch.split(self.vector, [p.numel() for p in parameters])
        self.tensors = [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]
        self._rest = [tensor.detach() for tensor in rest(module)]

    def load(self, params: Params) -> None:
        """Copy entries of a state in; those that are not trained to the module, unless they are of nothing."""
        for to, (tensor, _) in zip([*self.tensors, *self._rest], params, strict=True):
            if tensor.numel() or not to.numel():
                to.copy_(tensor)

    def save(self) -> Params:
        """Copy them out."""
        nothing = self.vector.new_empty(0)
        return [(tensor.clone(), nothing) for tensor in (*self.tensors, *self._rest)]


class Answers:
    """The module as a function of its trained parameters."""

    def __init__(self, net: NetConfig, data: Data) -> None:
        self.net = net
        self.module = build(net, _SEED, data.dtype).to(data.device).eval()
        self.names = [name for name, p in self.module.named_parameters() if p.requires_grad]

    def __call__(self, part: Part, rows: Tensor | slice, tensors: tuple[Tensor, ...]) -> Tensor:
        """Return logits."""
        named = dict(zip(self.names, tensors, strict=True))
        logits: Tensor = torch.func.functional_call(self.module, named, part.arguments(rows))
        return logits


class LinearisedModule:
    """See `trainers.curvature_pieces.Linearised`: autograd's graph of some examples' logits."""

    def __init__(self, answers: Answers, examples: int, shared: Shared) -> None:  # noqa: ARG002
        self._answers, self._net = answers, answers.net
        self._factor = passes.delta_factor(self._net.loss)

    def fetch(self, part: Part, rows: Tensor | slice) -> None:  # noqa: D102 - on the protocol
        self._part, self._rows = part, rows

    def losses(self, point: ModuleVector, total: Tensor) -> None:  # noqa: D102
        with torch.inference_mode(False), torch.enable_grad():
            self._tensors = tuple(tensor.clone().requires_grad_() for tensor in point.tensors)
            self._logits = self._answers(self._part, self._rows, self._tensors)
        z = self._logits.detach()
        total.add_(models.losses(self._net, z, self._part.expected[self._rows]).sum(dtype=torch.float64))
        self._targets = self._part.targets[self._rows]
        self._predicted = torch.empty_like(z)
        passes.predict(self._net.loss, z, self._predicted)

    def gradient(self, point: ModuleVector, into: ModuleVector, beta: float, alpha: float) -> None:  # noqa: ARG002, D102
        self._pull(self._masked(self._predicted - self._targets), into, beta, alpha)

    def product(  # noqa: D102
        self,
        point: ModuleVector,  # noqa: ARG002 - `losses` copied it
        along: ModuleVector,
        into: ModuleVector,
        beta: float,
        alpha: float,
        structural: float,  # noqa: ARG002 - recurrent nets'
    ) -> None:
        pushed = self._push(along)
        passes.output_product(self._net.loss, self._predicted, pushed)
        self._pull(self._masked(pushed), into, beta, alpha)

    def squares(self, point: ModuleVector, into: ModuleVector, beta: float, alpha: float) -> None:  # noqa: ARG002, D102
        into.vector.mul_(beta) if beta else into.vector.zero_()
        some = max(1, PIECE // len(into.vector))
        numbers = torch.arange(len(self._part.inputs), device=self._part.inputs.device)[self._rows]
        with torch.inference_mode(False), torch.enable_grad():
            tensors = tuple(tensor.detach() for tensor in self._tensors)
            for rows in torch.split(numbers, some):
                for to, squares in zip(into.tensors, self._each_squared(tensors, rows), strict=True):
                    to.add_(squares, alpha=alpha / self._factor**2)

    def _each_squared(self, tensors: tuple[Tensor, ...], rows: Tensor) -> list[Tensor]:
        """Return the sum over examples of squares of each one's gradient, by parameter."""

        def loss(tensors: tuple[Tensor, ...], row: Tensor) -> Tensor:
            logits = self._answers(self._part, row.view(1), tensors)
            return models.loss(self._net, logits, self._part.expected[row.view(1)])

        try:
            each: tuple[Tensor, ...] = torch.func.vmap(torch.func.grad(loss), (None, 0))(tensors, rows)
            return [gradient.square_().sum(0) for gradient in each]
        except (RuntimeError, NotImplementedError):  # not every module can be taken over many examples at once
            sums = [torch.zeros_like(tensor) for tensor in tensors]
            leaves = tuple(tensor.clone().requires_grad_() for tensor in tensors)
            for row in rows:
                for total, gradient in zip(
                    sums, torch.autograd.grad(loss(leaves, row), leaves, **_UNUSED), strict=True
                ):
                    total.addcmul_(gradient, gradient)
            return sums

    def _masked(self, delta: Tensor) -> Tensor:
        """Put zeros where an answer at every step is not scored: one-hot targets sum to 1, others to 0."""
        return delta * self._targets.sum(-1, keepdim=True) if self._net.every_step else delta

    def _push(self, along: ModuleVector) -> Tensor:
        """Return the logits' derivative along a vector: forward, or, where a module cannot, backward twice."""
        at = partial(self._answers, self._part, self._rows)
        with torch.inference_mode(False):
            tensors = tuple(tensor.detach() for tensor in self._tensors)
            tangents = tuple(tensor.clone() for tensor in along.tensors)

            def answers(*tensors: Tensor) -> Tensor:
                return at(tensors)

            try:
                pushed: Tensor = torch.func.jvp(answers, tensors, tangents)[1]
            except (RuntimeError, NotImplementedError):
                pushed = self._push_by_pulling_twice(tangents)
            return pushed.detach().clone()

    def _push_by_pulling_twice(self, tangents: tuple[Tensor, ...]) -> Tensor:
        """J v is the derivative of (J'u)'v with respect to u, at any u."""
        with torch.enable_grad():
            u = torch.zeros_like(self._logits, requires_grad=True)
            pulled = torch.autograd.grad(self._logits, self._tensors, u, create_graph=True, **_UNUSED)
            along = torch.stack([(one * v).sum() for one, v in zip(pulled, tangents, strict=True)]).sum()
            try:
                # Through all that led here: what has no second derivative is silent when only u's is asked for.
                along.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            except (RuntimeError, NotImplementedError) as error:
                words = " ".join(f"{type(error).__name__}: {error}".split())
                raise TaskError(f"model {self._net.module}: has no second derivatives, for hf: {words}") from error
        for tensor in self._tensors:
            tensor.grad = None
        assert u.grad is not None
        return u.grad

    def _pull(self, delta: Tensor, into: ModuleVector, beta: float, alpha: float) -> None:
        with torch.inference_mode(False):
            delta = delta.clone()
            pulled = torch.autograd.grad(self._logits, self._tensors, delta, retain_graph=True, **_UNUSED)
        for to, gradient in zip(into.tensors, pulled, strict=True):
            if beta:
                to.mul_(beta).add_(gradient, alpha=alpha)
            else:
                torch.mul(gradient, alpha, out=to)


def module_kind(net: NetConfig, data: Data) -> Kind[ModuleVector]:
    """What `Pieces` has to know of a module. Raises TaskError when it cannot be made or makes no logits."""
    answers = Answers(net, data)
    few = data.train.head(2)
    tensors = tuple(trained(answers.module))

    def of(part: Part) -> Tensor:
        return answers(part, slice(None), tensors)

    check_answers(net, few, of)
    numbers = _saved_numbers(partial(of, few)) // len(few.inputs)
    make: Callable[[int, Shared], LinearisedModule] = partial(LinearisedModule, answers)
    return Kind(make, partial(ModuleVector, answers.module), max(1, numbers), passes.delta_factor(net.loss))


def _saved_numbers(run: Callable[[], object]) -> int:
    """Return how many numbers autograd keeps of a run forward."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept.append(tensor.numel())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(kept)
