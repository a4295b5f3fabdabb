"""Where on a cluster a sweep's workers can be: what they need, what there is, what one of them finds there."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps import places, remote, resolve
from sweeps.connect import Unplaceable
from sweeps.round import Place
from sweeps.spec import SweepSpec

PATIENCE_S = 3.0
LOOK_S = 60.0  # starting a process on a node takes seconds, more on a busy one


def needs(spec: SweepSpec, worker_bytes: int = 0) -> dict[str, float]:
    """What Ray reserves for each worker, by Ray's names.

    Args:
        spec: a spec.
        worker_bytes: what a full worker takes of memory, 0 if that is not known.
    """
    wanted = {"CPU": spec.resources.cpu, "GPU": spec.resources.gpu, "memory": float(worker_bytes)}
    return {name: amount for name, amount in wanted.items() if amount > 0}


def room(need: Mapping[str, float], nodes: list[dict[str, Any]], free: Mapping[str, float]) -> int:
    """How many workers fit now: each on one node, all together in what is free.

    Args:
        need: resources of a worker, by Ray's names.
        nodes: `ray.nodes()`.
        free: `ray.available_resources()`.
    """
    hosted = sum(_hosted(need, node["Resources"]) for node in nodes if node["Alive"])
    return min(hosted, _hosted(need, free))


def _hosted(need: Mapping[str, float], there: Mapping[str, float]) -> int:
    return min(int(there.get(name, 0.0) / amount + 1e-9) for name, amount in need.items())


def waiting(need: Mapping[str, float], nodes: list[dict[str, Any]], free: Mapping[str, float]) -> str:
    """Why a worker has no place: what it needs and what the cluster has, in words."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    wanted = " and ".join(_amount(name, amount) for name, amount in need.items())
    if not any(_hosted(need, there) for there in alive):
        most = (_amount(name, max((there.get(name, 0.0) for there in alive), default=0.0)) for name in need)
        return f"a worker needs {wanted}, no node has that (the most is {', '.join(most)}): add a node, or ask for less"
    states = (
        f"{_number(name, free.get(name, 0.0))} of "
        f"{_amount(name, sum(there.get(name, 0.0) for there in alive), plural=True)}"
        for name in need
    )
    return f"a worker needs {wanted}; free on the cluster: {', '.join(states)}"


def _amount(name: str, amount: float, plural: bool = False) -> str:
    if name == "memory":
        return f"{_number(name, amount)} GiB of memory"
    return f"{_number(name, amount)} {name}{'s' if plural or amount > 1 or not amount else ''}"


def _number(name: str, value: float) -> str:
    return f"{value / 2**30:.3g}" if name == "memory" else f"{value:g}"


def waiting_now(spec: SweepSpec, worker_bytes: int = 0) -> str:
    """`waiting` of the cluster that this process is connected to."""
    return waiting(needs(spec, worker_bytes), ray.nodes(), ray.available_resources())


def resolve_there(folder: Path, spec: SweepSpec, tell: Callable[[str], None]) -> resolve.Resolved:
    """`resolve.resolve` with engines and memory measured by a worker on the cluster, where the trials will train.

    Args:
        folder: the sweep folder.
        spec: its spec.
        tell: hears why there is no place for a worker, now and then, while there is none.

    Raises:
        SpecError: the data do not suit the spec.
        TaskError: the data, or code of the user's own, cannot be had there.
        Unplaceable: the device does not work there.
    """
    fit = max(1, room(needs(spec), ray.nodes(), ray.available_resources()))
    task = ray.remote(num_cpus=spec.resources.cpu, num_gpus=spec.resources.gpu, max_retries=3)(_choose)

    def choose(spec: SweepSpec, fit: int | None) -> resolve.Resolved:
        measured = task.remote(spec.model_dump(mode="json"), fit)
        while not ray.wait([measured], timeout=PATIENCE_S)[0]:
            if not room(needs(spec), ray.nodes(), ray.available_resources()):
                tell(waiting_now(spec))
        try:
            return resolve.Resolved(**ray.get(measured))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    return resolve.resolve(folder, spec, fit, choose)


