"""What a user can get wrong in a spec, and the one line that each mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import parameters
from sweeps.schema import Fields
from sweeps.schema_trial import Training
from sweeps.spec import SpecError, load, shipped
from trainers import config
from trainers.tasks import options

GOOD = """\
task: curves
training: {updates: 2000, mu_step: 20}
space:
  mu_max: {type: float, low: 0.8, high: 0.995, scale: one_minus_log}
  lr: {type: float, low: 0.001, high: 0.1, scale: log}
  method: [cm, nag]
  init: [sparse, normalized]
  fan_in: {type: int, low: 5, high: 30, when: {init: sparse}}
  depth: [3, 7, 11]
"""

TUNABLE = ", ".join(parameters.TUNABLE)
TRAINING = ", ".join(Training.model_fields)
TOP = ", ".join(Fields.model_fields)
INITS = ", ".join(config.INITS)
METRICS = "train_loss, train_squared_error, valid_loss, valid_squared_error"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


# (`--set` of a good spec that makes the mistake, the line it is answered with)
MISTAKES: dict[str, tuple[str | tuple[str, ...], str]] = {
    "unknown key": (
        "training.updatse=5",
        f"training.updatse=5: unknown key; allowed: {TRAINING}; did you mean updates?",
    ),
    "key of another section": (
        "trials=4",
        f"trials=4: unknown key; allowed: {TOP}; did you mean budget.trials?",
    ),
    "mistyped key of another section": (
        "tials=4",
        f"tials=4: unknown key; allowed: {TOP}; did you mean budget.trials?",
    ),
    "another tool's word": (
        "training.learning_rate=0.1",
        f"training.learning_rate=0.1: unknown key; allowed: {TRAINING}; did you mean lr?",
    ),
    "unknown key of a parameter": (
        "space.lr.hihg=1",
        "space.lr.hihg=1: unknown key; allowed: low, high, scale, when, type; did you mean high?",
    ),
    "unknown task": (
        "task=curvse",
        f"task.name=curvse: unknown task; allowed: {', '.join(options.ENTRIES)}; did you mean curves?",
    ),
    "unknown init": (
        "training.init=sparce",
        f"training.init=sparce: unknown init; allowed: {INITS}; did you mean sparse?",
    ),
    "unknown init in the space": (
        "space.init=[sparse, glorot]",
        f"space.init=glorot: unknown init; allowed: {INITS}; did you mean normalized?",
    ),
    "unknown activation": (
        "model.activation=sigmoidal",
        "model.activation=sigmoidal: unknown activation; allowed: sigmoid, tanh, relu, softsign, linear; "
        "did you mean sigmoid?",
    ),
    "unknown parameter": (
        "space.momentum={type: float, low: 0.1, high: 0.9}",
        f"space.momentum: unknown parameter; allowed: {TUNABLE}; did you mean mu_max?",
    ),
    "parameter set that is not searched": (
        "space.lrr.high=0.5",
        "space.lrr.high=0.5: lrr is not in the space, so it has no high; "
        "allowed: mu_max, lr, method, init, fan_in, depth; did you mean space.lr?",
    ),
    "unknown kind of parameter": (
        "space.lr.type=flaot",
        "space.lr.type=flaot: unknown type; allowed: float, int, choice, fixed; did you mean float?",
    ),
    "parameter without a type": (
        "space.batch={low: 10, high: 100}",
        'space.batch={"low": 10, "high": 100}: a parameter needs a type; allowed: type: float, int, choice, fixed',
    ),
    "wrong kind for a whole number": (
        "space.fan_in={type: float, low: 5, high: 30}",
        "space.fan_in.type=float: fan_in is a whole number; allowed: int, choice, fixed",
    ),
    "wrong kind for a name": (
        "space.activation={type: int, low: 1, high: 3}",
        "space.activation.type=int: activation is a name; allowed: choice, fixed",
    ),
    "empty range": (
        "space.lr.low=0.5",
        "space.lr.low=0.5: empty range: not below high=0.1",
    ),
    "empty whole range": (
        "space.fan_in.low=30",
        "space.fan_in.low=30: empty range: not below high=30",
    ),
    "log range through 0": (
        "space.lr.low=0",
        "space.lr.low=0.0: a log range cannot reach 0; allowed: a number above 0, or scale: linear",
    ),
    "log range from below 0": (
        "space.lr.low=-1",
        "space.lr.low=-1.0: a log range cannot reach 0; allowed: a number above 0, or scale: linear",
    ),
    "one_minus_log up to 1": (
        "space.mu_max.high=1",
        "space.mu_max.high=1.0: one_minus_log needs values in [0, 1); allowed: a number in [0, 1); did you mean 0.999?",
    ),
    "one_minus_log from below 0": (
        "space.mu_max.low=-0.5",
        "space.mu_max.low=-0.5: one_minus_log needs values in [0, 1); allowed: a number in [0, 1)",
    ),
    "unknown scale": (
        "space.mu_max.scale=one_minus_lgo",
        "space.mu_max.scale=one_minus_lgo: not one of the choices; allowed: linear, log, one_minus_log; "
        "did you mean one_minus_log?",
    ),
    "missing end of a range": (
        "space.lr={type: float, low: 0.1}",
        "space.lr.high: missing",
    ),
    "choice given twice": (
        "space.depth=[3, 7, 3]",
        "space.depth.values=[3, 7, 3]: 3 given twice; allowed: each value once",
    ),
    "no choices": (
        "space.depth=[]",
        "space.depth.values=[]: no values to choose from; allowed: a list of values",
    ),
    "true as a choice": (
        "space.method=[cm, true]",
        'space.method.values=["cm", true]: not a number or a name; allowed: numbers and names',
    ),
    "when on a parameter that is not searched": (
        "space.lr.when={batch: 10}",
        "space.lr.when.batch=10: batch is not in the space; allowed: mu_max, lr, method, init, fan_in, depth",
    ),
    "when on an unknown parameter": (
        "space.lr.when={metod: nag}",
        "space.lr.when.metod=nag: unknown parameter; allowed: mu_max, lr, method, init, fan_in, depth; "
        "did you mean method?",
    ),
    "when on a value that cannot be": (
        "space.fan_in.when={init: sprase}",
        "space.fan_in.when.init=sprase: init never has this value; allowed: sparse, normalized; did you mean sparse?",
    ),
    "when on a range": (
        "space.fan_in.when={lr: 0.1}",
        "space.fan_in.when.lr=0.1: lr is a range: it never has just this value; "
        "allowed: a choice, an int or a fixed one",
    ),
    "when in a circle": (
        "space.init={type: choice, values: [sparse, he], when: {fan_in: [10]}}",
        "space.init.when: conditions in a circle: init -> fan_in -> init; allowed: conditions that end somewhere",
    ),
    "depth an autoencoder cannot have": (
        "space.depth=[3, 8]",
        "space.depth=8: this autoencoder cannot have that depth (mirrored, so odd, up to 11); "
        "allowed: 1, 3, 5, 7, 9, 11",
    ),
    "fixed depth beyond the encoder": (
        "model.depth=13",
        "model.depth=13: this autoencoder cannot have that depth (mirrored, so odd, up to 11); "
        "allowed: 1, 3, 5, 7, 9, 11",
    ),
    "range of depths with even ones": (
        "space.depth={type: int, low: 3, high: 7}",
        'space.depth={"low": 3, "high": 7}: this autoencoder cannot have that depth (mirrored, so odd, up to 11; '
        "4 is in the range); allowed: depth: [3, 5, 7]",
    ),
    "autoencoder of a classification": (
        ("task=mnist", "model.kind=autoencoder", "space.depth=null"),
        "model.kind=autoencoder: task mnist is no autoencoder task; "
        "allowed: mlp, residual, or one of the tasks curves, mnist-ae, faces; did you mean mlp?",
    ),
    "width of an autoencoder": (
        "space.width=[32, 64]",
        "space.width: an autoencoder's widths are its task's; allowed: model.widths, not searched",
    ),
    "objective the task does not report": (
        "objective=valid_error",
        f"objective.metric=valid_error: task curves does not report it; allowed: {METRICS}; "
        "did you mean valid_squared_error?",
    ),
    "objective without its part": (
        "objective=squared_error",
        f"objective.metric=squared_error: task curves does not report it; allowed: {METRICS}; "
        "did you mean valid_squared_error?",
    ),
    "objective on test": (
        "objective=test_squared_error",
        "objective.metric=test_squared_error: a search that chose by the test part would leave nothing to judge its "
        f"choice by; allowed: {METRICS}; did you mean valid_squared_error?",
    ),
    "unknown mode": (
        "mode=minimize",
        "mode=minimize: not one of the choices; allowed: min, max; did you mean min?",
    ),
    "unknown algorithm": (
        "search.algorithm=tep",
        "search.algorithm=tep: not one of the choices; allowed: tpe, random, qmc, grid, gp, cmaes; did you mean tpe?",
    ),
    "point outside the space": (
        "search.points=[{lr: 0.5}]",
        "search.points.0.lr=0.5: not in space.lr; allowed: 0.001 to 0.1",
    ),
    "point with an unknown name": (
        "search.points=[{lr: 0.05}, {metod: cm}]",
        "search.points.1.metod=cm: unknown parameter; allowed: mu_max, lr, method, init, fan_in, depth; "
        "did you mean method?",
    ),
    "point with a name that is not active": (
        "search.points=[{init: normalized, fan_in: 10}]",
        "search.points.0.fan_in=10: set only when init is sparse, here normalized; allowed: leave it out",
    ),
    "grid over a range": (
        ("search.algorithm=grid", "search.grid={mu_max: 3}"),
        "search.grid.lr: a grid over a range needs to know how many values; "
        "allowed: a whole number, or space values as a list",
    ),
    "grid beyond all budgets": (
        ("search.algorithm=grid", "search.grid={mu_max: 100, lr: 100}"),
        "search.grid: a grid of 3120000 points; allowed: at most 100000 points",  # 100 * 100 * 2 * 2 * 26 * 3
    ),
    "grid points for a choice": (
        "search.grid={depth: 3}",
        "search.grid.depth=3: is not a range of the space; allowed: mu_max, lr, fan_in",
    ),
    "no trials": (
        "budget.trials=0",
        "budget.trials=0: out of range; allowed: a number, 1 or more",
    ),
    "negative budget": (
        "budget.gpu_hours=-1",
        "budget.gpu_hours=-1: out of range; allowed: a number above 0",
    ),
    "negative time": (
        "budget.wall=-5",
        "budget.wall=-5: not a duration above 0; allowed: seconds, or text such as 90s, 5m, 1h30m, 2d",
    ),
    "bad duration": (
        "budget.wall=8hours",
        "budget.wall=8hours: not a duration; allowed: seconds, or text such as 90s, 5m, 1h30m, 2d",
    ),
    "rung past the end": (
        "early_stopping.rungs=[500, 2000]",
        "early_stopping.rungs.1=2000: past the last report before the end of a trial (2000 updates); "
        "allowed: 1 to 1900",
    ),
    "rungs that do not grow": (
        "early_stopping.rungs=[500, 300]",
        "early_stopping.rungs=[500, 300]: rungs that do not grow; "
        "allowed: auto, null, or a list of growing updates such as [300, 900]",
    ),
    "factor below 2": (
        "early_stopping.factor=1",
        "early_stopping.factor=1: out of range; allowed: a number, 2 or more",
    ),
    "fork longer than a trial": (
        "early_stopping.fork.updates=3000",
        "early_stopping.fork.updates=3000: longer than a trial (2000 updates); allowed: 1 to 2000",
    ),
    "compare within what is not searched": (
        "early_stopping.compare_within=[depht]",
        "early_stopping.compare_within.0=depht: is not searched; allowed: method, init, fan_in, depth; "
        "did you mean depth?",
    ),
    "compare within a range": (
        "early_stopping.compare_within=[lr]",
        "early_stopping.compare_within.0=lr: a range of numbers: no two trials are alike in it; "
        "allowed: method, init, fan_in, depth",
    ),
    "tail longer than a trial": (
        "training.tail_updates=2001",
        "training.tail_updates=2001: a tail longer than the 2000 updates of a trial; allowed: 0 to 2000",
    ),
    "momentum of 1": (
        "training.mu_max=1",
        "training.mu_max=1: out of range; allowed: a number in [0, 1)",
    ),
    "negative learning rate": (
        "training.lr=-0.1",
        "training.lr=-0.1: out of range; allowed: a number above 0",
    ),
    "a name for a number": (
        "training.lr=fast",
        "training.lr=fast: not a number; allowed: a number above 0",
    ),
    "a fraction for a count": (
        "training.updates=10.5",
        "training.updates=10.5: not a whole number; allowed: a whole number",
    ),
    "yes for true": (
        "mlflow.enabled=yes",
        "mlflow.enabled=yes: neither true nor false; allowed: true, false; did you mean true?",
    ),
    "an option that the task does not take": (
        "task={name: digits, holdout: 5}",
        "task: task digits: option holdout=5: this task takes examples, seed",
    ),
    "a password in the tracking URI": (
        "mlflow.uri=postgresql://me:secret@db/mlflow",
        "mlflow.uri: a password here would be stored with every result; "
        "allowed: a URI without one; set MLFLOW_TRACKING_URI for the one with it",
    ),
    "cuda without a GPU": (
        "resources.device=cuda",
        "resources.gpu=0.0: device cuda, but workers reserve no GPU; allowed: a number above 0",
    ),
    "group size of nothing": (
        "search.group_size=0",
        "search.group_size=0: neither auto nor a count; allowed: auto, or a whole number, 1 or more",
    ),
    "a value where keys belong": (
        "budget=48",
        "budget=48: not a section; allowed: keys with values",
    ),
    "name that is no folder": (
        "name=../sweep",
        "name=../sweep: not a name for a folder; allowed: letters, digits, then also . - _",
    ),
}


@pytest.mark.parametrize(("override", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_has_its_line(override: str | tuple[str, ...], line: str, good: Path) -> None:
    overrides = [override] if isinstance(override, str) else override
    with pytest.raises(SpecError) as caught:
        load(good, overrides)
    (found,) = caught.value.lines
    assert found.removeprefix("--set ").removeprefix(f"{good}: ") == line
    assert str(caught.value) == found


def broken(folder: Path, text: str) -> list[str]:
    """The lines that a file's mistakes are answered with, the file's name taken off."""
    path = folder / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load(path)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in caught.value.lines)
    return [line.removeprefix(f"{path}: ") for line in caught.value.lines]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "empty; allowed: keys such as task, training, space, budget"),
        ("- task: curves", "not a spec; allowed: keys such as task, training, space, budget"),
        ("name: x", "task: missing"),
        ("task: curves\ntraining:\n  lr: 0.1\n  lr: 0.2", "training.lr=0.2: key given twice, again on line 4"),
        ("task: curves\nspace: {lr: [0.1], lr: [0.2]}", "space.lr: key given twice, again on line 2"),
        ("task: [curves", "line 1, column 14: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("task: !!python/name:os.system x", "line 1, column 7: not YAML: could not determine a constructor for "
         "the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("task: curves\ntraining: {lr: .nan}", "training.lr=NaN: not a number; allowed: a number above 0"),
        ("task: curves\nspace: {lr: {type: float, low: .inf, high: 1}}", "space.lr.low=Infinity: not a finite number"),
        ("task: curves\nspace: {lr: null}", "space.lr=null: not a parameter; allowed: a section with a type, a list "
         "of values, or one value"),
        ("task: curves\nspace: {method: {type: choice, values: nag}}", "space.method.values=nag: not a list; "
         "allowed: a list"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(text: str, line: str, tmp_path: Path) -> None:
    assert broken(tmp_path, text) == [line]


def test_all_mistakes_of_a_file_are_found_at_once(tmp_path: Path) -> None:
    lines = broken(tmp_path, "task: curvse\ntraining: {lr: 0, init: sprase}\nbudget: {trails: 4}")
    assert [line.split(":")[0] for line in lines] == [
        "task.name=curvse",
        "training.lr=0",
        "training.init=sprase",
        "budget.trails=4",
    ]
    path = tmp_path / "bad.yaml"
    with pytest.raises(SpecError, match=r"\(and 3 more\)$"):
        load(path)


def test_a_mistake_names_who_made_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("task: curves\ntraining: {lr: -1}")
    with pytest.raises(SpecError) as caught:
        load(path, ["training.batch=-1"])
    assert caught.value.lines == [
        "--set training.batch=-1: out of range; allowed: a whole number, 1 or more",
        f"{path}: training.lr=-1: out of range; allowed: a number above 0",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.lr", "training.lr: not an override; allowed: KEY.PATH=VALUE, as in training.lr=0.1"),
        ("=5", "=5: not an override; allowed: KEY.PATH=VALUE, as in training.lr=0.1"),
        ("training..lr=5", "training..lr=5: not an override; allowed: KEY.PATH=VALUE, as in training.lr=0.1"),
        ("training.lr=[", "training.lr: "
         "line 1, column 2: not YAML: expected the node content, but found '<stream end>'"),
        ("training.updates.low=1", "training.updates.low=1: training.updates has no keys below it"),
        ("space.depth.values.5=1", "space.depth.values.5=1: a list of 3 has no place 5; allowed: 0 to 3"),
        ("space.deph=null", "space.deph=null: not in the space; allowed: mu_max, lr, method, init, fan_in, depth; "
         "did you mean depth?"),
    ],
)  # fmt: skip
def test_overrides_that_have_no_place(override: str, line: str, good: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(good, [override])
    assert caught.value.lines == [f"--set {line}"]


def test_a_missing_file_names_the_shipped_specs(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load("digit.yaml")
    assert str(caught.value) == (
        f"digit.yaml: no such file; allowed: a YAML file, or a shipped spec: {', '.join(shipped())}; "
        "did you mean digits?"
    )
    with pytest.raises(SpecError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not text in UTF-8"):
        load(tmp_path / "bytes.yaml")
