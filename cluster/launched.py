"""The driver of a submitted sweep, where it runs: unpack what was sent, then go on where the sweep's folder ends."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.driving import drive_folder, drive_spec, load
from cluster.folders import UserError, is_sweep
from cluster.launch import LaunchError
from cluster.package import SPEC, sweep_id
from sweeps import modules
from sweeps.folder import read_spec

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

CODE = "code"
"""Where in a sweep's folder lies what was sent with it."""


def drive(package: Path | None, out: str, given: Iterable[str] = ()) -> None:
    """Start a submitted sweep, or go on with it.

    Args:
        package: the zip, or the folder that it was unpacked to; None to go on with what the sweep's folder has.
        out: the sweep's folder, or its URL.
        given: `NAME=env:OTHER` and `NAME=file:PATH`, to be put into the environment first.

    Raises:
        UserError: there is nothing to start or to go on with, or the folder holds another sweep.
        LaunchError: a secret is not there.
    """
    for each in given:
        name, _, reference = each.partition("=")
        from cluster.targets import read_reference

        try:
            os.environ[name] = read_reference(reference, name)
        except LaunchError as error:
            raise LaunchError(f"on {socket.gethostname()}: {error}") from None
    if "://" in out:
        return _drive_url(package, out)
    folder, there = Path(out), is_sweep(Path(out))
    if package is None and not there:
        raise UserError(f"{folder} holds no sweep to go on with: submit its spec again")
    if package is not None:
        spec = load(unpack(package, folder) / SPEC, None)
        if not there:
            _look_at_mlflow(spec, folder)
            return drive_spec(spec, folder)
        _same(spec, folder, out)
    print(f"going on with {folder}", flush=True)
    _look_at_mlflow(read_spec(folder), folder)
    return drive_folder(folder, 0)


def _look_at_mlflow(spec: SweepSpec, folder: Path) -> None:
    """Say so where MLflow cannot be reached from here; the sweep runs all the same, and it follows later."""
    if not spec.mlflow.enabled:
        return
    from cluster.doctor import OK, mlflow
    from sweeps.tracking import tracking_uri

    found = mlflow(tracking_uri(folder, spec.mlflow.uri))
    if found.state != OK:
        print(f"warning: MLflow: {found.says}; {found.step}", flush=True)


def _same(spec: SweepSpec, folder: Path, shown: str) -> None:
    """Refuse to go on with a sweep of another spec."""
    if sweep_id(read_spec(folder)) != sweep_id(spec):
        raise UserError(f"{shown} holds a sweep of another spec: submit this one under another name")


def _drive_url(package: Path | None, url: str) -> None:
    """Drive a sweep on an object store. Its code is not kept there: Python finds it where the place has unpacked it."""
    from sweeps.remote import Remote, working_folder

    there = "spec.json" in Remote(url).names()
    if package is None:
        if not there:
            raise UserError(f"{url} holds no sweep to go on with: submit its spec again")
    else:
        if package.is_file():
            package = unpack(package, Path(tempfile.mkdtemp(prefix="musweep-")))
        spec = load(package / SPEC, None)
        if spec.modules is not None:
            if Path(spec.modules) != package.resolve():
                raise UserError(
                    f"{url}: on an object store a spec's code must lie at the top of what is sent: --folder"
                )
            modules.reach(spec.modules)
            spec = spec.model_copy(update={"modules": None})
        _look_at_mlflow(spec, Path(url))
        if not there:
            return drive_spec(spec, Path(url))
        _same(spec, working_folder(url), url)
    print(f"going on with {url}", flush=True)
    return drive_folder(Path(url), 0)


def unpack(package: Path, folder: Path) -> Path:
    """Put what was sent into a sweep's folder, once, and return where; a restart finds the code it began with.

    Raises:
        LaunchError: the package cannot be read, or the folder cannot be written.
    """
    code = folder / CODE
    if (code / SPEC).is_file():
        return code
    temporary = folder / f".{CODE}.{os.getpid()}.{secrets.token_hex(2)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if package.is_dir():
            shutil.copytree(package, temporary)
        else:
            with zipfile.ZipFile(package) as packed:
                packed.extractall(temporary)
        temporary.rename(code)
    except (OSError, zipfile.BadZipFile) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if (code / SPEC).is_file():  # another driver was first
            return code
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LaunchError(
            f"cannot unpack {package} to {code}: {reason}; storage must be a folder that this host may write"
        ) from None
    return code


def recorded(path: Path, code: int) -> None:
    """Leave a driver's exit code for whoever asks later."""
    sys.stdout.flush()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(str(code))
    temporary.replace(path)


def main(arguments: list[str]) -> int:
    """Run the command line, the first argument being the file that its exit code is left in."""
    from cluster.cli import main as command_line

    code = 1
    try:
        code = command_line(arguments[1:])
    finally:
        recorded(Path(arguments[0]), code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
