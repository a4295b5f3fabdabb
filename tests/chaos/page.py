"""FAULTS.md, from stored results only: each case's last run, which may be of another day than its neighbour's."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.matrix import order

HEAD = """# Faults, injected and survived

Written by `make chaos` (`python tests/chaos/run.py`) from `tests/chaos/results/`; not edited by hand. Every fault was
done to real sweeps: drivers as processes, Ray, MLflow, on one machine. Afterwards each sweep was held against one that
nothing happened to. A fault counts as survived if all of this held for its sweep:

1. the same command, given again where the driver was hit, finished the sweep;
2. every trial is in exactly one end state, and 3. was asked for and ended once;
4. the final table (params, states, rungs, objectives, every metric of every report) is equal to the last bit;
5. no trial went back beyond the last whole checkpoint of its group, nor beyond the last rung that it had passed a
   second before (but in 2 checkpoints are hit as they are written, in 12 damaged);
6. MLflow has each trial once, every point of the journal once, nothing RUNNING; no process is left.

`lost` is the most updates that one trial of 4,500 was trained again after one fault; `same table` is point 4 alone, in
22 and 22b for the trials beside those that fail; `-` where there is nothing to compare with. `seconds` are of the whole
case, with the sweeps it is held against. `make chaos ARGS="--case 5 6"` runs some cases again and leaves the others as
they were.
"""


def stored(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder, in order."""
    found = [json.loads(path.read_text()) for path in folder.glob("case-*.json")]
    return sorted(found, key=lambda result: order(result["case"]))


def write(path: Path, results: Sequence[Mapping[str, Any]], titles: Mapping[str, Sequence[str]]) -> Path:
    """Write the page; `titles` has all cases, whether they were run or not."""
    ran = {result["case"]: result for result in results if result["case"] in titles}
    lines = [
        HEAD,
        "| case | fault | how it was injected | injected | survived | lost | same table | seconds | when |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(ran[case]) if case in ran else _absent(case, *titles[case]) for case in titles),
    ]
    passed, injected = (sum(found) for found in _counts(ran.values()))
    lines += ["", f"{passed} of {len(titles)} cases survived every time; {injected} faults were injected."]
    if len(ran) < len(titles):
        lines[-1] += f" Not run: {', '.join(case for case in titles if case not in ran)}."
    if failed := [result for result in ran.values() if result["failures"] or result["skipped"]]:
        lines += ["", "## Not survived, or not tried", ""]
        for result in failed:
            told = [f"skipped: {result['skipped']}"] if result["skipped"] else dict.fromkeys(result["failures"][:6])
            lines += [f"- {result['case']}, {result['title']}: {_plain(words)}" for words in told]
    if any(result["notes"] for result in ran.values()):
        lines += ["", "## Notes", ""]
        lines += [f"- {r['case']}, {r['title']}: {_plain(words)}" for r in ran.values() for words in r["notes"]]
    lines += ["", "## Measured on", "", *_machines(list(ran.values()))]
    path.write_text("\n".join(lines) + "\n")
    return path


def _row(result: Mapping[str, Any]) -> str:
    same = {True: "yes", False: "**no**", None: "-"}[result["identical"]]
    survived = f"{result['survived']}" if result["passed"] else f"**{result['survived']}**"
    cells = [
        result["case"], result["title"], result["how"], result["injected"],
        "skipped" if result["skipped"] else survived,
        result["lost_updates"], same, f"{result['seconds']:.0f}", result["date"],
    ]  # fmt: skip
    return f"| {' | '.join(_plain(str(cell)) for cell in cells)} |"


def _absent(case: str, title: str, how: str) -> str:
    return f"| {case} | {title} | {how} | - | **not run** | - | - | - | - |"


def _counts(results: Iterable[Mapping[str, Any]]) -> tuple[list[bool], list[int]]:
    found = list(results)
    return [bool(result["passed"]) for result in found], [int(result["injected"]) for result in found]


def _plain(words: str) -> str:
    return " ".join(words.replace("|", "/").split())[:300]


def _machines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which cases were run by which command, on what, and with which code."""
    seen: dict[tuple[str, str], list[str]] = {}
    for result in results:
        machine = result["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        words = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, load "
        words += f"{machine['load_average_1m_before']} at the start, Python {machine['python']}"
        code, _, changed = str(result["code"]).partition("+")
        code = f"commit {code[:12]}{' with changes' * bool(changed)}" if code else "code of no commit"
        told = f"`{result['command']}`, seed {result['seed']}, {code}"
        seen.setdefault((told, f"{words}, {versions}"), []).append(result["case"])
    return [f"- {', '.join(cases)}: {told}; {machine}" for (told, machine), cases in seen.items()]
