"""Stands in for Slurm's commands and `ray` where none is installed; $FAKE_SLURM is the folder of what it knows.

Called by the name of a command: jobs are processes of this host, one node each. A file `hold` keeps new ones waiting.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil


def alive(job: dict) -> bool:
    if job["pid"] < 1:
        return False
    try:
        process = psutil.Process(job["pid"])
        return process.create_time() == job["born"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def begin(place: Path, number: int, script: Path) -> None:
    output = re.search(r"^#SBATCH --output=(.+)$", script.read_text(), re.MULTILINE)
    assert output is not None
    with Path(output.group(1).strip("'")).open("ab") as log:
        environment = {**os.environ, "SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "localhost"}
        started = subprocess.Popen(
            ["bash", str(script)], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    born = psutil.Process(started.pid).create_time()
    told = {"pid": started.pid, "born": born, "script": str(script)}
    (place / f"{number}.json").write_text(json.dumps(told))


def sbatch(place: Path, words: list[str]) -> int:
    assert words[0] == "--parsable"
    script = Path(words[1])
    if "no-such-partition" in script.read_text():
        print("sbatch: error: invalid partition specified: no-such-partition", file=sys.stderr)
        return 1
    number = 1 + len(list(place.glob("*.json")))
    if (place / "hold").exists():
        (place / f"{number}.json").write_text(json.dumps({"pid": 0, "born": 0, "script": str(script)}))
    else:
        begin(place, number, script)
    print(number)
    return 0


def squeue(place: Path, words: list[str]) -> int:
    number = next(word.partition("=")[2] for word in words if word.startswith("--jobs="))
    job = json.loads((place / f"{number}.json").read_text())
    if job["pid"] == 0:
        print("PENDING|NodesRequiredDown")
    elif alive(job):
        print("RUNNING|None")
    return 0


def scancel(place: Path, words: list[str]) -> int:
    (place / f"{words[0]}.json").write_text(json.dumps({"pid": -1, "born": 0}))
    return 0


def scontrol(place: Path, words: list[str]) -> int:
    if words[0] == "show":
        print(words[2])
    elif words[0] == "requeue":
        begin(place, int(words[1]), Path(json.loads((place / f"{words[1]}.json").read_text())["script"]))
    return 0


def main() -> int:
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "srun":
        words = words[words.index("ray") :]
        os.execvp(words[0], words)
    if name == "ray":
        words = words[words.index("--") + 1 :]
        os.execvp(words[0], words)
    if name == "sinfo":
        print("slurm 24.05.1")
        return 0
    return {"sbatch": sbatch, "squeue": squeue, "scancel": scancel, "scontrol": scontrol}[name](
        Path(os.environ["FAKE_SLURM"]), words
    )


if __name__ == "__main__":
    sys.exit(main())
