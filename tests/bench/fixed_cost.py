"""What a sweep costs that trains nearly nothing: 64 trials of 10 updates, from command to finished report."""

import json
import tempfile
from pathlib import Path
from typing import Any

import sweep

TRIALS, UPDATES = 64, 10


def measure() -> dict[str, Any]:
    """Seconds to the finished report and to the command's end, when MLflow has all; and where they go."""
    spec = sweep.with_trials(TRIALS, training={"updates": UPDATES, "reports": 2}, early_stopping={"rungs": [5]})
    with tempfile.TemporaryDirectory() as folder:
        result = sweep.run(spec, Path(folder))
    keep = (
        "report_s",
        "command_s",
        "start_to_board_s",
        "start_s",
        "seconds",
        "rows_after_last_end_s",
        "after_s",
        "trials",
        "states",
    )
    return {name: result[name] for name in keep}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
