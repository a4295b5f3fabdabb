"""Faults inside a sweep's processes. Python loads this file by its name where tests/chaos/inject is on PYTHONPATH.

`MUSWEEP_CHAOS` names a folder with `plan.json`, read again at each hook, so a plan can change while a sweep runs.
Keys: `pace` (seconds that each step waits, so that faults find something to hit), `record` (note what is trained),
`slow`, `hang`, `memory`, `allocate`, `raise`, `poison`, `checkpoint`, `unreachable`, `versions`.
A file `clock` holds the seconds that clocks are off; while there is a file `quota` the sweep's folder takes nothing.
A fault that happens once leaves a file in `fired/`; the first
process that makes it has it.
"""

import errno
import importlib.machinery
import json
import os
import signal
import sys
import time

FOLDER = os.environ.get("MUSWEEP_CHAOS", "")


def plan():
    try:
        with open(f"{FOLDER}/plan.json") as file:  # noqa: PTH123 - before anything else is imported
            return json.load(file)
    except (OSError, ValueError):
        return {}


def fires(name):
    """Whether this process is the first to come here; the file says which one it was."""
    try:
        file = os.open(f"{FOLDER}/fired/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.write(file, str(os.getpid()).encode())
    os.close(file)
    return True


def mine(name):
    """Whether a lasting fault is this process's: the first to ask has it."""
    if fires(name):
        return True
    with open(f"{FOLDER}/fired/{name}") as file:  # noqa: PTH123
        return file.read() == str(os.getpid())


# -- training ------------------------------------------------------------------------------------------------


def hook_group(module):
    advance = module.Group.advance

    def hurt(self, until):
        now = plan()
        before = {number: self.update(number) for number in until}
        if now.get("record"):
            line = json.dumps([REAL_TIME(), os.getpid(), {n: [before[n], until[n]] for n in until}])
            with open(f"{FOLDER}/trained.jsonl", "a") as file:  # noqa: PTH123 - one write, so lines stay whole
                file.write(line + "\n")
        time.sleep(now.get("pace", 0.0))
        if "slow" in now and mine("slow"):
            time.sleep(now["slow"])
        farthest = max(until.values(), default=0)
        if "hang" in now and farthest >= now["hang"]["at"]:
            for turn in range(now["hang"].get("times", 1)):
                if fires(f"hang-{turn}"):
                    time.sleep(1e6)
        if "memory" in now and len(until) > now["memory"]["above"]:
            fires(f"memory-{len(until)}-{os.getpid()}")
            raise MemoryError(f"no memory for {len(until)} trials at once")
        if "allocate" in now and len(until) > now["allocate"]["above"]:
            fires(f"memory-{len(until)}-{os.getpid()}")
            import torch

            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(until)} trials")
        for number, at in now.get("raise", {}).items():
            if before.get(int(number), -1) <= at < until.get(int(number), -1):
                fires(f"raise-{number}-{os.getpid()}")
                raise RuntimeError(f"trial {number} cannot go past update {at}")
        for number, at in now.get("poison", {}).items():
            if before.get(int(number), -1) <= at < until.get(int(number), -1):
                fires(f"poison-{number}-{os.getpid()}")
                os.kill(os.getpid(), signal.SIGKILL)
        return advance(self, until)

    module.Group.advance = hurt


# -- checkpoints ---------------------------------------------------------------------------------------------


SWEEP = os.path.join(os.path.dirname(FOLDER), "sweep") + "/"  # noqa: PTH118, PTH120


def quota_used_up():
    """Whether nothing can be written into the sweep's folder now."""
    return os.path.exists(f"{FOLDER}/quota")  # noqa: PTH110


def hook_writes():
    """A quota that is used up: files get half of what is written first, then nothing."""
    write, halved = os.write, set()

    def hurt(file, data):
        if len(data) > 1 and quota_used_up() and os.readlink(f"/proc/self/fd/{file}").startswith(SWEEP):  # noqa: PTH115
            fires(f"quota-{os.getpid()}")
            if file in halved:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            halved.add(file)
            return write(file, bytes(data)[: len(data) // 2])
        return write(file, data)

    os.write = hurt


def hook_store(module):
    write = module.atomic_write

    def hurt(path, data):
        if quota_used_up() and str(path).startswith(SWEEP):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))
        if path.parent.name == "checkpoints":
            for turn, place in enumerate(plan().get("checkpoint", [])):
                if fires(f"checkpoint-{turn}-{place}"):
                    die_writing(path, data, place)
        done = write(path, data)
        if path.parent.name == "checkpoints" and plan().get("record"):
            note_kept()
        return done

    def note_kept():
        """A checkpoint of this process's group is whole, and on disk."""
        with open(f"{FOLDER}/kept.jsonl", "a") as file:  # noqa: PTH123
            file.write(json.dumps([REAL_TIME(), os.getpid(), None]) + "\n")

    def die_writing(path, data, place):
        """What `atomic_write` does, up to a point; then a kill that nothing can catch."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.write(data[: len(data) // 2] if place == "half" else data)
            file.flush()
            if place in ("before rename", "after rename"):
                os.fsync(file.fileno())
        if place == "after rename":
            temporary.replace(path)
            note_kept()
        os.kill(os.getpid(), signal.SIGKILL)

    module.atomic_write = hurt


def hook_versions(module):
    told = module.versions
    module.versions = lambda: told() | plan().get("versions", {})


def hook_placement(module):
    end = module.end_worker

    def hurt(place):
        """A worker that hears nothing: orders to end it are lost, as those to a machine without network are."""
        if not plan().get("unreachable"):
            end(place)

    module.end_worker = hurt


# -- clocks --------------------------------------------------------------------------------------------------

REAL_TIME, REAL_TIME_NS = time.time, time.time_ns
_off = [0.0, -1.0]


def offset():
    """Seconds that this machine's wall clock is off, from the file `clock`; looked at ten times a second."""
    if time.monotonic() - _off[1] > 0.1:
        _off[1] = time.monotonic()
        try:
            with open(f"{FOLDER}/clock") as file:  # noqa: PTH123
                _off[0] = float(file.read() or 0)
        except (OSError, ValueError):
            _off[0] = 0.0
    return _off[0]


# -- where the hooks go --------------------------------------------------------------------------------------

HOOKS = {
    "trainers.group": hook_group,
    "sweeps.store": hook_store,
    "sweeps.versions": hook_versions,
    "sweeps.placement": hook_placement,
}


class Finder:
    """Lets the ordinary finders find a module, and hooks it once it is there."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in HOOKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            ordinary = spec.loader.exec_module

            def execute(module):
                ordinary(module)
                HOOKS[name](module)

            spec.loader.exec_module = execute
        return spec


if FOLDER:
    hook_writes()
    sys.meta_path.insert(0, Finder)
    if os.path.exists(f"{FOLDER}/clock"):  # noqa: PTH110
        time.time = lambda: REAL_TIME() + offset()
        time.time_ns = lambda: REAL_TIME_NS() + int(offset() * 1e9)
