"""How to run the sweep again: the code, the commands, the spec as it was understood."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from dashboards.page import escape
from dashboards.view import View

DERIVED = ("resolved", "versions")
"""Keys of spec.json that are no part of a spec."""


def commands(view: View) -> list[str]:
    """What to type, from a checkout to the same report."""
    versions = {**(view.spec.get("versions") or {}), **view.history.versions}
    commit = re.sub(r"\+changes$", "", str(versions.get("git") or ""))
    folder = shlex.quote(view.folder.name) if view.folder is not None else "DIR"
    start = [f"git checkout {shlex.quote(commit)}"] if re.fullmatch(r"[0-9a-f]{7,40}", commit) else []
    lines = [*start, "make install", f"musweep run {_spec_name(view)} --out {folder}"]
    if (more := view.history.extended) > 0:
        lines.append(f"musweep run {folder} --more {more}")
    return [*lines, f"musweep report {folder} --open"]


def _spec_name(view: View) -> str:
    return shlex.quote(re.sub(r"[^A-Za-z0-9._-]+", "-", str(view.spec.get("name") or "sweep")).strip("-") + ".yaml")


def spec_text(view: View) -> str:
    """The spec without what was resolved; JSON, which a YAML reader takes."""
    kept: dict[str, Any] = {key: value for key, value in view.spec.items() if key not in DERIVED}
    return json.dumps(kept, indent=1, ensure_ascii=False)


def markup(view: View) -> str:
    """Commands, and the spec folded away."""
    versions = {**(view.spec.get("versions") or {}), **view.history.versions}
    dirty = str(versions.get("git") or "").endswith("+changes")
    changed = '<p class="caption">The code had changes that were not committed; they are not in this commit.</p>'
    lines = escape("\n".join(commands(view)))
    spec = escape(spec_text(view))
    name = escape(_spec_name(view))
    return (
        f"<pre>{lines}</pre>{changed if dirty else ''}<details><summary>{name}: the spec with every default filled in "
        f"(JSON is YAML too)</summary><pre>{spec}</pre></details>"
    )


CAPTION = (
    "The same code, spec and kind of machine give the same trials; on other machines numbers differ by rounding, and "
    "which trials TPE asks for may follow. Put the spec below into the file that is named."
)
