"""What goes on inside nets: activations, gradients, lengths and Jacobians by layer, on a fixed set of examples.

Layers are numbered as the papers number them: 0 the inputs, 1 to H the hidden layers, H + 1 the outputs; z^l are the
sums that layer l applies its activation to, act^l what it hands on (of a residual net the running sum h_l). K nets of
a shape are measured at once, in memory-sized chunks, in the dtype of the examples; squares are summed in float64, so
that lengths and gradients of deep nets neither overflow nor vanish.

| what | layers | quantities |
| --- | --- | --- |
| activations | 1 to H | `activation_mean`, `activation_sd`, `activation_p98` (98th percentile of |act|), `saturation` |
| gradients | 1 to H + 1 | `gradient_sd` of dCost/dz, each example's own cost |
| | 1 to H + 1 | `weight_gradient_sd` of dCost/dW, the mean cost |
| lengths | 0 to H | `length`: HR18's M_l = |act^l|^2 / n_l, mean over the examples |
| | 0, the whole net | `length_variance` of M_1 to M_H across layers, mean over the examples |
| jacobian | 1 to H | `singular_mean`, `singular_values` (at `QUANTILES`) of dz^(l+1)/dz^l, mean over a few examples |
| histograms | as above | `activation_histogram`, `gradient_histogram`, `weight_gradient_histogram`: counts |

In a residual net, where eta_l scales dCost/dz^l but not what goes on to the layers below, gradients are dCost/dh_l, and
the Jacobian is that of a module, dh_(l+1)/dh_l, layers 1 to H - 1. Of a recurrent net there are `hidden_sd`, the
standard deviation of the hidden units at each step (layers are steps, 1 to T), under activations, and
`spectral_radius` of its recurrent weights (layer 0) under jacobian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import DIAGNOSTICS, NetConfig
from trainers.data import Part

Array = NDArray[np.float64]
Params = Sequence[tuple[Any, Any]]

EXAMPLES = 300  # GB10 section 3: a fixed set of 300 test examples; here the first of valid
JACOBIAN_EXAMPLES = 3
BINS = 65  # odd: 0, where a ReLU has half its values, lies inside a bin and not on an edge
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_PERCENTILE = 0.98  # GB10 fig. 3
_REACH = 4.0  # histograms without natural ends go so many root mean squares to either side
_CHUNK_BYTES = 2**28

# Saturated is where the derivative is below a tenth of its largest value for tanh, a fifth for sigmoid, a twentieth
# for softsign, whose flat ends are further out (GB10 fig. 4: its units settle at .6 to .8, still curved); a ReLU at 0.
_TANH, _SIGMOID, _SOFTSIGN = 0.95, 0.05, 0.8
_ENDS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of one net: values [layers, n] of the layers from `first` on.

    n is 1, or the length of a list such as a histogram's counts; `ends` [layers, 2] are the outer edges of its bins,
    and what lies beyond is counted in the outermost.
    """

    first: int
    values: Array
    ends: Array | None = None


Diagnostics = dict[str, Series]


def measure(net: NetConfig, params: Params, part: Part, what: Sequence[str] = DIAGNOSTICS) -> Diagnostics:
    """Measure one net, (weights [I, O], biases [O]) of each layer, on all examples of a part."""
    return measure_all(net, [params], part, what)[0]


def measure_all(
    net: NetConfig, nets: Sequence[Params], part: Part, what: Sequence[str] = DIAGNOSTICS
) -> list[Diagnostics]:
    """Measure nets of one shape together.

    Raises ValueError for an unknown name in `what`.
    """
    if unknown := [name for name in what if name not in DIAGNOSTICS]:
        raise ValueError(f"diagnostic {unknown[0]!r}: one of {', '.join(DIAGNOSTICS)}")
    inputs = part.inputs
    each = 5 * inputs.element_size() * len(inputs) * (sum(net.widths) if not net.steps else net.widths[1])
    some = max(1, _CHUNK_BYTES // each)
    found: list[Diagnostics] = []
    with torch.no_grad():
        for start in range(0, len(nets), some):
            stacked = _stacked(nets[start : start + some], inputs)
            if net.steps:
                found += _recurrent(stacked, inputs, part.steps, what)
            else:
                found += _feed_forward(net, stacked, inputs, part.targets, what)
    return found


def widened(part: Part) -> Part:
    """A part in float64, for measurements that must not depend on rounding."""
    inputs = part.inputs.double()
    targets = inputs if part.targets is part.inputs else part.targets.double()
    return Part(inputs, targets, part.classes, part.steps)


def summary(found: Diagnostics) -> dict[str, float]:
    """A few numbers of the whole net, as metrics: how far lengths and gradients carry, and what is saturated."""
    numbers: dict[str, float] = {}
    if "length" in found:
        lengths = found["length"].values[:, 0]
        numbers["diag/length_ratio"] = _ratio(lengths[-1], lengths[0])
    if "length_variance" in found:
        numbers["diag/length_variance"] = float(found["length_variance"].values[0, 0])
    if "gradient_sd" in found:
        gradients = found["gradient_sd"].values[:, 0]
        numbers["diag/gradient_ratio"] = _ratio(gradients[0], gradients[-2]) if len(gradients) > 1 else 1.0
    for name in ("saturation", "singular_mean"):
        if name in found and len(found[name].values):
            numbers[f"diag/{name}"] = float(found[name].values.mean())
    if "hidden_sd" in found:
        numbers["diag/hidden_sd"] = float(found["hidden_sd"].values[-1, 0])
    if "spectral_radius" in found:
        numbers["diag/spectral_radius"] = float(found["spectral_radius"].values[0, 0])
    return numbers


def _ratio(over: Any, under: Any) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(over) / np.float64(under))


