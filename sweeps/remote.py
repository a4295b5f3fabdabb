"""Sweeps on object stores: files by name over `pyarrow.fs`, and what of a working folder lies there.

The working folder on this machine is a copy that readers read. What must last is put to the store before it counts:
journal segments (`sweeps.segments`), states (`sweeps.checkpoints`), diagnostics, the spec. The rest follows.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from sweeps import places
from sweeps.journal import PassingError
from sweeps.journal import trouble as trouble_of

T = TypeVar("T")
PATIENCE_S = 15.0
PUBLISH_S = 60.0
KEEP_S = 300.0
"""How long a worker waits for room, or for a store that does not answer, to keep what must last."""
_DEFINITE = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "UNRECOGNIZED_CLIENT")
_AS_WRITTEN = ("checkpoints/", "models/", "states/", "journal/")
"""What is put when it is written, and read from the store when it is wanted."""
_LOCAL = ("ray/", "preflight/", "journal.jsonl", "lease.json", "remote.json", "start.npz")


class RemoteError(PassingError):
    """A store that refuses or does not answer."""


class Remote:
    """The files below a URL.

    Args:
        url: what `sweeps.places.wrong_with` finds nothing wrong with.
        patience_s: how long faults are tried again before they are told; None: PATIENCE_S.

    Raises:
        PlaceError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        patience_s: float | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if wrong := places.wrong_with(url):
            raise places.PlaceError(f"{places.shown(url)}: {wrong[0]}; {wrong[1]}")
        self.url, self._now, self._sleep = url, now, sleep
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        parts = urlsplit(url)
        self._folder = Path(parts.path) if parts.scheme == "file" else None
        self._base, self._store = f"{parts.netloc}{parts.path}".strip("/"), None

    def put(self, name: str, data: bytes) -> None:
        """Store a file; it is there whole once this returns.

        Raises:
            RemoteError: the store did not take it; it may be there all the same.
        """
        if self._folder is not None:
            return self._try("write", name, lambda: _write(self._path(name), data))

        def write() -> None:
            with self._files().open_output_stream(f"{self._base}/{name}") as stream:
                stream.write(data)

        return self._try("write", name, write)

    def get(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: there is none.
            RemoteError: the store did not give it.
        """
        if self._folder is not None:
            return self._try("read", name, self._path(name).read_bytes)

        def read() -> bytes:
            with self._files().open_input_stream(f"{self._base}/{name}") as stream:
                return bytes(stream.read())

        return self._try("read", name, read)

    def names(self, prefix: str = "") -> dict[str, int]:
        """All files whose names begin with a prefix that ends in a slash, or is empty, in order, with their sizes.

        Raises:
            RemoteError: the store does not tell.
        """
        return self._try("list", prefix, lambda: self._list(prefix))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            RemoteError: the store did not do it.
        """
        if self._folder is not None:
            return self._try("remove", name, lambda: self._path(name).unlink(missing_ok=True))
        with contextlib.suppress(FileNotFoundError):
            self._try("remove", name, lambda: self._files().delete_file(f"{self._base}/{name}"))
        return None

    def _list(self, prefix: str) -> dict[str, int]:
        if self._folder is not None:
            files = (path for path in self._path(prefix).rglob("*") if path.is_file() and path.name[0] != ".")
            return {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in sorted(files)}
        from pyarrow import fs

        base = f"{self._base}/{prefix}".rstrip("/")
        found = self._files().get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        sizes = {each.path: each.size for each in found if each.type == fs.FileType.File}
        return {path.removeprefix(f"{self._base}/"): sizes[path] for path in sorted(sizes)}

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / name

    def _files(self) -> Any:
        """The file system, made when it is first needed."""
        from pyarrow import fs

        if self._store is None:
            parts = urlsplit(self.url)
            if parts.scheme == "s3":
                self._store = fs.S3FileSystem(
                    **dict(parse_qsl(parts.query)),
                    connect_timeout=5,
                    request_timeout=20,
                    retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
                    allow_delayed_open=True,  # one request for a small file instead of three
                    background_writes=False,
                )
            else:
                self._store, self._base = fs.FileSystem.from_uri(self.url)
        return self._store

    def _try(self, what: str, name: str, work: Callable[[], T]) -> T:
        """Do something again and again until it is done, the fault is a definite one, or patience is at its end."""
        until, pause = self._now() + self._patience_s, 0.1
        while True:
            try:
                return work()
            except FileNotFoundError:
                if what != "write":
                    raise
                raise RemoteError(f"{self._shown()}: cannot write {name}: there is no such bucket") from None
            except Exception as error:  # pyarrow raises OSError, and now and then kinds of its own
                words = places.shown(" ".join(str(error).split()))
                if any(mark in words for mark in _DEFINITE) or self._now() + pause > until:
                    raise RemoteError(f"{self._shown()}: cannot {what} {name or 'it'}: {words}") from None
            self._sleep(pause)
            pause = min(2 * pause, 3.0)

    def _shown(self) -> str:
        return places.shown(self.url)


def _write(path: Path, data: bytes) -> None:
    from sweeps.store import atomic_write

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, data)


