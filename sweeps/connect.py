"""The Ray that a sweep runs on: one of its own on this machine, a cluster's, or the caller's."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Iterator

KNOCK_S = 10.0
EVERY_S = 2.0


class Unplaceable(RuntimeError):
    """A machine or cluster on which a sweep cannot run, and what to do about it, in one line."""


def shared() -> bool:
    """Whether a sweep started here runs on a cluster: the one RAY_ADDRESS names, or the caller's, of several nodes."""
    import ray

    if os.environ.get("RAY_ADDRESS"):  # a cluster of one node is one, too
        return True
    return ray.is_initialized() and len([node for node in ray.nodes() if node["Alive"]]) > 1


@contextlib.contextmanager
def own(workers: int, cpu: float, gpu: float) -> Iterator[None]:
    """A Ray of our own on this machine, for so many workers, unless the caller has started one.

    Raises:
        Unplaceable: this machine has too few GPUs, or the caller's Ray too few CPUs.
    """
    import ray

    needed = max(1, math.ceil(workers * cpu))
    if ray.is_initialized():
        there = ray.cluster_resources().get("CPU", 0)
        if there < needed:  # groups wait for each other: one that finds no place would hold up all
            raise Unplaceable(f"the Ray that is running here has {there:g} CPUs, {workers} workers need {needed}")
        yield
        return
    ray.init(
        address="local",
        num_cpus=needed,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        there = ray.cluster_resources().get("GPU", 0.0)
        if gpu > there:
            raise Unplaceable(f"resources.gpu={gpu:g}: this machine has {there:g} GPUs; set it to 0 or use a cluster")
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """The Ray that the caller has started, or that RAY_ADDRESS names.

    Raises:
        Unplaceable: nothing answers there, or it refuses us.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ["RAY_ADDRESS"]
    _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        words = str(error).splitlines()[0]
        raise Unplaceable(
            f"RAY_ADDRESS={address}: {words}; is the cluster up, is its token in RAY_AUTH_TOKEN?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See whether anything listens at HOST:PORT, since Ray itself tries for minutes.

    Raises:
        Unplaceable: nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # `auto`: Ray looks for it on this machine
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except OSError as error:
        raise Unplaceable(f"RAY_ADDRESS={address}: nothing answers there ({error}); is the cluster up?") from None


class Head:
    """Whether a cluster's head can be reached.

    Args:
        address: HOST:PORT of its global control store.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._knocked = self._answered = time.monotonic()

    def silent_s(self) -> float:
        """For how long it has not answered, in seconds; 0 if it has at the last knock."""
        now = time.monotonic()
        if now - self._knocked >= EVERY_S:
            self._knocked = now
            host, _, port = self.address.rpartition(":")
            with contextlib.suppress(OSError):
                socket.create_connection((host.strip("[]"), int(port)), timeout=EVERY_S).close()
                self._answered = time.monotonic()
                return 0.0
        return now - self._answered if now - self._answered > 2 * EVERY_S else 0.0
