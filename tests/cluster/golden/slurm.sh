#!/bin/bash
#SBATCH --job-name=curves-0123456789
#SBATCH --comment=musweep:curves-0123456789
#SBATCH --output='/shared/my sweeps/curves-0123456789/logs/driver.log'
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=B:TERM@180
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --mem=128000M
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --time=12:00:00
#SBATCH --constraint=h200

set -uo pipefail
module load python/3.11
cd '/shared/my sweeps/curves-0123456789'
export MLFLOW_TRACKING_URI=http://mlflow:5000
export MUSWEEP_DATA='/shared/the data'
umask 077
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH='/shared/my sweeps/curves-0123456789/logs/ray-token'
[ -s "$RAY_AUTH_TOKEN_PATH" ] || /opt/musweep/bin/python -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH"
rm -f logs/stop
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:$((20000 + SLURM_JOB_ID % 20000))"
again=no
trap 'again=yes; touch logs/stop' TERM
srun --ntasks-per-node=1 --kill-on-bad-exit=0 ray symmetric-run --address "$address" --min-nodes 2 --num-cpus 16 --num-gpus 4 -- \
  env RAY_ADDRESS="$address" /opt/musweep/bin/python -P -m cluster.launched '/shared/my sweeps/curves-0123456789/logs/driver.exit' drive '/shared/my sweeps/curves-0123456789/package.zip' --out '/shared/my sweeps/curves-0123456789' --secret=KEY_ID=env:OURS &
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
