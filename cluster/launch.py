"""The one contract that every launcher keeps: how a packed sweep gets to a place and what is known of it there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cluster.targets import Target

STATES = ("pending", "running", "finished", "failed", "stopped", "unknown")
ACTIVE = ("pending", "running")

LAUNCHERS = {
    "debug": "cluster.launch_debug:DebugLauncher",
    "local": "cluster.launch_local:LocalLauncher",
    "ray": "cluster.launch_ray:RayLauncher",
    "slurm": "cluster.launch_slurm:SlurmLauncher",
    "k8s": "cluster.launch_k8s:K8sLauncher",
    "hosts": "cluster.launch_hosts:HostsLauncher",
}
"""Where the launcher of each kind of target is; imported when it is wanted."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][0-9A-B]")
_SHOWN = 300


class LaunchError(Exception):
    """A place that cannot take, tell of or stop a job: wrong address, wrong token, no permission. One line."""


class Unreachable(LaunchError):
    """A place that does not answer now, and may later; whoever waits for a job waits on."""


@dataclass(frozen=True, slots=True)
class Job:
    """A sweep on its way to a place."""

    id: str
    """Of the sweep, the same whenever the same spec is submitted again (`name-HASH`)."""
    package: Path
    """A zip of the working folder, with `spec.json` of the sweep at its root; gone once `submit` has returned."""
    folder: str
    """The sweep's folder at the place, or a URL."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the driver; no secrets, since a place may show it to all its users."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Environment that the driver reads where it runs: `env:NAME` or `file:PATH` by name. Values never travel."""
    digest: str = ""
    """Of the package's contents."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a place says of a job."""

    id: str
    state: str
    """One of STATES."""
    why: str = ""
    """In words, for `pending` and `failed` always."""


class Launcher(Protocol):
    """Starts drivers at one place. Every method raises LaunchError with one line where the place does not answer."""

    def submit(self, job: Job) -> None:
        """Start the job, or go on with it; one that is pending, running or finished is left alone."""

    def render(self, job: Job) -> str:
        """What the place would be given for a job, as text; nothing is sent."""

    def status(self, id_: str) -> JobStatus:
        """What has become of a job; `unknown` if the place has never heard of it."""

    def logs(self, id_: str, follow: bool = False) -> Iterator[str]:
        """The driver's lines so far; with `follow` also those to come, until it ends."""

    def stop(self, id_: str) -> None:
        """Have the driver leave cleanly, so that the sweep can be resumed; return once it has left."""

    def resume(self, id_: str) -> None:
        """Go on with a stopped or failed job from what the place has of it; one that is active is left alone."""

    def list(self) -> list[JobStatus]:
        """All jobs of musweep that the place knows, newest first."""

    def digest(self, id_: str) -> str:
        """Of the package that a job was last started with; empty where the place does not say."""

    def check(self) -> str:
        """Say in a few words what answers there."""


def launcher_of(target: Target) -> Launcher:
    """The launcher of a target.

    Raises:
        LaunchError: this musweep has none for its kind.
    """
    if target.kind not in LAUNCHERS:
        raise LaunchError(
            f"target {target.name}: nothing here starts kind {target.kind}; legal: {', '.join(LAUNCHERS)}"
        )
    module, _, name = LAUNCHERS[target.kind].partition(":")
    made: Launcher = getattr(importlib.import_module(module), name)(target)
    return made


def job_of(target: Target, id_: str, package: Path, folder: str = "", digest: str = "") -> Job:
    """A sweep's job at a target, with the environment that the target asks for."""
    env = {name: value for name, value in target.env.items() if isinstance(value, str)}
    secrets = {name: value.reference for name, value in target.env.items() if not isinstance(value, str)}
    for name, given in (("MLFLOW_TRACKING_URI", target.mlflow), ("MUSWEEP_DATABASE", target.database)):
        if isinstance(given, str):
            env.setdefault(name, given)
        elif given is not None:
            secrets.setdefault(name, given.reference)
    return Job(id_, package, folder or target.folder(id_), env, secrets, digest)


def driver_command(job: Job, package: str, python: str = "python") -> list[str]:
    """What starts a job's driver: it goes on where the folder ends, so it can be given any number of times.

    Args:
        job: the job.
        package: the package as the driver finds it, a zip or the folder it was unpacked to; "" to go on without.
        python: the interpreter there; musweep is installed with it. `-P`: files of the working folder hide no module.
    """
    words = [python, "-P", "-m", "cluster.cli", "drive", *([package] if package else []), "--out", job.folder]
    return words + [f"--secret={name}={place}" for name, place in sorted(job.secrets.items())]


def plain(line: str) -> str:
    """A line of a log without what moves a terminal's cursor or colours it."""
    return _ANSI.sub("", line.rpartition("\r")[2] if not line.endswith("\r") else line.rstrip("\r"))


def last_words(text: str) -> str:
    """The last line of a log that says anything, cut where it gets long."""
    lines = [words for line in text.splitlines() if (words := " ".join(plain(line).split()))]
    found = lines[-1] if lines else ""
    return found if len(found) <= _SHOWN else f"{found[: _SHOWN - 3]}..."
