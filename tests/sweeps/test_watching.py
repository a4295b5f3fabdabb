"""Signals to a driver, and what a watcher of a running sweep does when Ray is gone."""

import os
import signal
import socket
import threading
import time

import pytest

from sweeps import connect
from sweeps.connect import Head
from sweeps.watching import interruptible


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_driver_that_waits_for_a_place_can_be_told_to_leave(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signum)
    assert signal.getsignal(signum) is before


def test_under_nohup_a_closed_terminal_is_nothing_to_leave_for() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_hear_no_signals() -> None:
    def work() -> None:
        with interruptible():
            done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_head_is_missed_from_its_last_answer_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "EVERY_S", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = Head(f"127.0.0.1:{server.getsockname()[1]}")
        for _ in range(5):
            time.sleep(0.03)
            assert head.silent_s() == 0.0
    gone = time.monotonic()
    while not (silent := head.silent_s()):
        time.sleep(0.01)
        assert time.monotonic() - gone < 30
    assert silent <= time.monotonic() - gone + 0.1
    with socket.create_server(("127.0.0.1", int(head.address.rpartition(":")[2]))):
        time.sleep(0.03)
        assert head.silent_s() == 0.0
