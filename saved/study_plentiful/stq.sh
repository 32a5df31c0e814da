#!/bin/bash
cd /tmp/stc; export REFLECT_RL_HOME=/tmp/st OMP_NUM_THREADS=1 PYTHONPATH=/tmp/stc
exec nice -n 5 /tmp/stc/.venv/bin/python -m reflect_rl reproduce --profile study --env autoexplore --extend --cores 2
