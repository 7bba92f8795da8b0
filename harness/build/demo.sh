#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh NEXUS EXPERIMENT: one experiment from run file to report and plots.
set -eu
nexus=$1
experiment=$2
mkdir -p results
"$nexus" run "$experiment"
# shellcheck disable=SC2012  # names of run files are ours, and only their age matters here
run=$(ls -t results/*.h5 | head -n 1)
"$nexus" report "$run"
"$nexus" plot "$run"
stem=${run%.h5}
printf '\nrun     %s\nreport  %s.md\n        %s.html\nplots   %s.plots/\n' "$run" "$stem" "$stem" "$stem"
