"""The batch script of a sweep for Slurm, as text: one Ray over the job's nodes, the driver on the first."""

from __future__ import annotations

import shlex

from cluster.launch import Job, driver_command
from cluster.targets import Target, megabytes

WARNING_S = 180
"""How long before its time limit a job is told to leave: checkpoints, tables and the report are written then."""
PACKAGE = "package.zip"
_SCRIPT = """\
set -uo pipefail
{setup}cd {folder}
{exports}umask 077
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}
[ -s "$RAY_AUTH_TOKEN_PATH" ] || {python} -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH"
rm -f logs/stop
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:$((20000 + SLURM_JOB_ID % 20000))"
again=no
trap 'again=yes; touch logs/stop' TERM
srun --ntasks-per-node=1 --kill-on-bad-exit=0 ray symmetric-run --address "$address" --min-nodes {nodes}{has} -- \\
  env RAY_ADDRESS="$address" {command} &
job=$!
while true; do
  wait "$job"
  code=$?
  kill -0 "$job" 2>/dev/null || break
done
if [ "$again" = yes ] && [ "$(cat logs/driver.exit 2>/dev/null)" = 130 ]; then
  rm -f logs/stop
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def render(job: Job, target: Target) -> str:
    """The script that sbatch is given.

    The driver leaves when `logs/stop` is there. Before its time limit Slurm sends the script a TERM: then it leaves
    too, and the job is queued again to go on.
    """
    assert target.slurm is not None
    asked, there = target.slurm, target.resources
    nodes = asked.nodes
    cpus = max(1, int(there.cpus // nodes)) if there.cpus else None
    gpus = int(there.gpus // nodes) if there.gpus else None
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={job.id}",
        f"#SBATCH --comment=musweep:{job.id}",
        f"#SBATCH --output={shlex.quote(f'{job.folder}/logs/driver.log')}",
        "#SBATCH --open-mode=append",
        f"#SBATCH --nodes={nodes}",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --exclusive",
        "#SBATCH --requeue",
        f"#SBATCH --signal=B:TERM@{WARNING_S}",
        *([f"#SBATCH --cpus-per-task={cpus}"] if cpus else []),
        *([f"#SBATCH --gpus-per-node={gpus}"] if gpus else []),
        *([f"#SBATCH --mem={megabytes(there.memory, nodes)}M"] if there.memory else []),
        *(
            f"#SBATCH --{name}={value}"
            for name, value in (("partition", asked.partition), ("account", asked.account), ("time", asked.time))
            if value
        ),
        *(f"#SBATCH {option}" for option in asked.options),
    ]
    words = driver_command(job, f"{job.folder}/{PACKAGE}", target.python or "python")
    place = words.index("cluster.cli")
    words[place : place + 1] = ["cluster.launched", f"{job.folder}/logs/driver.exit"]
    body = _SCRIPT.format(
        setup="".join(f"{line}\n" for line in asked.setup),
        folder=shlex.quote(job.folder),
        exports="".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(job.env.items())),
        token=shlex.quote(f"{job.folder}/logs/ray-token"),
        python=shlex.quote(target.python or "python"),
        nodes=nodes,
        has=(f" --num-cpus {cpus}" if cpus else "") + (f" --num-gpus {gpus}" if gpus else ""),
        command=shlex.join(words),
    )
    return "\n".join(lines) + "\n\n" + body
