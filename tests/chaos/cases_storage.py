"""Faults of where a sweep lies: a full disk, a quota that is used up, an object store that is away or refuses."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from unittest import mock

from sweeps import places, remote
from tests.chaos import oracle
from tests.chaos.bench import Bench, Skipped, case
from tests.chaos.places import Place, finish, moment
from tests.s3 import Server


@case("11", "disk full", "a tmpfs of 24 MB as storage, filled up while trials train, freed 8 s later")
def disk_full(bench: Bench) -> None:
    for _ in range(bench.times(2)):
        place = bench.place()
        with mounted(place, "24m") as disk:
            driver = place.start()
            place.wait_for(lambda place=place: place.updates() > 3000, 90, driver)
            moment(bench.random, 0.0, 2.0)
            filled = fill(disk)
            time.sleep(8.0)
            stood = place.updates()
            time.sleep(1.0)
            told = [] if driver.poll() is None else ["the driver left while the disk was full"]
            (disk / "balloon").unlink()
            if driver.poll() is None and place.updates() - stood > 20_000:
                told.append("it trained on with nothing on disk")
            code = finish(place, driver)
            bench.judge(place, int(filled), code, failures=told, leftovers_s=10.0)


@contextlib.contextmanager
def mounted(place: Place, size: str):
    """The place's root on a small disk of its own."""
    if os.geteuid() != 0:
        raise Skipped("mounting a small disk needs root")
    saved = {path.name: path.read_bytes() for path in place.root.iterdir() if path.is_file()}
    plan = (place.inside / "plan.json").read_bytes()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", str(place.root)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"no small disk: {done.stderr.strip()}")
    inside = Path(f"{place.root}-inside")  # the harness's own notes are not part of the fault
    (inside / "fired").mkdir(parents=True)
    place.inside, place.log = inside, inside / "driver.log"
    (inside / "plan.json").write_bytes(plan)
    try:
        for name, data in saved.items():
            (place.root / name).write_bytes(data)
        yield place.root
    finally:
        place.close()
        subprocess.run(["umount", "-l", str(place.root)], check=False)


def fill(disk: Path) -> bool:
    """Take all room that is left."""
    with contextlib.suppress(OSError), (disk / "balloon").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return os.statvfs(disk).f_bavail * 4096 < 8192


@case(
    "11b",
    "quota used up",
    "writes into the sweep's folder fail with EDQUOT for 8 s, the first of each file after half of its bytes",
)
def quota(bench: Bench) -> None:
    for _ in range(bench.times(2)):
        place = bench.place()
        driver = place.start()
        place.wait_for(lambda place=place: place.updates() > 3000, 90, driver)
        moment(bench.random, 0.0, 2.0)
        (place.inside / "quota").touch()
        time.sleep(2.0)
        stood = place.updates()
        time.sleep(6.0)
        told = [] if driver.poll() is None else ["the driver left while its quota was used up"]
        if place.updates() != stood:
            told.append("the journal grew although nothing could be written")
        (place.inside / "quota").unlink()
        code = finish(place, driver)
        bench.judge(place, int(place.fired("quota") > 0), code, failures=told)


STORE = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "no_proxy": "127.0.0.1",
}


@case(
    "S",
    "object store gone, then refusing; machine lost",
    "a sweep on an S3 server: it is away for 10 s, answers 500 thirty times; then driver and working folder are lost",
)
def object_store(bench: Bench) -> None:
    for _ in range(bench.times(1)):
        server = Server()
        place = bench.place()
        scratch = place.root / "scratch"
        place.env |= {**STORE, "MUSWEEP_SCRATCH": str(scratch)}
        place.out = server.url("sweeps/sweep")
        with mock.patch.dict(os.environ, place.env):
            place.folder = places.working(place.out)
        try:
            driver = place.start()
            place.wait_for(lambda place=place: place.updates() > 3000, 120, driver)
            server.stop()
            time.sleep(10.0)
            server.start()
            injected = 1
            if place.wait_for(lambda place=place: place.updates() > 9000, 120, driver):
                server.failing = 30
                injected += 1
            place.wait_for(lambda place=place: place.updates() > 15_000, 120, driver)
            place.kill_driver(driver)
            shutil.rmtree(scratch)
            code = finish(place, place.start())
            told = [] if server.failing == 0 else [f"{server.failing} answers were left to be refused"]
            mine = oracle.table(place.folder)
            with mock.patch.dict(os.environ, {**place.env, "MUSWEEP_SCRATCH": str(place.root / "elsewhere")}):
                there = oracle.table(remote.working_folder(place.out))
            if wrong := oracle.differences(there, mine):
                told.append(f"seen from another machine: {wrong}")
            beside = (
                f"sqlite:///{place.folder.parent}/mlflow.db"  # lost with the folder, so made again from the journal
            )
            bench.judge(place, injected + 1, code, failures=told, mlflow=beside)
        finally:
            server.stop()
