#!/bin/bash
# Pretraining on a Slurm cluster, one process per GPU. Run in the clone:
#
#   sbatch --nodes=4 experiments/launch/slurm.sh \
#       --config=experiments/configs/imagenet_r50.py:epochs=1000 --workdir=/scratch/runs/r50 \
#       --config.data.options.data_dir=/scratch/data
#
# JAX detects nodes, tasks and rank from Slurm's variables. Two minutes before the
# time limit, and when the job is preempted, Slurm sends SIGTERM: the run saves, ends with
# code 75, and the job goes back into the queue, where the same command resumes it.
#SBATCH --job-name=byol_jax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=byol_jax-%j.log

# When a process dies the others notice and end by themselves within a minute; --wait ends
# one that does not. 75 is a preemption, 76 the loss of another process, other codes but 1
# the loss of this one: the job is queued again. A task that ends with 1 leaves a file, because
# srun only returns the highest code; such an error needs a person.
failed="byol_jax-$SLURM_JOB_ID.failed"
rm -f "$failed"
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=180 bash -c '
  trap : TERM  # The shell must outlive the signal, to return the code.
  python -m experiments.pretrain --multihost "${@:2}"
  code=$?; [ "$code" -ne 1 ] || echo "$SLURM_PROCID" >> "$1"; exit "$code"' task "$failed" "$@"
code=$?
if [ -e "$failed" ]; then
  echo "tasks that failed with code 1: $(tr '\n' ' ' < "$failed")" >&2
  exit 1
fi
if [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
