"""published.yaml holds what the papers print: typed here once more, row by row as SCIENCE 8 lists it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps import published
from sweeps.published import Ours, Value, comparable
from sweeps.spec import parse

ROOT = Path(__file__).parents[2]

MOMENTA = (".9", ".99", ".995", ".999")
TABLE_1: dict[
    str, tuple[list[float], list[float], list[float], list[float | None]]
] = {  # rows 1 to 12: SGD; NAG and CM by mu_max; SGD_C, HF+, HF*
    "Curves": ([0.48], [0.16, 0.096, 0.091, 0.074], [0.15, 0.10, 0.10, 0.10], [0.16, 0.058, 0.11]),
    "Mnist": ([2.1], [1.0, 0.73, 0.75, 0.80], [1.0, 0.77, 0.84, 0.90], [0.9, 0.69, 1.40]),
    "Faces": ([36.4], [14.2, 8.5, 7.8, 7.7], [15.3, 8.7, 8.3, 9.3], [None, 7.5, 12.0]),
}
TABLE_5 = {  # rows 15 to 18: biases, 0, then NAG and CM at .9, .98, .995
    "add T=80": [0.82, 0.39, 0.02, 0.21, 0.00025, 0.43, 0.62, 0.036],
    "mul T=80": [0.84, 0.48, 0.36, 0.22, 0.0013, 0.029, 0.025, 0.37],
    "mem-5 T=200": [2.5, 1.27, 1.02, 0.96, 0.63, 1.12, 1.09, 0.92],
    "mem-20 T=80": [8.0, 5.37, 2.77, 0.0144, 0.00005, 1.75, 0.0017, 0.053],
}
GB10 = {  # rows 23 to 26: softsign, softsign N, tanh, tanh N, sigmoid
    "Shapeset": [16.27, 16.06, 27.15, 15.60, 82.61],
    "MNIST": [1.64, 1.72, 1.76, 1.64, 2.21],
    "CIFAR-10": [55.78, 53.8, 55.9, 52.92, 57.28],
    "ImageNet": [69.14, 68.13, 70.58, 68.57, 70.66],
}


def expected() -> dict[tuple[str, str, str], float | None]:
    """(table, row, column) of each number that SCIENCE 8 tags verified, with the number."""
    found: dict[tuple[str, str, str], float | None] = {}
    for row, (sgd, nag, cm, others) in TABLE_1.items():
        columns = ["0 (SGD)", *(f"{mu}N" for mu in MOMENTA), *(f"{mu}M" for mu in MOMENTA), "SGD_C", "HF†", "HF*"]
        found |= {("s13-table1", row, c): v for c, v in zip(columns, [*sgd, *nag, *cm, *others], strict=True)}
    for row, before, after in (("Curves", 0.096, 0.074), ("Mnist", 1.20, 0.73), ("Faces", 10.83, 7.7)):  # row 13
        found |= {("s13-table2", row, "before"): before, ("s13-table2", row, "after"): after}
    for scale, error in (("0.25", 16), ("0.5", 16), ("1", 0.074), ("2", 0.083), ("4", 0.35)):  # row 14
        found["s13-table3", "Curves", scale] = error
    columns = ["biases", "0", ".9N", ".98N", ".995N", ".9M", ".98M", ".995M"]
    for row, values in TABLE_5.items():
        found |= {("s13-table5", row, c): v for c, v in zip(columns, values, strict=True)}
    found |= {  # row 19
        ("s13-a6", "Curves", "small minibatches"): 0.0094,
        ("s13-a6", "Curves", "larger minibatches"): 0.087,
        ("s13-a6", "Curves", "less L2"): 0.058,
        ("s13-a6", "Mnist", "small minibatches"): 0.81,
        ("s13-a6", "Mnist", "larger minibatches"): 0.69,
    }
    for column, values in GB10.items():
        types = ["Softsign", "Softsign N", "Tanh", "Tanh N", "Sigmoid"]
        found |= {("gb10-table1", row, column): v for row, v in zip(types, values, strict=True)}
    found |= {  # rows 27, 28 and 33
        ("gb10-shapeset-100k", "100,000 images", "SVM"): 59.47,
        ("gb10-shapeset-100k", "100,000 images", "Tanh N"): 50.47,
        ("gb10-jacobian", "printed", "normalized"): 0.8,
        ("gb10-jacobian", "printed", "standard"): 0.5,
        ("s13-theorem2.1", "NAG", "momentum of CM"): None,
    }
    return found


def test_every_verified_number_is_there_and_no_other() -> None:
    held = {(v.table, v.row, v.column): v.value for v in published.values(certainty="verified")}
    assert held == expected()
    assert len(held) == 36 + 6 + 5 + 32 + 5 + 20 + 2 + 2 + 1


def test_what_is_not_verified_is_not_said_to_be() -> None:
    assert {v.certainty for v in published.values()} == {"verified", "derived", "second-hand", "memory"}
    assert {v.certainty for v in published.values("martens10-table2")} == {"memory"}
    assert {v.certainty for v in published.values("hs06-autoencoders")} == {"second-hand"}
    rows = {(v.row, v.column): v.value for v in published.values("martens10-table2")}
    found = [rows[data, f"RAND+HF, {part}"] for data in ("CURVES", "MNIST", "FACES") for part in ("train", "test")]
    assert found == [0.11, 0.20, 1.64, 2.78, 55.4, 139]  # rows 20, 21
    hs06 = {(v.row, v.column): v.value for v in published.values("hs06-autoencoders")}
    assert (hs06["CURVES", "AE-6"], hs06["CURVES", "PCA-18"]) == (1.44, 5.90)  # row 22
    assert [hs06[row, f"{kind}-30"] for row in ("MNIST", "FACES") for kind in ("AE", "PCA")] == [3, 13.87, 126, 135]


def test_the_theory_beside_the_printed_round_numbers_is_the_formulas() -> None:
    """8/(3 pi) sqrt(n Var), n Var being 1 with normalized init of square layers, else 1/3 (GB10 eq. 15, 16)."""
    theory = {v.column: v.value for v in published.values("gb10-jacobian", certainty="derived")}
    assert theory["normalized"] == pytest.approx(8 / (3 * 3.14159265), abs=5e-4)
    assert theory["standard"] == pytest.approx(8 / (3 * 3.14159265) / 3**0.5, abs=5e-4)


def test_nothing_is_in_the_file_from_a_paper_without_printed_numbers() -> None:
    assert not [value for value in published.values() if "Hanin" in value.paper]


def test_the_last_columns_agree_across_tables() -> None:
    """Table 2's after-column is Table 1's best NAG; A.6 ends at its HF column (SCIENCE 1.3, 1.6)."""
    for row in ("Curves", "Mnist", "Faces"):
        best = min(v.value or 9 for v in published.values("s13-table1", row=row, method="nag"))
        (after,) = published.values("s13-table2", row=row, column="after")
        assert after.value == best
    for row, last in (("Curves", "less L2"), ("Mnist", "larger minibatches")):
        (hf,) = published.values("s13-table1", row=row, column="HF†")
        (end,) = published.values("s13-a6", row=row, column=last)
        assert hf.value == end.value


def test_every_value_says_where_it_is_from() -> None:
    for value in published.values():
        assert all((value.paper, value.place, value.unit, value.protocol))
        assert value.source.startswith(f"{value.paper}, {value.place}")
        assert value.page is None or value.page > 0
    value = published.values("s13-table1", task="mnist-ae", method="nag", mu_max=0.99)[0]
    assert (value.value, value.row, value.column, value.updates, value.batch) == (0.73, "Mnist", ".99N", 750_000, 200)
    assert dataclasses.replace(value, page=7).source == "Sutskever, Martens, Dahl, Hinton 2013, Table 1, p. 7"


def test_tables_know_their_tasks() -> None:
    assert published.table("s13-table1").tasks == ("curves", "mnist-ae", "faces")
    assert published.table("s13-theorem2.1").tasks == ()
    assert published.tasks() == {
        "curves", "mnist-ae", "faces", "add", "mul", "mem-5", "mem-20", "shapeset", "mnist", "cifar10",
        "small-imagenet",
    }  # fmt: skip
    with pytest.raises(KeyError):
        published.table("s13-table9")


MNIST = Ours(
    "mnist-ae", "train_squared_error", 750_000, 200, (784, 1000, 500, 250, 30, 250, 500, 1000, 784), 60_000, None, False
)


def nag(task: str = "mnist-ae") -> Value:
    return published.values("s13-table1", task=task, column=".99N")[0]


def test_the_same_protocol_on_the_same_data_is_comparable() -> None:
    assert comparable(nag(), MNIST) == (True, "")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"look_alike": True, "source": "look-alike of MNIST"},
         "ours are other data than the paper's (look-alike of MNIST)"),
        ({"metric": "valid_squared_error"}, "it is train_squared_error, ours is valid_squared_error"),
        ({"updates": 3000}, "750,000 updates, ours 3,000"),
        ({"batch": None}, "200 examples a batch, ours several"),
        ({"train_examples": 10_000}, "60,000 training examples, ours 10,000"),
        ({"widths": (784, 30, 784)}, "net 784-1000-500-250-30-250-500-1000-784, ours 784-30-784"),
        ({"widths": None}, "net 784-1000-500-250-30-250-500-1000-784, ours several nets"),
        ({"task": "faces"}, "of task mnist-ae, not faces"),
        ({"updates": 100, "batch": 10}, "750,000 updates, ours 100; 200 examples a batch, ours 10"),
    ],
)  # fmt: skip
def test_whatever_differs_forbids_it_and_is_said(change: dict[str, Any], why: str) -> None:
    assert comparable(nag(), dataclasses.replace(MNIST, **change)) == (False, why)


def test_other_protocols_and_unsure_numbers_are_never_comparable() -> None:
    for value in published.values(task="mnist-ae"):
        same, why = comparable(value, dataclasses.replace(MNIST, metric=(*value.metric, "")[0]))
        assert same == (value.table in ("s13-table1", "s13-table2") and not value.differs and value.column != "before")
        assert same or why
    (hf,) = published.values("s13-table1", task="mnist-ae", column="HF†")
    assert "its work is not matched" in comparable(hf, MNIST)[1]
    (old,) = published.values("martens10-table2", row="MNIST", column="RAND+HF, train")
    why = "not checked against a copy of the paper; S13's Table 1 has another number for the same result"
    assert comparable(old, MNIST) == (False, why)


def test_a_look_alikes_errors_are_never_equals() -> None:
    spec = parse({"task": "curves", "training": {"updates": 750_000, "batch": 200}})
    data = {"source": "look-alike of CURVES", "look_alike": True, "train_examples": 20_000}
    nothing: dict[str, Any] = {}
    for params in (None, nothing):
        ours = published.ours(spec, "train_squared_error", params, data)
        for value in published.values(task="curves"):
            same, why = comparable(value, ours)
            assert not same
            assert "look-alike of CURVES" in why
    original = published.ours(spec, "train_squared_error", {}, {**data, "look_alike": False})
    assert comparable(nag("curves"), original) == (True, "")
    assert not comparable(nag("curves"), published.ours(spec, "train_squared_error"))[0]  # nothing known of the data


def test_what_a_sweep_did_is_read_from_its_spec() -> None:
    data = {"source": "MNIST", "look_alike": False, "train_examples": 60_000}
    spec = parse({"task": "mnist-ae", "space": {"depth": [1, 7], "batch": [100, 200]}})
    ours = published.ours(spec, "train_squared_error", None, data)
    assert (ours.widths, ours.batch, ours.train_examples) == (None, None, 60_000)
    ours = published.ours(spec, "train_squared_error", {"depth": 7, "batch": 200}, data)
    assert (ours.widths, ours.batch) == (nag().widths, 200)
    assert comparable(nag(), dataclasses.replace(ours, updates=750_000)) == (True, "")
    own = parse({"trainer": "email.message:Message", "objective": "loss", "space": {"x": [1, 2]}})
    assert published.ours(own, "loss").widths is None


def test_a_value_as_a_comparison_holds_it() -> None:
    shown = published.shown(nag(), MNIST)
    assert (shown.table, shown.row, shown.column, shown.value) == ("s13-table1", "Mnist", ".99N", 0.73)
    assert (shown.comparable, shown.why, shown.certainty) == (True, "", "verified")
    assert shown.source == "Sutskever, Martens, Dahl, Hinton 2013, Table 1"


def test_percentages_are_shares_here() -> None:
    (value,) = published.values("gb10-table1", row="Tanh N", column="MNIST")
    assert (value.value, value.unit) == (1.64, "% of test examples")
    assert value.ours == pytest.approx(0.0164)


def test_headers_of_shipped_specs_print_the_same_numbers() -> None:
    """The reproductions' specs print Table 1 rows: SGD; NAG by mu_max; CM by mu_max."""
    for task, row in (("curves", "Curves"), ("mnist", "Mnist"), ("faces", "Faces")):
        header = (ROOT / "sweeps" / "specs" / f"s13-table1-{task}.yaml").read_text().split("\nname:")[0]
        told = re.search(r"likewise\): (.*?)\. [0-9 ]*,?[^.]*updates", header.replace("\n# ", " "))
        assert told is not None, header
        numbers = [float(word) for word in re.findall(r"[0-9]*\.?[0-9]+", told[1])]
        sgd, nags, cms, _ = TABLE_1[row]
        assert numbers == [*sgd, *nags, *cms]


def test_the_file_is_read_only_where_it_is_needed() -> None:
    code = "import sys; from sweeps.spec import load; load('curves'); print('sweeps.published' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "False"
