"""The commands, `python -m experiments.NAME`, and their configs."""

import os

# The start-up notices of TensorFlow and JAX say nothing about a run. The variables are read on
# import, so set them before any command imports anything.
# JAX sets 1 for the processes of a process that imports it; 0 is what a user sets to see all.
if os.environ.get('TF_CPP_MIN_LOG_LEVEL') != '0':
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
# One more notice; decoding and cropping use nothing of it.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
