"""Sweeps on plain machines: their Ray is made by `ray up` from the file that `musweep render` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster import hosts
from cluster.launch import Job, LaunchError, Unreachable
from cluster.launch_ray import RayLauncher

if TYPE_CHECKING:
    from cluster.targets import Target


class HostsLauncher(RayLauncher):
    """Ray's Jobs API on the head."""

    def __init__(self, target: Target) -> None:
        if target.hosts is None:
            raise LaunchError(f"target {target.name}: kind hosts needs a section hosts with head, workers and user")
        super().__init__(target.model_copy(update={"address": target.address or f"http://{target.hosts.head}:8265"}))

    def check(self) -> str:
        """Say which Ray answers, or how to start it."""
        try:
            return super().check()
        except Unreachable as error:
            name = self.target.name
            raise Unreachable(
                f"{error}; start it with: musweep render --to {name} > {name}.yaml && ray up {name}.yaml"
            ) from None

    def render(self, job: Job) -> str:
        """The file for `ray up`, then the request to the head."""
        return f"{hosts.render(self.target)}---\n{super().render(job)}"
