"""What is sent with a sweep: its spec, and the folder of the user's own code if it names any, as one zip.

The same contents give the same bytes and the same digest, whoever packs them and when.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import ignored
from cluster.launch import LaunchError
from sweeps import modules
from sweeps.checks_baselines import places
from sweeps.schema_baselines import SweepBaseline
from sweeps.spec import SweepSpec

SPEC = "spec.json"
MB = 1_000_000
_MOST_FILES = 20_000
_LARGEST = 10
_ELSEWHERE = ("modules", "storage", "protocol")
"""Keys that say where a sweep lies, not what it is."""


@dataclass(frozen=True, slots=True)
class Package:
    """What is sent with a sweep; nothing is read twice, and nothing written before `write`."""

    id: str
    root: Path | None
    """The folder that is sent; None: only the spec."""
    files: Mapping[str, Path]
    """Where each file of the package is read, by its path in it; without the spec."""
    spec: bytes
    """The spec as the driver will find it, paths into the folder being relative to it."""
    notes: list[str] = field(default_factory=list)
    """What a user should know of it, a line each."""
    size: int = 0
    """Bytes before packing."""

    @property
    def digest(self) -> str:
        """Of all contents: 64 hex digits."""
        told = hashlib.sha256()
        for name, data, mode in self._contents():
            told.update(f"{len(name.encode())} {name} {mode:o} {hashlib.sha256(data).hexdigest()}\n".encode())
        return told.hexdigest()

    def _contents(self) -> Iterator[tuple[str, bytes, int]]:
        """Name, bytes and mode of each file, in order of name."""
        for name in sorted([SPEC, *self.files], key=str.encode):
            if name == SPEC:
                yield name, self.spec, 0o644
                continue
            path = self.files[name]
            try:
                executable = path.stat().st_mode & stat.S_IXUSR
                yield name, path.read_bytes(), 0o755 if executable else 0o644
            except OSError as error:
                raise LaunchError(f"cannot read {path}: {error.strerror}; {ignored.how_to_ignore(name)}") from None

    def write(self, path: Path) -> str:
        """Write the zip and return its digest."""
        told = hashlib.sha256()
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
                for name, data, mode in self._contents():
                    told.update(f"{len(name.encode())} {name} {mode:o} {hashlib.sha256(data).hexdigest()}\n".encode())
                    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                    entry.external_attr, entry.create_system = (stat.S_IFREG | mode) << 16, 3
                    packed.writestr(entry, data, zipfile.ZIP_DEFLATED)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return told.hexdigest()


def sweep_id(spec: SweepSpec) -> str:
    """The id of a sweep on submission: its name, and ten hex digits of what the resolved spec says but for places."""
    data = {key: value for key, value in spec.model_dump(mode="json").items() if key not in _ELSEWHERE}
    if data["task"].get("file"):  # wherever it lies
        data["task"]["file"] = Path(data["task"]["file"]).name
    told = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f"{spec.name}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"


def pack(
    spec: SweepSpec, folder: Path | None = None, limit_mb: float = 50.0, here: bool = False, id_: str = ""
) -> Package:
    """Say what is sent with a sweep.

    Args:
        spec: a checked spec.
        folder: to send; default: that of the code that the spec names, and none if it names none.
        limit_mb: the most that may be sent.
        here: whether the driver runs on this machine, and finds paths outside the folder.
        id_: of the sweep; default: what `sweep_id` says.

    Raises:
        LaunchError: it is too much, or cannot be read.
    """
    data = spec.model_dump(mode="json")
    root = (Path(spec.modules) if folder is None and spec.modules else folder) if _own(data) or folder else None
    root = root.resolve() if root is not None else None
    notes: list[str] = []
    files: dict[str, Path] = {}
    if root is not None:
        if not root.is_dir():
            raise LaunchError(f"{root}: no such folder to send")
        files, notes = _files(root)
    _modules(spec, data, root, files, notes)
    _file(data, root, files, notes, here)
    _elsewhere(spec, data, notes, here)
    if files.pop(SPEC, None) is not None:
        notes.append(f"left out: your {SPEC}, whose name the sweep's own spec has")
    text = json.dumps(data, indent=1).encode()
    return Package(id_ or sweep_id(spec), root, files, text, notes, _weigh(files, root, limit_mb) + len(text))


def _own(data: Mapping[str, Any]) -> bool:
    return next(modules.named(data), None) is not None


def _modules(
    spec: SweepSpec, data: dict[str, Any], root: Path | None, files: Mapping[str, Path], notes: list[str]
) -> None:
    """Have the spec look for its code in the package."""
    if not _own(data):
        data["modules"] = None
        return
    if spec.modules is None:
        data["modules"] = None
        notes.extend(f"{key} {name} is installed here, and must be there too" for key, name in modules.named(data))
        return
    where = Path(spec.modules).resolve()
    assert root is not None
    if not where.is_relative_to(root):
        raise LaunchError(f"{root} does not hold the spec's own code, which lies in {where}: give --folder {where}")
    inside = where.relative_to(root).as_posix()
    data["modules"] = inside
    for key, name in modules.named(data):
        first = name.partition(":")[0].split(".")[0]
        prefix = "" if inside == "." else f"{inside}/"
        sent = (path for path in files if path == f"{prefix}{first}.py" or path.startswith(f"{prefix}{first}/"))
        if next(sent, None) is None and ((where / f"{first}.py").exists() or (where / first).is_dir()):
            raise LaunchError(f"{key}={name}: {where / first} is ignored by git or {ignored.OWN}, so it is not sent")


def _file(data: dict[str, Any], root: Path | None, files: dict[str, Path], notes: list[str], here: bool) -> None:
    """Have the spec find the data of its own: in the package, or at the same path there."""
    task = data.get("task")
    given = task.get("file") if isinstance(task, dict) else None
    if not given or not isinstance(task, dict):
        return
    path = Path(given)
    base = root or Path.cwd().resolve()
    if here or not path.resolve().is_relative_to(base):
        if not here:
            notes.append(f"task.file={given} is not sent: it must be there under the same path")
        return
    inside = path.resolve().relative_to(base).as_posix()
    if root is None:
        below = ignored.listed(path) if path.is_dir() else iter(())
        files.update({f"{inside}/{name}": path / name for name in below} if path.is_dir() else {inside: path})
    elif inside not in files and not any(name.startswith(f"{inside}/") for name in files):
        notes.append(f"task.file={given} is ignored, so it is not sent: it must be there under the same path")
        return
    data["task"]["file"] = inside


def _elsewhere(spec: SweepSpec, data: dict[str, Any], notes: list[str], here: bool) -> None:
    """Name sweeps that a spec refers to by their whole path."""
    named = []
    if spec.start is not None:
        data["start"]["sweep"] = str(Path(spec.start.sweep).expanduser().resolve())
        named.append(("start.sweep", data["start"]["sweep"]))
    for i, baseline in enumerate(spec.baselines):
        if isinstance(baseline, SweepBaseline):
            found = next((path for path in places(spec, baseline) if path.is_dir()), Path(baseline.id))
            data["baselines"][i]["id"] = str(found.resolve())
            named.append((f"baselines.{i}.id", data["baselines"][i]["id"]))
    if not here:
        notes.extend(f"{key}={path} is not sent: it must be there under the same path" for key, path in named)


def _files(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The files of a folder that are sent, links into it being followed; and what is left out of it."""
    files: dict[str, Path] = {}
    notes: list[str] = []
    for name in ignored.listed(root):
        for path, file in _followed(root, name, notes):
            if (reason := _unfit(path)) is not None:
                notes.append(f"left out: {json.dumps(os.fsencode(path).decode('utf-8', 'replace'))}, {reason}")
            else:
                files[path] = file
        if len(files) > _MOST_FILES:
            raise LaunchError(
                f"{root} has more than {_MOST_FILES} files to send: name what is not needed in {ignored.OWN}"
            )
    return files, notes


