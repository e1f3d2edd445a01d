#!/bin/sh
# What a build server runs, and what runs here too: exit code 0 if the model passes, 1 if a gate fails, 2 if something
# could not be measured. Needs nashc in the environment that is active.
set -eu
cd "$(dirname "$0")"
python ../fetch_digits.py ../../out/digits
nashc check --junit ../../out/digits/gates.xml
