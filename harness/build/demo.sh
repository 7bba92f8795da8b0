#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh NEXUS EXPERIMENT: one experiment from run file to report and plots.
set -eu
nexus=$1
experiment=$2
mkdir -p results
# A failed cell (status 1) is part of the report, not a reason to have none.
status=0
run=$("$nexus" run "$experiment") || status=$?
[ -n "$run" ] || exit "$status"
"$nexus" report "$run"
"$nexus" plot "$run"
stem=${run%.h5}
printf '\nrun     %s\nreport  %s.md\n        %s.html\nplots   %s.plots/\n' "$run" "$stem" "$stem" "$stem"
exit "$status"
