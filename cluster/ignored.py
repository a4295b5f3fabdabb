"""Which files of a folder are sent: what git would send, without what .musweepignore names.

Inside a git work tree git says so itself. Elsewhere the folder is walked, honouring .gitignore as git would.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cluster.launch import LaunchError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

OWN = ".musweepignore"
NEVER = (".git", ".venv", "__pycache__")
"""Names that are never sent, wherever they stand."""
NEVER_AT_ROOT = ("runs", "mlruns", "mlartifacts", "mlflow.db")
"""What musweep and MLflow leave in a working folder."""


class Patterns:
    """The ignore files of a folder and those below it; of patterns that fit, the nearest file's last one counts.

    Args:
        root: the folder.
        names: of the ignore files, as in (".gitignore", ".musweepignore").
    """

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        self.root, self.names = root, names
        self._specs: dict[str, list[GitIgnoreSpec]] = {}
        self._folders: dict[str, bool] = {"": False}

    def ignored(self, path: str) -> bool:
        """Whether a file is left out: it fits, or a folder above it does, in which nothing can be kept."""
        return self._folder(_above(path)) or self._fits(path)

    def folder_ignored(self, path: str) -> bool:
        """Whether all below a folder is left out."""
        return self._folder(path)

    def _folder(self, path: str) -> bool:
        if path not in self._folders:
            self._folders[path] = self._folder(_above(path)) or self._fits(path + "/")
        return self._folders[path]

    def _fits(self, path: str) -> bool:
        """Whether the patterns that apply to a path, a folder's with a slash behind it, leave it out."""
        above = _above(path.rstrip("/"))
        while True:
            inside = path[len(above) + 1 :] if above else path
            for spec in reversed(self._of(above)):
                for pattern in reversed(spec.patterns):
                    if pattern.include is not None and _fits_itself(pattern, inside):
                        return bool(pattern.include)
            if not above:
                return False
            above = _above(above)

    def _of(self, folder: str) -> list[GitIgnoreSpec]:
        """The patterns that stand in a folder."""
        if folder not in self._specs:
            from pathspec import GitIgnoreSpec

            found = []
            for name in self.names:
                file = self.root / folder / name
                if file.is_file():
                    lines = file.read_bytes().decode("utf-8", "surrogateescape").splitlines()
                    try:
                        found.append(GitIgnoreSpec.from_lines(lines))
                    except ValueError as error:
                        raise LaunchError(f"{file}: {error}") from None
            self._specs[folder] = found
        return self._specs[folder]


def _fits_itself(pattern: Any, path: str) -> bool:
    """Whether a pattern names this very path: git looks at folders above it one by one, `pathspec` all at once."""
    if "ps_d" in pattern.regex.groupindex:  # the end of a folder's name, perhaps of one above
        return any(found.end() == len(path) for found in pattern.regex.finditer(path))
    found = pattern.regex.search(path)  # one like `a/**` is of what lies in a folder, not of the folder
    return found is not None and (found.end() < len(path) or not path.endswith("/"))


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def listed(root: Path) -> Iterator[str]:
    """The paths, relative to a folder, of what is sent with it: files and links, in no order.

    Raises:
        LaunchError: the folder cannot be read, or git cannot say what is in it.
    """
    own = Patterns(root, (OWN,))
    for path in _git(root, "") if _in_work_tree(root) else _walk(root, Patterns(root, (".gitignore",)), own):
        if not _never(path) and not own.ignored(path):
            yield path


def _never(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return parts[0] in NEVER_AT_ROOT or any(part in NEVER for part in parts) or path.endswith(".pyc")


def _in_work_tree(root: Path) -> bool:
    """Whether git knows the folder as part of a work tree of which it tracks or would track what lies in it."""
    try:
        done = _run(root, "rev-parse", "--is-inside-work-tree")
    except FileNotFoundError:  # no git here: its ignore files still count
        return False
    if done.returncode == 0 and done.stdout.strip() == b"true":
        return _run(root, "check-ignore", "-q", ".").returncode != 0  # an ignored folder, sent on purpose, is walked
    if b"dubious ownership" in done.stderr:
        raise LaunchError(f"{root}: git does not trust this folder: git config --global --add safe.directory {root}")
    return False


def _git(root: Path, below: str) -> Iterator[str]:
    """What git would send: tracked, and untracked but not ignored; of repositories inside it likewise."""
    folder = root / below
    done = _run(folder, "ls-files", "-co", "--exclude-standard", "-z")
    if done.returncode != 0:
        raise LaunchError(f"{folder}: git ls-files: {os.fsdecode(done.stderr).strip() or 'failed'}")
    for name in dict.fromkeys(os.fsdecode(done.stdout).split("\0")):
        path = below + name
        whole = root / path
        if not name or not os.path.lexists(whole):  # deleted, and git has not been told
            continue
        if whole.is_dir() and not whole.is_symlink():
            if (whole / ".git").exists():  # a submodule, or a repository that lies here
                yield from _git(root, path.rstrip("/") + "/")
        else:
            yield path


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    # A variable such as GIT_DIR, which hooks have, would name another repository than the folder's.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"LC_ALL": "C"}
    command = ["git", "-c", "core.quotepath=off", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, check=False, env=env)


def _walk(root: Path, git: Patterns, own: Patterns) -> Iterator[str]:
    """Files and links below a folder that is in no work tree."""
    stack = [""]
    while stack:
        below = stack.pop()
        try:
            entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
        except PermissionError:
            raise LaunchError(f"cannot read {root / below}/: permission denied; {how_to_ignore(below)}") from None
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if _never(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                venv = os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))  # noqa: PTH110, PTH118 - a scan's entry
                if not venv and not git.folder_ignored(path) and not own.folder_ignored(path):
                    stack.append(path)
            elif not git.ignored(path):
                yield path


def how_to_ignore(path: str) -> str:
    """What to do about a path that should not be sent."""
    escaped = "".join(f"\\{letter}" if letter in "\\*?[!# " else letter for letter in path)
    return f"put /{escaped} into {OWN}"
