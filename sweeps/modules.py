"""Where code and data of the user's own lie, which a spec names, and how code gets reachable.

Code, `package.module:function`, is looked for beside the spec, in the working directory, then where Python looks;
nothing is imported for that. Data, `task.file`, are looked for beside the spec, then in the working directory. Where
they were found is kept in the spec, so that workers, which run elsewhere, and a later resume find the same.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from sweeps.errors import Problem

PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""package.module:function."""


def named(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, name) of all code of the user's own that a spec's plain data name."""
    for path, value in (("trainer", data.get("trainer")), ("task.name", data.get("task")), ("model.kind", None)):
        section, _, key = path.partition(".")
        inner = data.get(section)
        if key and isinstance(inner, Mapping):
            value = inner.get(key)
        if isinstance(value, str) and PLACE.fullmatch(value):
            yield path if key and isinstance(inner, Mapping) else section, value


def settle(data: MutableMapping[str, Any], beside: Path) -> list[Problem]:
    """Put the folder that holds the code that a spec names into its data, and say what is nowhere.

    Args:
        beside: the spec's folder; what the key `modules` says is relative to it.
    """
    names = list(named(data))
    given = data.get("modules")
    if isinstance(given, str):
        folders = [(beside / Path(given).expanduser()).resolve()]
        data["modules"] = str(folders[0])
    else:
        folders = [beside.resolve(), Path.cwd()]
    found = [folder for folder in folders if any(_in(name, folder) for _, name in names)]
    if found and given is None:
        data["modules"] = str(found[0])
    missing = []
    for key, name in names:
        module = name.partition(":")[0]
        if not any(_in(name, folder) for folder in found) and not _known(module):
            where = dict.fromkeys(_near(folder) for folder in folders)
            missing.append(Problem(key, f"no module {module} in {' or '.join(where)} or on Python's path", name))
    return missing


def settle_file(data: MutableMapping[str, Any], beside: Path) -> list[Problem]:
    """Put the whole path of the file or folder that `task.file` names into a spec's data, and say if it is nowhere."""
    task = data.get("task")
    given = task.get("file") if isinstance(task, Mapping) else None
    if not isinstance(task, Mapping) or not isinstance(given, str):
        return []
    folders = dict.fromkeys([beside.resolve(), Path.cwd()])
    for folder in folders:
        file = folder / Path(given).expanduser()
        if file.exists():
            data["task"] = {**task, "file": str(file)}
            return []
    places = [] if Path(given).expanduser().is_absolute() else [_near(folder) for folder in folders]
    return [Problem("task.file", f"no such file{' in ' if places else ''}{' or '.join(places)}", given)]


def reach(folder: str | None) -> None:
    """Have Python look for modules in a folder first."""
    if folder is not None and folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()


def _near(folder: Path) -> str:
    here = Path.cwd()
    return f"{folder.relative_to(here)}/" if folder.is_relative_to(here) and folder != here else str(folder)


def _in(name: str, folder: Path) -> bool:
    """Whether a folder holds the module of a name."""
    importlib.invalidate_caches()
    path: list[str] | None = [str(folder)]
    parts = name.partition(":")[0].split(".")
    for i in range(len(parts)):
        found = PathFinder.find_spec(".".join(parts[: i + 1]), path)
        if found is None:
            return False
        path = list(found.submodule_search_locations or ())
    return True


def _known(module: str) -> bool:
    """Whether Python would find a module, its packages not being imported."""
    path: list[str] | None = None
    parts = module.split(".")
    for i in range(len(parts)):
        name = ".".join(parts[: i + 1])
        found: ModuleSpec | None = None
        for finder in sys.meta_path:
            found = found or finder.find_spec(name, path)
        if found is None:
            return False
        path = list(found.submodule_search_locations or ())
    return True