def _stacked(nets: Sequence[Params], like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(weights [K, I, O], biases [K, 1, O]) of each layer."""

    def stack(layer: int, which: int) -> Tensor:
        return torch.stack([torch.as_tensor(params[layer][which]) for params in nets]).to(like)

    return [(stack(layer, 0), stack(layer, 1).unsqueeze(1)) for layer in range(len(nets[0]))]


# -- feed-forward and residual nets ------------------------------------------------------------------------------


class _Pass:
    """One pass forward and back, everything kept: tensors are [K, N, n], lists go by layer."""

    def __init__(self, net: NetConfig, params: list[tuple[Tensor, Tensor]], inputs: Tensor) -> None:
        self.net, self.params = net, params
        self.h = [inputs.expand(len(params[0][0]), *inputs.shape)]
        self.inputs = inputs
        self.f: list[Tensor] = [self.h[0]]
        """What each layer's activation gives: act^l, but in a residual net."""
        for layer, activation in enumerate(net.hidden, 1):
            self.f.append(_activate(activation, self.sums(layer)))
            factor = self.factor(layer)
            self.h.append(self.f[-1] if factor is None else self.h[-1] + factor * self.f[-1])
        self.logits = self.sums(len(params))

    def sums(self, layer: int) -> Tensor:
        """z^l. The first layer's nets share their inputs: one product over all is twice as fast as K."""
        weights, biases = self.params[layer - 1]
        if layer > 1:
            return torch.baddbmm(biases, self.h[layer - 1], weights)
        count, _, units = weights.shape
        together = self.inputs @ weights.transpose(0, 1).flatten(1)
        return together.view(-1, count, units).transpose(0, 1).contiguous() + biases

    def weight_gradient(self, layer: int, delta: Tensor) -> Tensor:
        """dCost/dW of a layer, of the mean cost."""
        examples = len(self.inputs)
        if layer > 1:
            return self.h[layer - 1].mT @ delta / examples
        count, _, units = delta.shape
        together = self.inputs.T @ delta.transpose(0, 1).reshape(examples, -1)
        return together.view(-1, count, units).transpose(0, 1) / examples

    def factor(self, layer: int) -> float | None:
        """The eta of a residual module, None where a layer is an ordinary one."""
        return self.net.eta[layer - 2] if self.net.eta and layer > 1 else None

    def slope(self, layer: int, examples: int | None = None) -> Tensor:
        """f'(z^l), times eta in a residual module."""
        slope = _slope(self.net.hidden[layer - 1], self.f[layer][:, :examples])
        factor = self.factor(layer)
        return slope if factor is None else slope * factor

    def back(self, targets: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(l, dCost/dz^l, dCost/dact^l) from the outputs to layer 1, of each example's own cost."""
        delta = _output_gradient(self.net.loss, self.logits, targets)
        yield len(self.params), delta, delta
        carried = delta @ self.params[-1][0].mT
        for layer in range(len(self.net.hidden), 0, -1):
            delta = carried * self.slope(layer)
            yield layer, delta, carried
            if layer > 1:
                below = delta @ self.params[layer - 1][0].mT
                carried = below if self.factor(layer) is None else carried + below


class _Table:
    """Gathers values [K, n] by quantity and layer, and hands them out by net."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, Array]] = {}
        self._ends: dict[str, dict[int, Array]] = {}

    def add(self, quantity: str, layer: int, values: Tensor, ends: Tensor | None = None) -> None:
        """Note a quantity of one layer: values [K] or [K, n]."""
        table = values.double().cpu().numpy()
        self._values.setdefault(quantity, {})[layer] = table[:, None] if table.ndim == 1 else table
        if ends is not None:
            self._ends.setdefault(quantity, {})[layer] = ends.double().cpu().numpy()

    def nets(self, count: int) -> list[Diagnostics]:
        """The diagnostics of each net."""
        found: list[Diagnostics] = [{} for _ in range(count)]
        for quantity, by_layer in self._values.items():
            layers = sorted(by_layer)
            values = np.stack([by_layer[layer] for layer in layers], 1)
            ends = np.stack([self._ends[quantity][n] for n in layers], 1) if quantity in self._ends else None
            for k, diagnostics in enumerate(found):
                diagnostics[quantity] = Series(layers[0], values[k], None if ends is None else ends[k])
        return found


def _feed_forward(
    net: NetConfig, params: list[tuple[Tensor, Tensor]], inputs: Tensor, targets: Tensor, what: Sequence[str]
) -> list[Diagnostics]:
    done, table = _Pass(net, params, inputs), _Table()
    for layer, activation in enumerate(net.hidden, 1):
        # A histogram of a residual layer has no natural ends: what it hands on is a sum.
        ends = None if done.factor(layer) is not None else _ENDS.get(activation)
        _of_activations(table, layer, activation, done, ends, what)
    if "lengths" in what:
        _lengths(table, inputs, done.h)
    if "gradients" in what or "histograms" in what:
        for layer, delta, carried in done.back(targets):
            weight = done.weight_gradient(layer, delta)
            for name, values in (("gradient", carried if net.eta else delta), ("weight_gradient", weight)):
                if "gradients" in what:
                    table.add(f"{name}_sd", layer, _mean_and_sd(values.flatten(1))[1])
                if "histograms" in what:
                    table.add(f"{name}_histogram", layer, *_histogram(values.flatten(1), None))
    if "jacobian" in what:
        _jacobians(table, done)
    return table.nets(len(params[0][0]))


def _of_activations(
    table: _Table, layer: int, activation: str, done: _Pass, ends: tuple[float, float] | None, what: Sequence[str]
) -> None:
    values = done.h[layer].flatten(1)
    if "activations" in what:
        mean, sd = _mean_and_sd(values)
        table.add("activation_mean", layer, mean)
        table.add("activation_sd", layer, sd)
        table.add("activation_p98", layer, _percentile(values))
        table.add("saturation", layer, _saturated(activation, done.f[layer].flatten(1)))
    if "histograms" in what:
        table.add("activation_histogram", layer, *_histogram(values, ends))


def _lengths(table: _Table, inputs: Tensor, h: list[Tensor]) -> None:
    """HR18's M_l [K, N], and its empirical variance across layers for one net and one input (SCIENCE 6)."""
    own = _root_mean_square(inputs).square().expand(len(h[0]), -1)  # of all nets the same
    lengths = torch.stack([own, *(_root_mean_square(act).square() for act in h[1:])])
    for layer, each in enumerate(lengths.mean(-1)):
        table.add("length", layer, each)
    if len(h) == 1:
        return
    # mean over layers of M^2 minus the square of their mean, as a sum of squares: no cancellation
    table.add("length_variance", 0, lengths[1:].var(0, correction=0).mean(-1))


def _jacobians(table: _Table, done: _Pass) -> None:
    """Singular values of dz^(l+1)/dz^l = diag(f'(z^l)) W^(l+1) (GB10 section 4.2.1), or of a residual module's."""
    hidden = len(done.net.hidden)
    if done.net.eta:
        pairs = ((layer - 1, done.slope(layer, JACOBIAN_EXAMPLES).unsqueeze(-2)) for layer in range(2, hidden + 1))
        matrices = ((layer, 1.0, slope * done.params[layer][0].unsqueeze(1)) for layer, slope in pairs)
    else:
        slopes = ((layer, done.slope(layer, JACOBIAN_EXAMPLES).unsqueeze(-1)) for layer in range(1, hidden + 1))
        matrices = ((layer, 0.0, slope * done.params[layer][0].unsqueeze(1)) for layer, slope in slopes)
    for layer, skip, product in matrices:
        matrix = product.double()
        if skip:
            matrix.diagonal(dim1=-2, dim2=-1).add_(skip)
        whole = matrix.isfinite().all(-1).all(-1)
        values = torch.linalg.svdvals(torch.nan_to_num(matrix, 0.0, 0.0, 0.0))  # [K, E, least of both widths]
        values = torch.where(whole.unsqueeze(-1), values, torch.nan)
        table.add("singular_mean", layer, values.mean(-1).mean(-1))
        at = torch.tensor(QUANTILES, dtype=values.dtype, device=values.device)
        table.add("singular_values", layer, torch.quantile(values, at, dim=-1).mean(-1).T)


# -- recurrent nets ----------------------------------------------------------------------------------------------


def _recurrent(
    params: list[tuple[Tensor, Tensor]], inputs: Tensor, steps: Tensor | None, what: Sequence[str]
) -> list[Diagnostics]:
    weights, biases = params[0]
    table, (count, _, hidden) = _Table(), weights.shape
    if "activations" in what:
        h = inputs.new_zeros(count, len(inputs), hidden)
        for t in range(inputs.shape[1]):
            h = torch.tanh(inputs[:, t] @ weights[:, :-hidden] + h @ weights[:, -hidden:] + biases)
            going = slice(None) if steps is None else steps >= t  # past its answer a sequence is padding
            table.add("hidden_sd", t + 1, _mean_and_sd(h[:, going].flatten(1))[1])
    if "jacobian" in what:
        recurrent = weights[:, -hidden:]
        whole = recurrent.isfinite().all(-1).all(-1)
        largest = torch.linalg.eigvals(torch.nan_to_num(recurrent, 0.0, 0.0, 0.0)).abs().amax(-1)
        table.add("spectral_radius", 0, torch.where(whole, largest, torch.nan))
    return table.nets(count)


# -- element by element ------------------------------------------------------------------------------------------


def _activate(activation: str, z: Tensor) -> Tensor:
    if activation == "softsign":
        return z / (1 + z.abs())
    named = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
    return named[activation](z) if activation in named else z


def _slope(activation: str, f: Tensor) -> Tensor:
    """f'(z), given f(z)."""
    if activation == "sigmoid":
        return f * (1 - f)
    if activation == "tanh":
        return 1 - f * f
    if activation == "softsign":
        return (1 - f.abs()).square()
    return (f > 0).to(f.dtype) if activation == "relu" else torch.ones_like(f)


def _output_gradient(loss: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Gradient of each example's cost with respect to its logits."""
    if loss == "squared":
        return 2 * (logits - targets)
    return (torch.softmax(logits, -1) if loss == "softmax" else torch.sigmoid(logits)) - targets


def _saturated(activation: str, f: Tensor) -> Tensor:
    """Share of saturated units, over units and examples: [K, M] to [K]."""
    if activation == "tanh":
        flat = f.abs() > _TANH
    elif activation == "sigmoid":
        flat = (f - 0.5).abs() > 0.5 - _SIGMOID
    elif activation == "softsign":
        flat = f.abs() > _SOFTSIGN
    elif activation == "relu":
        flat = f == 0
    else:
        return f.new_zeros(len(f))
    return flat.to(f.dtype).mean(-1)  # torch.count_nonzero is three times slower


def _mean_and_sd(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each row; torch.std_mean is several times slower."""
    mean = values.mean(-1)
    return mean, _root_mean_square(values - mean.unsqueeze(-1))


def _root_mean_square(values: Tensor) -> Tensor:
    """Of each row, squared and summed in float64."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=-1, dtype=torch.float64)
    return norm / math.sqrt(values.shape[-1])


def _percentile(values: Tensor) -> Tensor:
    """The least absolute value that 98% of a row do not exceed."""
    rank = int(np.ceil(_PERCENTILE * values.shape[-1])) - 1
    found: Array = np.partition(values.abs().cpu().numpy(), rank, axis=-1)[:, rank]
    return torch.from_numpy(found)


def _histogram(values: Tensor, ends: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Counts [K, BINS] of each row's values, and the outer edges [K, 2]; no counts where not all are finite."""
    rows = len(values)
    if ends is None:
        reach = _REACH * _root_mean_square(values)
        whole = reach.isfinite()
        reach = torch.where(whole & (reach > 0), reach, 1.0)
        edges = torch.stack([-reach, reach], -1)
    else:
        whole = values.sum(-1).isfinite()
        edges = torch.tensor(ends, dtype=torch.float64, device=values.device).expand(rows, 2)
    scale = BINS / (edges[:, 1:] - edges[:, :1])
    places = (
        ((values - edges[:, :1].to(values.dtype)) * scale.to(values.dtype))
        .nan_to_num_(0.0)
        .clamp_(0, BINS - 1)
        .to(torch.int64)
    )
    places += BINS * torch.arange(rows, device=values.device).unsqueeze(-1)
    counts = torch.bincount(places.flatten(), minlength=rows * BINS).view(rows, BINS)
    return counts.double() * whole.unsqueeze(-1), edges