def _choose(plain: dict[str, Any], fit: int | None) -> dict[str, Any]:
    """In a worker's place on the cluster."""
    from dataclasses import asdict

    from trainers.memory import broken

    spec = SweepSpec.model_validate(plain)
    device = resolve.device(spec)
    if wrong := broken(device):
        import socket

        raise Unplaceable(f"{socket.gethostname()}: resources.gpu={spec.resources.gpu:g} was reserved, but {wrong}")
    return asdict(resolve.choose(spec, fit, probe=True))


def end_worker(place: Place) -> None:
    """Have a worker's process killed on its node: one that hangs hears nothing of what Ray asks of it."""
    there = NodeAffinitySchedulingStrategy(place.node, soft=False)  # of a node that is gone there is nothing to kill
    ray.remote(num_cpus=0, max_retries=0)(_end).options(scheduling_strategy=there).remote(place.pid, place.created)


def _end(pid: int, created: float) -> None:
    """On the worker's node: kill its process, unless another has its number by now."""
    import contextlib

    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1.0:
            process.kill()


def check_nodes(folder: Path, spec: SweepSpec) -> list[str]:
    """Have each node that could hold a worker read, write and delete a file in the sweep folder.

    Returns warnings: nodes with other versions of Python or packages than the driver's.

    Raises:
        Unplaceable: a node does not share the folder, or cannot write it.
    """
    need = needs(spec)
    nodes = [node for node in ray.nodes() if node["Alive"] and _hosted(need, node["Resources"])]
    word, url = secrets.token_hex(8), places.remote_of(folder)
    asked = folder / f".preflight-{word}"
    asked.write_text(word)
    try:
        look = ray.remote(num_cpus=0, max_retries=3)(_look)
        found = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)  # the node may have died meanwhile
            found[look.options(scheduling_strategy=there).remote(str(folder.resolve()), word, url)] = node
        ready = ray.wait(list(found), num_returns=len(found), timeout=LOOK_S)[0] if found else []
        return _judge(folder, [ray.get(reference) for reference in ready])
    finally:
        for file in folder.glob(f".preflight-{word}*"):
            file.unlink(missing_ok=True)


def _look(folder: str, word: str, url: str | None) -> dict[str, Any]:
    """On a node: what is wrong with the folder there, and what is installed."""
    import socket

    from sweeps.versions import versions

    host, asked = socket.gethostname(), Path(folder) / f".preflight-{word}"
    wrong = ""
    if url is not None:  # nothing is shared but the store
        return {"host": host, "wrong": remote.unusable(url), "versions": versions()}
    try:
        if asked.read_text() != word:
            wrong = "reads something else there"
        answer = asked.with_name(f"{asked.name}-{secrets.token_hex(4)}")
        answer.write_text(host)
        answer.unlink()
    except FileNotFoundError:
        wrong = "does not see it"
    except OSError as error:
        wrong = f"cannot write it ({error.strerror})"
    return {"host": host, "wrong": wrong, "versions": versions()}


def _judge(folder: Path, found: list[dict[str, Any]]) -> list[str]:
    """Warnings of what nodes found.

    Raises:
        Unplaceable: some node found the folder not to be shared.
    """
    from sweeps.versions import versions

    wrong = [f"{node['host']} {node['wrong']}" for node in found if node["wrong"]]
    if wrong:
        raise Unplaceable(
            f"storage {folder} is not shared by the cluster: {'; '.join(sorted(set(wrong)))}; "
            "set storage to a folder that all nodes mount, or to an object store such as s3://bucket/sweeps"
        )
    here, told = versions(), []
    for node in found:
        other = {n: v for n, v in node["versions"].items() if n in ("python", "musweep", "torch", "numpy", "ray")}
        unlike = [f"{name} {value} (here {here[name]})" for name, value in other.items() if here.get(name) != value]
        if unlike:
            told.append(f"node {node['host']} has {', '.join(unlike)}")
    return sorted(set(told))