def of(folder: Path) -> Remote | None:
    """The store of a working folder; None if the folder itself is the sweep."""
    url = places.remote_of(folder)
    return None if url is None else Remote(url)


def keep(path: Path, folder: Path) -> None:
    """Put a file of a working folder that must last; nothing to do where the folder is the sweep.

    Raises:
        RemoteError: the store did not take it.
    """
    if (remote := of(folder)) is not None:
        remote.put(path.relative_to(folder).as_posix(), path.read_bytes())


def patiently(words: str, work: Callable[[], None]) -> None:
    """Do something as soon as there is room and an answer; after some minutes do without it and say so."""
    until, pause = time.monotonic() + KEEP_S, 0.5
    while True:
        try:
            return work()
        except OSError as error:
            trouble = trouble_of(error)
            if not trouble:
                raise
            if time.monotonic() > until:
                print(f"{words}: {trouble}, in vain", file=sys.stderr)
                return None
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def want(path: Path, folder: Path) -> bool:
    """Whether a file of a sweep exists, after it was fetched from the store if only that has it.

    Raises:
        RemoteError: the store does not say.
    """
    if path.exists() or (remote := of(folder)) is None:
        return path.exists()
    with contextlib.suppress(FileNotFoundError):
        _write(path, remote.get(path.relative_to(folder).as_posix()))
    return path.exists()


def stems(folder: Path, kind: str) -> list[str]:
    """The names without their endings of a sweep's files of one kind, such as `models`, here and on its store."""
    names = {path.name for path in (folder / kind).glob("[!.]*")}
    if (remote := of(folder)) is not None:
        names |= {Path(name).name for name in remote.names(f"{kind}/")}
    return sorted(Path(name).stem for name in names)


def unusable(url: str) -> str:
    """Why this machine cannot keep files at a URL, in words; empty if it can."""
    name, word = f"preflight/{secrets.token_hex(8)}", secrets.token_bytes(8)
    try:
        remote = Remote(url)
        remote.put(name, word)
        same = remote.get(name) == word
        remote.remove(name)
    except (OSError, ValueError) as error:
        return str(error)
    return "" if same else f"{places.shown(url)}: reads something else than was written"


def folder_of(typed: str | Path) -> Path:
    """The folder of a sweep that is named by its folder or its URL.

    Raises:
        FileNotFoundError: there is no sweep at the URL.
        RemoteError: its store does not answer.
    """
    url = places.url_of(typed)
    return Path(typed) if url is None else working_folder(url)


def here(folder: Path, url: str | None) -> Path:
    """The folder that a worker on this machine works in, given the driver's and where the sweep lies."""
    if url is None or places.remote_of(folder) == url:
        return folder
    mine = places.working(url)
    places.mark(mine, url)
    return mine


