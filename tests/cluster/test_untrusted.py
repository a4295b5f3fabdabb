"""What a folder that others made can do to a terminal: nothing."""

from pathlib import Path

import pytest

from cluster import cli
from tests.sweeps.confirmed import HF, NAG, TEN, Point, make, times


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["compare", "show"])
def test_what_a_folder_says_does_not_reach_the_terminal_as_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    point = {**NAG, "x\x1b[2J": "[red]\x9b31m"}
    make(tmp_path / "odd", Point(point, 0.4, TEN), Point(HF, 0.45, times(1.5), "hf"))
    assert not {"\x1b", "\x9b"} & set(said([command, str(tmp_path / "odd")], capsys))


def test_values_without_a_mean_of_errors_are_not_said_to_be_unfinished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, Point(NAG, -0.7, [-end for end in TEN]), spec={"baselines": []}, start=-1.0)
    out = " ".join(said(["compare", str(folder)], capsys).split())
    assert "10 runs, whose values have no mean of errors" in out
