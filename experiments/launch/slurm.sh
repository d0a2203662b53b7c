#!/bin/bash
# Pretraining on a Slurm cluster, one process per GPU. From the clone:
#
#   sbatch --nodes=4 experiments/launch/slurm.sh \
#       --config=experiments/configs/imagenet_r50.py:epochs=1000 --workdir=/scratch/runs/r50 \
#       --config.data.options.data_dir=/scratch/data
#
# Nodes, tasks and rank are detected by JAX from Slurm's variables. Two minutes before the
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

# When a process dies the others notice and end by themselves. 75 is a preemption, other
# codes but 1 a lost process or node: the job is queued again. 1 is an error to be read.
srun --kill-on-bad-exit=0 python -m experiments.pretrain --multihost "$@"
code=$?
if [ "$code" -ne 0 ] && [ "$code" -ne 1 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
