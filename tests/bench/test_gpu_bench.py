"""The measurements of `gpu_bench.py` on tiny nets and the CPU: what they say, not how fast it was."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.bench import gpu_bench
from trainers.config import NetConfig
from trainers.stack_methods import Momentum


def test_a_quick_run_on_a_cpu_stores_all_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    words = ["--device", "cpu", "--quick", "--only", "small AE", "--ks", "1", "3", "--seconds", "0.001"]
    assert gpu_bench.main([*words, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["machine"]["device"].startswith("CPU")
    assert found["machine"]["cuda"] is found["machine"]["driver"] is None
    assert len(found["equality"]) == 2 * len(gpu_bench.EQUAL)
    assert all(row["within"] == 1e-12 for row in found["equality"])
    assert [(cell["way"], cell["K"]) for cell in found["cells"]] == [
        ("usual", 1), ("usual, fused", 1), ("host", 1), ("eager", 1), ("host", 3), ("eager", 3),
    ]  # fmt: skip
    for cell in found["cells"]:
        assert cell["trial_updates_per_s"] > 0
        flops = cell["trial_updates_per_s"] * 10 * gpu_bench.QUICK[0].net.flops
        assert cell["tflops"] == pytest.approx(flops / 1e12)
        assert cell["shares"]["arithmetic"] == pytest.approx(flops / found["peaks"]["float32"])
    assert max(cell["over_one_process"] for cell in found["cells"][:2]) == 1
    shown = capsys.readouterr().out
    assert not [word for word in ("NVIDIA", "GPU", "cuda:") if word in path.read_text() + shown]


def test_a_learning_rate_wrong_in_its_eighth_digit_is_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Momentum.table

    def wrong(*arguments: Any) -> Tensor:
        found = table(*arguments)
        found[:, 2] *= 1 + 1e-8
        return found

    monkeypatch.setattr(Momentum, "table", staticmethod(wrong))
    for name, net, kinds in gpu_bench.EQUAL:
        if kinds[0] in ("sgd", "nag"):
            assert gpu_bench.differences(name, net, kinds, "cpu", 2, True)["within"] is None


def test_one_of_many_processes_waits_for_the_word_and_says_its_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n"))
    assert gpu_bench.main(["--worker", "small RNN", "--device", "cpu", "--seconds", "0.001"]) == 0
    ready, rate = capsys.readouterr().out.splitlines()
    assert ready == "ready"
    assert float(rate) > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "cpu", "--precision", "tf32"], "on cpu only float32"),
        ([], "--device cpu --quick"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        gpu_bench.main(words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_what_moves_is_counted_by_hand() -> None:
    state, activations = gpu_bench.traffic(NetConfig((3, 5, 2), ("tanh",), "softmax"), 10)
    assert state == (4 * 5 + 6 * 2) * 7 * 4
    assert activations == (5 + 2) * 10 * 6 * 4
    _, every = gpu_bench.traffic(gpu_bench.recurrent(3, 5, 2, 7, every=True), 10)
    _, once = gpu_bench.traffic(gpu_bench.recurrent(3, 5, 2, 7), 10)
    assert (every, once) == (7 * (5 + 2) * 10 * 6 * 4, (7 * 5 + 2) * 10 * 6 * 4)
