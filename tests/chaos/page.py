"""FAULTS.md, from stored results only."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = """# Faults, injected and survived

Written by `make chaos` (`python tests/chaos/run.py`) from `tests/chaos/results/`; not edited by hand. Every fault was
done to real sweeps: drivers as processes, Ray, MLflow, on one machine. Afterwards each sweep was held against one that
nothing happened to. A fault counts as survived if all of this held:

1. the same command, given again where the driver was hit, finished the sweep;
2. every trial is in exactly one end state, and 3. was asked for and ended once;
4. the final table (params, states, rungs, objectives, every metric of every report) is equal to the last bit;
5. no trial went back beyond the last rung that it had passed a second before;
6. MLflow has each trial once, every point of the journal once, nothing RUNNING; no process is left.

`lost` is the most updates that one trial of 4,500 was trained again after one fault. Where a case asks for something
else as well, its notes below the table say so.
"""


def order(number: str) -> tuple[bool, int, str]:
    """The numbered cases first, by number, then the others."""
    digits = "".join(c for c in number if c.isdigit())
    return not number[0].isdigit(), int(digits or 0), number


def stored(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder, in order."""
    found = [json.loads(path.read_text()) for path in folder.glob("case-*.json")]
    return sorted(found, key=lambda result: order(result["case"]))


def write(path: Path, results: Sequence[dict[str, Any]]) -> Path:
    """Write the page."""
    lines = [
        HEAD,
        "| case | fault | how it was injected | injected | survived | lost | same table | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        same = {True: "yes", False: "**no**", None: "-"}[result["identical"]]
        survived = (
            "skipped"
            if result["skipped"]
            else f"{result['survived']}"
            if result["passed"]
            else f"**{result['survived']}**"
        )
        lines.append(
            f"| {result['case']} | {result['title']} | {result['how']} | {result['injected']} | {survived} "
            f"| {result['lost_updates']} | {same} | {result['seconds']:.0f} |"
        )
    passed = sum(result["passed"] for result in results)
    lines += ["", f"{passed} of {len(results)} cases survived every time."]
    failed = [result for result in results if result["failures"] or result["skipped"]]
    if failed:
        lines += ["", "## Not survived", ""]
        for result in failed:
            for words in [result["skipped"]] if result["skipped"] else dict.fromkeys(result["failures"][:6]):
                lines.append(f"- {result['case']}, {result['title']}: {_plain(words)}")
    if any(result["notes"] for result in results):
        lines += ["", "## Notes", ""]
        lines += [f"- {r['case']}, {r['title']}: {_plain(words)}" for r in results for words in r["notes"]]
    lines += ["", "## Measured on", "", *_machines(results)]
    path.write_text("\n".join(lines) + "\n")
    return path


def _plain(words: str) -> str:
    return " ".join(words.replace("|", "/").split())[:300]


def _machines(results: Sequence[dict[str, Any]]) -> list[str]:
    seen: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for result in results:
        machine = result["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        size = f"{machine['cores']} cores, {machine['memory_gib']} GiB"
        words = f"{machine['cpu']}, {size}, Python {machine['python']}, {versions}"
        seen.setdefault((words, result["seed"]), []).append(result)
    return [
        f"- {', '.join(r['case'] for r in group)}: {_span([r['date'] for r in group])}, seed {seed}, on {words}"
        for (words, seed), group in seen.items()
    ]


def _span(dates: list[str]) -> str:
    return min(dates) if min(dates) == max(dates) else f"{min(dates)} to {max(dates)}"
