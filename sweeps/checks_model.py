"""Which model, task, init and method go together: errors that no single key of a spec can show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sweeps import checks_own_model
from sweeps.errors import Problem, nearest
from sweeps.parameters import TUNABLE, Choice, Fixed, Int, Scalar
from sweeps.schema import Fields
from sweeps.shapes import Shape
from trainers.config import INITS, METHODS, TASKS
from trainers.tasks.options import info

_OTHER_LOSSES = {"logistic": ("squared",), "softmax": ("squared",)}
"""What a net can be trained on beside a task's own loss: any targets can be met by linear outputs."""


def shape_of(spec: Fields) -> Shape:
    """The family of nets of a spec, with what it leaves open filled in. Raises TaskError as `options.info` does."""
    known, model = info(spec.task.name, spec.task.settings), spec.model
    kind = model.kind or {"autoencoder": "autoencoder", "sequence": "rnn"}.get(known.kind, "mlp")
    widths = tuple(model.widths) if isinstance(model.widths, list) else model.widths
    eta = 1.0 if model.eta is None else model.eta
    code, loss = model.code or "linear", model.loss or ""
    return Shape(known, kind, widths, model.arrangements, eta, code, loss, model.options)


def init_of(spec: Fields, shape: Shape) -> str:
    """The init of trials that take none from the space."""
    return spec.training.init or ("echo" if shape.kind == "rnn" else "sparse")


def values_of(spec: Fields, name: str, fallback: Scalar) -> list[Scalar]:
    """Every value of a name that is no range which some trial can have."""
    parameter = spec.space.get(name)
    if parameter is None:
        return [fallback]
    return [*(parameter.values or []), *([fallback] if parameter.when else [])]


def problems(spec: Fields, shape: Shape) -> Iterator[Problem]:
    """Kinds, depths, widths, factors, losses, inits and methods that the task's nets cannot have."""
    task = shape.info
    if shape.own:
        yield from checks_own_model.problems(spec)
        yield from _loss(spec, shape)
        return
    if spec.model.options:
        wrong = f"this {shape.noun} takes no options"
        yield Problem("model.options", wrong, allowed="model.kind: package.module:function, of your own")
    fits, names = _kinds(shape)
    if shape.kind not in fits:
        wrong = f"task {task.name} is no {names.get(shape.kind, '')} task"
        if task.kind == "sequence":
            wrong = f"task {task.name} is of sequences, which only a recurrent net reads"
        tasks = [other.name for other in TASKS.values() if other.kind == names.get(shape.kind)]
        allowed = ", ".join(fits) + (f", or one of the tasks {', '.join(tasks)}" if tasks else "")
        yield Problem("model.kind", wrong, shape.kind, allowed, fits[0])
        return
    if shape.kind == "autoencoder" and not shape.encoder:
        wrong = f"task {task.name} names no encoder, so its widths must be given"
        yield Problem("model.widths", wrong, allowed="widths after the inputs, the code's last, as in [400, 100, 25]")
        return
    yield from _depths(spec, shape)
    yield from _widths(spec, shape)
    yield from _parts(spec, shape)
    yield from _training(spec, shape)


def _kinds(shape: Shape) -> tuple[tuple[str, ...], dict[str, str]]:
    """The kinds of model that the task can have, and the kind of task that a kind of model needs."""
    names = {"autoencoder": "autoencoder", "rnn": "sequence"}
    if shape.info.kind == "sequence":
        return ("rnn",), names
    return ("mlp", "residual", *(("autoencoder",) if shape.info.kind == "autoencoder" else ())), names


def _depths(spec: Fields, shape: Shape) -> Iterator[Problem]:
    wrong = f"this {shape.noun} cannot have that depth"
    if shape.kind == "autoencoder":
        wrong += f" (mirrored, so odd, up to {2 * len(shape.encoder) - 1})"
    elif shape.kind == "residual":
        wrong += " (model.eta has a factor for each hidden layer but the first)"
    depth, depths = spec.model.depth, shape.depths
    if depths is None:
        return
    if depth is not None and depth not in depths:
        yield Problem("model.depth", wrong, depth, shape.allowed)
    searched = spec.space.get("depth")
    if isinstance(searched, Int):
        if bad := [depth for depth in searched.values or [searched.high] if depth not in depths]:
            good = [depth for depth in depths if searched.contains(depth)] or depths
            yield Problem("space.depth", f"{wrong[:-1]}; {bad[0]} is in the range)" if wrong[-1] == ")" else wrong,
                          {"low": searched.low, "high": searched.high}, f"depth: {good}")  # fmt: skip
    elif isinstance(searched, Choice | Fixed):
        for value in searched.values:
            if isinstance(value, int) and value not in depths:
                yield Problem("space.depth", wrong, value, shape.allowed)