def fetch_all(folder: Path, remote: Remote, names: Iterable[str]) -> None:
    """Copy files of the store into a working folder."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: _fetch(folder, remote, name), names))


def _fetch(folder: Path, remote: Remote, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
        _write(folder / name, remote.get(name))


def working_folder(url: str, *, whole: bool = True) -> Path:
    """Bring this machine's working folder of the sweep at a URL up to date; a driver here keeps it so itself.

    Args:
        url: where the sweep lies.
        whole: all but stored states, else only the spec and the journal.

    Raises:
        FileNotFoundError: there is no sweep.
        RemoteError: the store does not answer.
    """
    from sweeps import lease_file, segments

    folder, remote = places.working(url), Remote(url)
    if lease_file.held(folder):
        return folder
    names = remote.names()
    if "spec.json" not in names:
        raise FileNotFoundError(f"{places.shown(url)}: no sweep there (no spec.json)")
    places.mark(folder, url)
    data = segments.stored(remote)[0]
    if not (folder / "journal.jsonl").exists() or (folder / "journal.jsonl").read_bytes() != data:
        _write(folder / "journal.jsonl", data)
    if not whole:
        fetch_all(folder, remote, ["spec.json"])
        return folder
    bulk = [name for name in names if name.startswith(("rows/", "diagnostics/")) and not _same(folder, name, names)]
    small = [name for name in names if not name.startswith((*_AS_WRITTEN, *_LOCAL, "rows/", "diagnostics/"))]
    fetch_all(folder, remote, [*bulk, *small])
    return folder


def _same(folder: Path, name: str, sizes: dict[str, int]) -> bool:
    """Whether a file that is never changed is here."""
    path = folder / name
    return path.exists() and path.stat().st_size == sizes[name]


class Publisher:
    """Puts what is derived of a working folder to its store, now and then and at the end; faults are left for later."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._remote = folder, of(folder)
        self._done: dict[str, tuple[int, int]] = {}
        self.trouble = ""

    def publish(self) -> None:
        """Put what has changed."""
        if self._remote is None:
            return
        self.trouble = ""
        try:
            if not self._done:  # by another driver, perhaps
                for name in _immutable(self._remote.names()):
                    if (path := self._folder / name).exists():
                        self._done[name] = _stamp(path)
            for path in self._derived():
                name, stamp = path.relative_to(self._folder).as_posix(), _stamp(path)
                if self._done.get(name) != stamp:
                    self._remote.put(name, path.read_bytes())
                    self._done[name] = stamp
        except OSError as error:
            self.trouble = str(error)

    def _derived(self) -> list[Path]:
        found = []
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            hidden = any(part.startswith(".") for part in Path(name).parts)
            if path.is_file() and not hidden and not name.startswith((*_AS_WRITTEN, *_LOCAL)):
                found.append(path)
        return found


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[None]:
    """Publish what is derived once a minute, and at the end."""
    if places.remote_of(folder) is None:
        yield
        return
    publisher, stopped = Publisher(folder), threading.Event()

    def follow() -> None:
        while not stopped.wait(PUBLISH_S):
            publisher.publish()

    thread = threading.Thread(target=follow, name="musweep-publish", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(timeout=60)
        publisher.publish()
        if publisher.trouble:
            print(f"warning: {publisher.trouble}; `musweep sync` puts it there", file=sys.stderr)


def merge_diagnostics(folder: Path) -> None:
    """Replace the many small files of a sweep that no one writes to by one, those of workers elsewhere included.

    Raises:
        OSError: they are left as they are.
    """
    from sweeps import store

    remote = of(folder)
    if remote is None:
        return store.merge_diagnostics(folder)
    names = remote.names("diagnostics/")
    fetch_all(folder, remote, [name for name in names if not _same(folder, name, names)])
    store.merge_diagnostics(folder)
    for path in (folder / "diagnostics").glob("merged-*.parquet"):
        keep(path, folder)
    for name in names:
        if not (folder / name).exists():
            remote.remove(name)
    return None


def sweeps_under(url: str) -> list[Path]:
    """Working folders of all sweeps directly under a URL, with their specs and journals as they are now.

    Raises:
        RemoteError: the store does not answer.
    """
    names = Remote(url).names()
    found = [name.partition("/")[0] for name in names if name.count("/") == 1 and name.endswith("/spec.json")]
    return [working_folder(places.under(url, name), whole=False) for name in found]


def publish(folder: Path) -> str:
    """Put all that is derived of a sweep to its store; returns why not, if not."""
    publisher = Publisher(folder)
    publisher.publish()
    return publisher.trouble


def _immutable(names: dict[str, int]) -> list[str]:
    return [name for name in names if name.startswith("diagnostics/")]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
