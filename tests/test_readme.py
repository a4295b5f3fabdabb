"""Every command, page and call of the README is run: here, or by the test named beside it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
WORDS = re.compile(r"(?:\$ )?((?:musweep|make|mlflow|curl) .*)")

ELSEWHERE = {
    "make sweep": "the README's two commands are typed in a fresh clone before an issue is closed",
    "make test": "this very run",
    "musweep run s13-table2 --protocol reduced": (  # checked there; it takes minutes to run
        "tests/cluster/test_reproduce.py::test_claims_and_plots_take_in_every_trial"
    ),
    "musweep run spec.yaml --set budget.trials=200 --set space.lr.high=0.5": (
        "tests/cluster/test_cli.py::test_overrides_reach_the_spec"
    ),
    "musweep run runs/SWEEP --more 100": "tests/cluster/test_sweep_life.py::test_run_interrupt_resume_extend_export",
    "musweep submit spec.yaml --to lab": "tests/cluster/test_submit.py::test_a_real_cluster_from_an_odd_folder",
    "musweep status ID": "tests/cluster/test_submit.py::test_a_real_cluster_from_an_odd_folder",
    "musweep clusters check lab": "tests/cluster/test_submit.py::test_a_real_cluster_from_an_odd_folder",
    "musweep retry runs/SWEEP --failed": "tests/sweeps/test_retry.py::test_what_cannot_be_retried_is_said_in_one_line",
    "musweep scheduler": "tests/cluster/test_night_life.py::test_a_night_end_to_end",
    "mlflow server --backend-store-uri sqlite:///runs/mlflow.db --port 5000": (
        "tests/sweeps/test_tracking.py::test_a_server_that_hangs_in_mid_sweep"
    ),
    "musweep reproduce hr18-fig1": (
        "tests/cluster/test_reproduce.py::test_a_computed_figure_is_stored_and_read_back"
    ),
    "musweep reproduce --write": (
        "tests/dashboards/test_reproduction.py::test_committed_page_is_what_the_committed_results_say"
    ),
}  # fmt: skip
"""Lines that are run by other tests, and by which."""

LIVED = [
    "musweep check spec.yaml",
    "musweep plan spec.yaml",
    "musweep run first.yaml",
    "musweep resume runs/SWEEP",
    "musweep ls",
    "musweep show latest",
    "musweep show latest t00012",
    "musweep confirm latest --hf",
    "musweep compare latest",
    "musweep export latest --format csv",
    "musweep export latest --model 12",
    "musweep report latest --open",
    "musweep sync latest",
    "musweep logs SWEEP t00012",
    "musweep doctor runs/SWEEP",
    "musweep fork latest --at 900 --set tail_updates=[0,100]",
]
"""Lines of one life, in its order; the sweep is a small one."""

ALONE = [
    "musweep doctor",
    "musweep schema",
    "musweep queue",
    "musweep render spec.yaml --to night",
    "musweep metrics runs",
    "musweep gc runs",
    'musweep schedule add optimisers nightly/optimisers --cron "30 2 * * *" --zone Europe/London --notify env:CHAT',
    "musweep schedule ls",
    "musweep schedule history optimisers",
    "musweep schedule check",
    "musweep token add ana --role operator",
]
"""Lines that need no sweep, in an order in which they can be run."""

SERVED = ["musweep serve", "musweep --server https://lab.example ls", "curl -s http://127.0.0.1:8321/api/v1/sweeps"]

SMALL = {
    "musweep run first.yaml": (
        "--set budget.trials=14 --set training.updates=920 --set training.reports=92 --set training.keep=[900] "
        "--set model.width=8 --set model.depth=1 --set early_stopping=null --set resources.workers=1"
    ),
    "musweep confirm": "--top 1 --seeds 2",
    "musweep fork": "--updates 20",
    "musweep metrics": "--once",
}
"""What makes a line's work small."""


def lines() -> list[str]:
    """The commands of the README's blocks, without what is said beside them."""
    found = []
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", README, flags=re.DOTALL):
        for line in block.splitlines():
            if match := WORDS.fullmatch(line):
                found.append(re.split(r"\s+# ", match.group(1))[0].strip())
    return found


def test_every_command_of_the_readme_is_run_somewhere() -> None:
    assert sorted(lines()) == sorted([*ELSEWHERE, *LIVED, *ALONE, *SERVED])


