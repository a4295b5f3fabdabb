import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sweeps.capture import Reader, earlier, log_path

ROOT = Path(__file__).parents[2]


def in_a_process(tmp_path: Path, code: str) -> subprocess.CompletedProcess[bytes]:
    """Run code with a Capture `c` of `log`, limited to 2000 bytes, in a process of its own."""
    head = "import ctypes, os, subprocess, sys\nfrom pathlib import Path\nfrom sweeps.capture import Capture\n"
    made = f"c = Capture(Path({str(tmp_path / 'logs' / 'group-003.log')!r}), 2000)\n"
    return subprocess.run(
        [sys.executable, "-c", head + made + textwrap.dedent(code)], cwd=ROOT, capture_output=True, check=False
    )


def log(tmp_path: Path) -> Path:
    path = log_path(tmp_path, 3)
    assert path == tmp_path / "logs" / "group-003.log"
    return path


def test_everything_a_process_prints_is_kept_in_order(tmp_path: Path) -> None:
    done = in_a_process(
        tmp_path,
        """
        print("from Python")
        os.write(2, b"from a file descriptor\\n")
        libc = ctypes.CDLL(None)
        libc.puts(b"from C"); libc.fflush(None)
        subprocess.run(["echo", "from a child"], check=True)
        print("to stderr", file=sys.stderr)
        c.close()
        print("after")
        """,
    )
    assert done.returncode == 0, done.stderr
    lines = ["from Python", "from a file descriptor", "from C", "from a child", "to stderr"]
    assert log(tmp_path).read_text().splitlines() == lines
    assert done.stdout.decode().splitlines() == ["from Python", "after"]  # Python's prints also go where they went
    assert done.stderr.decode().splitlines() == ["to stderr"]


def test_a_crash_loses_nothing(tmp_path: Path) -> None:
    done = in_a_process(tmp_path, 'print("last words"); os.write(1, b"half a line"); os.kill(os.getpid(), 9)')
    assert done.returncode == -9
    assert log(tmp_path).read_bytes() == b"last words\nhalf a line"


def test_a_log_has_a_limit_and_its_reader_knows_whose_lines_are_left(tmp_path: Path) -> None:
    done = in_a_process(
        tmp_path,
        """
        c.mark("began", words="group 3")
        c.mark("seated", ["t00001", "t00002"])
        for n in range(300):
            print(f"line {n} of forty bytes, more or less....")
        c.mark("ended", ["t00001"])
        print("the end")
        """,
    )
    assert done.returncode == 0, done.stderr
    path = log(tmp_path)
    assert path.stat().st_size <= 2100
    assert earlier(path).stat().st_size <= 2100
    assert sorted(file.name for file in path.parent.iterdir()) == ["group-003.log", "group-003.log.1"]
    lines = list(Reader(path).read())
    printed = [line for line in lines if not line.ours]
    assert printed[-1].text == "the end"
    assert printed[-1].trials == {"t00002"}
    assert printed[-2].text.startswith("line 299 ")
    numbers = [int(line.text.split()[1]) for line in printed[:-1]]
    assert numbers == list(range(numbers[0], 300))  # none is missing
    assert all(line.trials == {"t00001", "t00002"} for line in printed[:-1])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_no_error_of_who_prints(tmp_path: Path) -> None:
    done = in_a_process(
        tmp_path,
        """
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1); os.dup2(full, 2)
        print("no room"); print("none here", file=sys.stderr); c.mark("seated", ["t00001"])
        sys.exit(7)
        """,
    )
    assert done.returncode == 7, done.stderr


def test_a_reader_follows_through_rotations(tmp_path: Path) -> None:
    path = log(tmp_path)
    path.parent.mkdir()
    reader = Reader(path)
    assert list(reader.read()) == []
    path.write_bytes(b"[musweep] 2026-01-01T00:00:00Z began group 3\n[musweep] 2026 seated t00007\none\ntw")
    seen = [line for line in reader.read() if not line.ours]
    with path.open("ab") as file:
        file.write(b"o\n")
    path.replace(earlier(path))
    path.write_bytes(b"[musweep] 2026 ended t00007\nthree\n")
    seen += [line for line in reader.read() if not line.ours]
    assert [line.text for line in seen] == ["one", "two", "three"]
    assert [sorted(line.trials) for line in seen] == [["t00007"], ["t00007"], []]


def test_bytes_that_are_no_text_stay_readable(tmp_path: Path) -> None:
    path = log(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe ok\r\n" + os.urandom(0))
    assert [line.text for line in Reader(path).read()] == ["\ufffd\ufffd ok"]
