"""What only targets of one kind have: sections of a target in `clusters.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sweeps.schema_values import Count, Section

_SLURM_TIME = r"^([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}$"
_DNS = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_LINE = r"^[^\n]*$"


class Slurm(Section):
    """How a job is asked for; its nodes are its own, since ending Ray ends all of a user's Ray on a node."""

    nodes: Count = 1
    """Nodes of a job."""
    partition: Annotated[str, Field(pattern=r"^[\w,.-]+$")] | None = None
    """Partition, or several with commas."""
    account: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    """Account that is charged."""
    time: Annotated[str, Field(pattern=_SLURM_TIME)] | None = None
    """Limit as Slurm writes it, 12:00:00 or 2-00; a sweep that needs longer is queued again and goes on."""
    options: list[Annotated[str, Field(pattern=r"^--[a-z][^\n]*$")]] = Field(default_factory=list)
    """Further options of sbatch, as in --constraint=h200."""
    setup: list[Annotated[str, Field(pattern=_LINE)]] = Field(default_factory=list)
    """Lines of shell before anything else, as in module load python/3.11."""


class K8s(Section):
    """Where in Kubernetes, with KubeRay's operator."""

    namespace: Annotated[str, Field(pattern=_DNS)] = "default"
    """Namespace of all that is made."""
    context: str | None = None
    """Context of kubectl; null: the current one."""
    claim: Annotated[str, Field(pattern=_DNS)] | None = None
    """PersistentVolumeClaim (ReadWriteMany) mounted where storage is; needless if storage is a URL."""
    secret: Annotated[str, Field(pattern=_DNS)] | None = None
    """Secret whose keys become the driver's and the workers' environment."""
    service_account: Annotated[str, Field(pattern=_DNS)] | None = None
    """Service account of the pods."""
    kueue: Annotated[str, Field(pattern=_DNS)] | None = None
    """Local queue of Kueue that jobs wait in."""
    autoscale: bool = False
    """Whether Ray adds worker pods as groups wait for a place, up to resources.workers."""


class Hosts(Section):
    """Plain machines that are reached by SSH and are given a Ray by `ray up`."""

    head: str
    """Host where the head runs, and drivers."""
    workers: list[str] = Field(default_factory=list)
    """Further hosts."""
    user: str
    """Who logs in."""
    key: str | None = None
    """File of the private key; null: what SSH finds."""
    setup: list[Annotated[str, Field(pattern=_LINE)]] = Field(default_factory=list)
    """Commands on each host before Ray starts, as in source ~/musweep/bin/activate."""