def _followed(root: Path, name: str, notes: list[str]) -> Iterator[tuple[str, Path]]:
    """A file, or what a link leads to if that lies in the folder and is sent in its own right."""
    path = root / name
    if not path.is_symlink():
        if stat.S_ISREG(path.stat().st_mode):
            yield name, path
        else:
            notes.append(f"left out: {name}, no file but a socket, pipe or device")
        return
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        notes.append(f"left out: {name}, a link to nothing")
        return
    if not real.is_relative_to(root):
        notes.append(f"left out: {name}, a link out of the folder, to {real}")
    elif real.is_file():
        yield name, real
    elif real.is_dir() and not path.absolute().is_relative_to(real):  # a link to a folder above it has no end
        for below in ignored.listed(root):
            inside = root / below
            if inside.is_relative_to(real) and inside.is_file() and not inside.is_symlink():
                yield f"{name}/{inside.relative_to(real).as_posix()}", inside
    else:
        notes.append(f"left out: {name}, a link to {real}")


def _unfit(name: str) -> str | None:
    """Why a name cannot be sent: not every machine could unpack it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "a name that is not UTF-8"
    if "\\" in name:
        return "a name with a backslash"
    return "a name that looks like a drive" if len(name) > 1 and name[1] == ":" else None


def _weigh(files: Mapping[str, Path], root: Path | None, limit_mb: float) -> int:
    """The size of files in bytes.

    Raises:
        LaunchError: they are more than may be sent.
    """
    sizes = {}
    for name, path in files.items():
        try:
            sizes[name] = path.stat().st_size
        except OSError as error:
            raise LaunchError(f"cannot read {path}: {error.strerror}; {ignored.how_to_ignore(name)}") from None
        if not os.access(path, os.R_OK):
            raise LaunchError(f"cannot read {path}: permission denied; {ignored.how_to_ignore(name)}")
    total = sum(sizes.values())
    if total > limit_mb * MB:
        largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]
        shown = ", ".join(f"{json.dumps(name, ensure_ascii=False)} {sized(size)}" for name, size in largest)
        raise LaunchError(
            f"{root or 'the package'}: {sized(total)} to send, the limit is {limit_mb:g} MB (limit_mb of the target); "
            f"largest: {shown}; {ignored.how_to_ignore(largest[0][0])}"
        )
    return total


def sized(size: int) -> str:
    """A number of bytes for people."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.0f} kB" if size < MB else f"{size / MB:.1f} MB"