@pytest.mark.parametrize("where", [each for each in ELSEWHERE.values() if each.startswith("tests/")])
def test_the_tests_named_here_are_there(where: str) -> None:
    path, _, name = where.partition("::")
    assert f"def {name or 'test_'}" in (ROOT / path).read_text()


class Terminal:
    """A folder to type in, as a newcomer's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        self.env |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder / "state"), "BROWSER": "true"}
        self.env.pop("MUSWEEP_DATABASE", None)
        blocks = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
        first = next(block for block in blocks if block.startswith("name: first"))
        (folder / "first.yaml").write_text(first)
        (folder / "spec.yaml").write_text(first.replace("name: first", "name: spec"))
        clusters = next(block for block in blocks if "clusters.yaml" in block)
        (folder / "clusters.yaml").write_text(f"{clusters}here: {{kind: local, queue: true}}\n")

    @property
    def sweep(self) -> str:
        """The name of the newest sweep."""
        found = sorted((self.folder / "runs").glob("first-*"), key=lambda path: path.stat().st_mtime)
        return found[-1].name if found else "SWEEP"

    def words(self, line: str) -> list[str]:
        """A line as it is typed here, with a smaller sweep."""
        small = next((more for begin, more in SMALL.items() if line.startswith(begin)), "")
        return shlex.split(line.replace("SWEEP", self.sweep)) + shlex.split(small)

    def type(self, line: str, code: int = 0) -> str:
        """Type a line; return what it prints."""
        command = [sys.executable, "-P", "-m", "cluster.cli", *self.words(line)[1:]]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=250, check=False
        )
        assert done.returncode == code, f"{line}: exit {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        return done.stdout


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("readme"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_life_of_sweeps_as_the_readme_tells_it(terminal: Terminal) -> None:
    said = {line: terminal.type(line) for line in LIVED}
    assert said["musweep check spec.yaml"].startswith("ok: spec.yaml")
    assert "look again:  musweep show runs/first-" in said["musweep run first.yaml"]
    assert "14 trials" in said["musweep show latest"]
    assert "HF" in said["musweep compare latest"]
    assert (terminal.folder / "runs" / terminal.sweep / "report.html").exists()
    assert "consistent" in said["musweep doctor runs/SWEEP"]


@pytest.mark.slow
def test_commands_that_need_no_sweep(terminal: Terminal) -> None:
    said = {line: terminal.type(line) for line in ALONE}
    assert '"properties"' in said["musweep schema"]
    assert said["musweep render spec.yaml --to night"].startswith("#!/")
    assert "optimisers" in said["musweep schedule ls"]
    assert said["musweep schedule check"] == "optimisers: waiting: no night is over yet\n"
    assert said["musweep token add ana --role operator"].startswith("msw_")


@pytest.fixture
def served(tmp_path: Path) -> Generator[tuple[Terminal, str]]:
    """`musweep serve` on a port of its own; the lines of the README with its address."""
    terminal = Terminal(tmp_path)
    command = [sys.executable, "-P", "-m", "cluster.cli", "serve", "--port", "0"]
    with (tmp_path / "said").open("w") as said:
        running = subprocess.Popen(command, cwd=tmp_path, env=terminal.env, stdout=said, stderr=subprocess.STDOUT)
        try:
            limit = time.monotonic() + 60
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", (tmp_path / "said").read_text())):
                assert running.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < limit
                time.sleep(0.1)
            yield terminal, found.group(0)
        finally:
            running.terminate()
            running.wait(30)


@pytest.mark.slow
def test_the_service_as_the_readme_tells_it(served: tuple[Terminal, str]) -> None:
    from tests.dashboards.synthetic import Sweep, make

    terminal, url = served
    make(terminal.folder / "runs" / "curves-depth-1", Sweep(trials=8))
    assert "curves-depth" in terminal.type(f"musweep --server {url} ls")
    call = re.search(r"curl -s http://127.0.0.1:8321(/\S+)", README)
    assert call is not None
    (sweep,) = requests.get(url + call.group(1), timeout=20).json()["rows"]
    assert sweep["id"] == "curves-depth-1"
    (client,) = (block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "Client" in block)
    code = client.replace("http://127.0.0.1:8321", url)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=terminal.folder, env=terminal.env, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("curves-depth-1 finished ")
    if curl := shutil.which("curl"):
        assert subprocess.run([curl, "-s", url + call.group(1)], capture_output=True, check=True).stdout[:1] == b"{"