def _widths(spec: Fields, shape: Shape) -> Iterator[Problem]:
    """Widths given twice, or to a model that has no choice of them."""
    model, space = spec.model, spec.space
    if shape.kind in ("residual", "rnn"):
        one = f"the hidden layers of a {shape.noun} have one width"
        if model.widths is not None:
            yield Problem("model.widths", one, _plain(model.widths), "model.width")
        if model.arrangements or "widths" in space:
            place = "space.widths" if "widths" in space else "model.arrangements"
            yield Problem(place, one, allowed="model.width, or width in the space")
        return
    if shape.kind == "autoencoder":
        if "width" in space:
            yield Problem("space.width", "an autoencoder's widths are its task's", allowed="model.widths, not searched")
        if model.widths is not None and not isinstance(model.widths, list):
            yield Problem(
                "model.widths", "an autoencoder is mirrored, no rule", _plain(model.widths), "a list of widths"
            )
        if model.arrangements or "widths" in space:
            place = "space.widths" if "widths" in space else "model.arrangements"
            yield Problem(place, "an autoencoder's widths are its task's", allowed="model.widths, not searched")
        return
    if "width" in space and (model.widths or "widths" in space):
        yield Problem("space.width", f"has no effect beside {'model' if model.widths else 'space'}.widths",
                      allowed="one of the two")  # fmt: skip
    if "widths" in space:
        known = ", ".join(model.arrangements) or "none: name some in model.arrangements"
        for value in space["widths"].values or []:
            if value not in model.arrangements:
                yield Problem("space.widths", "no such arrangement", value, known, nearest(value, model.arrangements))
    elif model.arrangements:
        wrong = "has no effect: space.widths does not choose among them"
        yield Problem("model.arrangements", wrong, allowed=f"space.widths: [{', '.join(model.arrangements)}]")


def _parts(spec: Fields, shape: Shape) -> Iterator[Problem]:
    """Factors, code, loss and activation."""
    model = spec.model
    for place, there in (("model.eta", model.eta is not None), ("space.eta_base", "eta_base" in spec.space)):
        if there and shape.kind != "residual":
            yield Problem(place, f"this {shape.noun} has no residual modules", allowed="model.kind: residual")
    if model.eta is not None and "eta_base" in spec.space and not spec.space["eta_base"].when:
        yield Problem("model.eta", "has no effect beside space.eta_base", model.eta, "one of the two")
    if shape.kind == "residual" and isinstance(model.eta, list) and "eta_base" in spec.space:
        yield Problem("model.eta", "a list fits one depth only", model.eta, "1, or {base: 0.9}, beside space.eta_base")
    if model.code is not None and shape.kind != "autoencoder":
        yield Problem("model.code", f"this {shape.noun} has no code layer", model.code, "model.kind: autoencoder")
    yield from _loss(spec, shape)
    if shape.kind == "rnn":
        if model.activation not in (None, "tanh"):
            yield Problem(
                "model.activation", "a recurrent net is of tanh units (S13 section 4)", model.activation, "tanh"
            )
        yield from _refused(spec, "activation", ["tanh"], "a recurrent net is of tanh units (S13 section 4)")


def _loss(spec: Fields, shape: Shape) -> Iterator[Problem]:
    model, own = spec.model, shape.info.loss
    losses = (own, *(_OTHER_LOSSES.get(own, ()) if not shape.info.steps else ()))
    if model.loss is not None and model.loss not in losses:
        yield Problem("model.loss", f"not for task {shape.info.name}", model.loss, ", ".join(losses))


def _training(spec: Fields, shape: Shape) -> Iterator[Problem]:
    """Inits and methods that the model cannot have."""
    inits, methods, net = set(INITS), set(METHODS), f"this {shape.noun}"
    if shape.kind == "rnn":
        methods -= {"diagonal"}
    else:
        inits -= {"echo"}
    if shape.kind in ("rnn", "residual"):
        inits -= {"pretrained"}
    for key, names, legal in (("init", inits, INITS), ("method", methods, METHODS)):
        words = [name for name in legal if name in names]
        value = getattr(spec.training, key)
        if value is not None and value not in names and key not in _always(spec):
            yield Problem(f"training.{key}", f"{net} cannot have it", value, ", ".join(words))
        yield from _refused(spec, key, words, f"{net} cannot have it")


def _always(spec: Fields) -> list[str]:
    """The names that every trial takes from the space."""
    return [name for name, parameter in spec.space.items() if not parameter.when]


def _refused(spec: Fields, name: str, legal: Iterable[str], wrong: str) -> Iterator[Problem]:
    """The values of a name in the space that a model cannot have; unknown ones have been refused before."""
    parameter = spec.space.get(name)
    for value in (parameter.values or []) if parameter else []:
        if value in TUNABLE[name].names and value not in legal:
            yield Problem(f"space.{name}", wrong, value, ", ".join(legal))


def _plain(value: Any) -> Any:
    """A value as YAML has it."""
    return value if isinstance(value, list) else {"rule": value.rule, "a": value.a, "b": value.b}
