"""The commands, `python -m experiments.NAME`, and their configs."""

import os

# TensorFlow's and JAX's start-up notices say nothing about a run. They are read when these are
# imported, so that they are set before any command imports anything.
# JAX sets 1 for the processes of a process that imports it; 0 is what a user sets to see all.
if os.environ.get('TF_CPP_MIN_LOG_LEVEL') != '0':
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
# One more notice; decoding and cropping use nothing of it.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
