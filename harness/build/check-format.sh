#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# check-format.sh [--fix] CLANG_FORMAT FILE...: checks or mends the format of C files. Another
# release than 14 formats differently, so without that one nothing is checked.
set -u
fix=
if [ "$1" = --fix ]; then fix=1; shift; fi
tool=${1:-$(command -v clang-format-14 || command -v clang-format)}
shift
case $([ -z "$tool" ] || "$tool" --version) in
*"version 14."*) ;;
*)
	echo "format: clang-format 14 is not here (package clang-format-14); nothing checked" >&2
	[ -z "$fix" ]
	exit
	;;
esac
[ $# -gt 0 ] || exit 0
[ -z "$fix" ] || exec "$tool" -i "$@"
files=$("$tool" --dry-run "$@" 2>&1 | sed -n 's/^\([^:]*\):[0-9]*:[0-9]*: warning: code should be.*/\1/p' | sort -u)
[ "$files" ] || exit 0
echo "format: 'make format' would change:" $files >&2
exit 1
