#!/bin/bash
# Pretraining on a Cloud TPU pod slice: makes the slice, installs, runs and restarts.
#
#   NAME=byol ZONE=us-central2-b TYPE=v4-64 experiments/launch/tpu_vm.sh \
#       --config=experiments/configs/imagenet_r50.py:epochs=1000 --workdir=gs://BUCKET/runs/r50 \
#       --config.data.options.data_dir=gs://BUCKET/data --config.model.compute_dtype=bfloat16
#
# REPOSITORY is what the workers clone; VERSION is the image of the TPU VMs; SPOT=1 uses
# machines that may be preempted. Any exit code but 0 and 1, or a lost slice, leads to a
# restart, at most RESTARTS times; the run resumes from the bucket. Code 1 ends it.
set -u
: "${NAME:?}" "${ZONE:?}" "${TYPE:?}"
VERSION=${VERSION:-tpu-ubuntu2204-base}
REPOSITORY=${REPOSITORY:-$(git remote get-url origin)}
RESTARTS=${RESTARTS:-20}

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE"; }
everywhere() { tpu ssh "$NAME" --worker=all --command="$1"; }

make_slice() {
  tpu describe "$NAME" --format='value(state)' 2>/dev/null | grep -q READY && return
  tpu delete "$NAME" --quiet 2>/dev/null
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
}

# The brackets keep pkill from matching its own shell. A leftover run has a minute
# to save. The image's own Python may be older than 3.11, so uv brings one.
install="pkill -f '[e]xperiments.pretrain'
         timeout 60 bash -c 'while pgrep -f [e]xperiments.pretrain >/dev/null; do sleep 1; done'
         pkill -9 -f '[e]xperiments.pretrain'
         test -d byol_jax || git clone $REPOSITORY byol_jax
         cd byol_jax && python3 -m pip install --quiet --user uv &&
         python3 -m uv venv --quiet --allow-existing --python=3.12 .venv &&
         python3 -m uv pip install --quiet --python=.venv/bin/python -e .[tpu]"
arguments=$(printf ' %q' "$@")
# A worker that ends with code 1 leaves a file: the error needs a person, not a restart.
run="cd byol_jax && rm -f failed && .venv/bin/python -m experiments.pretrain --multihost$arguments
     code=\$?; test \$code -ne 1 || echo failed > failed; exit \$code"
for attempt in $(seq 0 "$RESTARTS"); do
  if make_slice && everywhere "$install"; then
    everywhere "$run" && exit 0
    if everywhere 'cat byol_jax/failed 2>/dev/null; true' | grep -q failed; then
      echo "a worker failed with code 1; its error is above" >&2
      exit 1
    fi
  fi
  echo "attempt $attempt ended; restarting in 60 s" >&2
  sleep 60
done
echo "gave up after $RESTARTS restarts" >&2
exit 1
