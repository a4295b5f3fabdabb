"""Stands in for a sweep's driver where launchers are tested: it says a line, then waits to be told how to end."""

import os
import signal
import sys
import time
from pathlib import Path

from cluster.launched import unpack


def main(words: list[str]) -> int:
    """Behave as `drive` does: make the folder, leave with 130 on SIGTERM, go on where the folder ends."""
    package = Path(words[1]) if words[1] != "--out" else None
    folder = Path(words[words.index("--out") + 1])
    left: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: left.append(130))
    print("\x1b[1mstarting\x1b[0m", flush=True)
    if package is not None and '"failing"' in (unpack(package, folder) / "spec.json").read_text():
        print("error: \x1b[31mboom\x1b[0m", file=sys.stderr, flush=True)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write(os.environ.get("GREETING", "no greeting") + "\n")
    while not left and not (folder / "go").exists():
        if (folder / "logs" / "stop").exists():
            left.append(130)
        time.sleep(0.05)
    print("interrupted" if left else "done", flush=True)
    return left[0] if left else 0


if __name__ == "__main__":
    at = sys.argv.index("drive")
    code = main(sys.argv[at:])
    if "cluster.launched" in sys.argv:
        Path(sys.argv[at - 1]).write_text(str(code))
    sys.exit(code)
