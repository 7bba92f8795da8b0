#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh [build|test] [CONFIG]: finds what Nexus needs and installs what is missing.
#
# As root, missing packages come from apt; not as root, the one line to run is printed and the
# status is 3. `build` insists on what compiling needs, `test` also on the test and plot tools.
# With CONFIG, writes the findings there as make variables, and only when they differ, so that
# make starts over exactly when something changed. Quiet when nothing is missing.
set -u
need=${1:-test} config=${2:-}

have() { command -v "$1" >/dev/null 2>&1; }

# The version of the first of several pkg-config names, or nothing.
pc_name() {
	local name
	have pkg-config || return 1
	for name; do pkg-config --exists "$name" 2>/dev/null && { echo "$name"; return 0; }; done
	return 1
}

# The first header of the list that the compiler's usual folders have.
header() {
	local name
	for name; do
		for dir in /usr/include /usr/local/include; do
			[ -f "$dir/$name" ] && { echo "$dir/$name"; return 0; }
		done
	done
	return 1
}

font() { compgen -G '/usr/share/fonts/*/dejavu*/DejaVuSans.ttf' >/dev/null ||
	{ have fc-list && fc-list 2>/dev/null | grep -q DejaVu; }; }

dnnl_header() { header oneapi/dnnl/dnnl_version.h dnnl_version.h; }

# Sets must (without these nothing compiles) and nice (tests, plots and the fast CPU products).
probe() {
	must=() nice=()
	local cc=${CC:-cc} # may be several words: "ccache gcc"
	have "${cc%% *}" && have make && header stdlib.h >/dev/null || must+=(build-essential)
	have pkg-config || must+=(pkg-config)
	pc_name libfyaml >/dev/null || must+=(libfyaml-dev)
	pc_name jansson >/dev/null || must+=(libjansson-dev)
	pc_name libpcre2-8 >/dev/null || must+=(libpcre2-dev)
	pc_name libutf8proc >/dev/null || must+=(libutf8proc-dev)
	pc_name hdf5-serial hdf5 >/dev/null || must+=(libhdf5-dev)
	dnnl_header >/dev/null || nice+=(libdnnl-dev)
	pc_name check >/dev/null || nice+=(check)
	have gnuplot || nice+=(gnuplot-nox)
	font || nice+=(fonts-dejavu-core)
}

install_missing() {
	local log
	echo "setup: installing ${must[*]} ${nice[*]}" >&2
	log=$(mktemp)
	export DEBIAN_FRONTEND=noninteractive
	if ! { apt-get update && apt-get install -y --no-install-recommends "${must[@]}" "${nice[@]}"; } \
		>"$log" 2>&1; then
		tail -n 15 "$log" >&2
		echo "setup: apt could not install them; is the network there?" >&2
	fi
	rm -f "$log"
}

probe
if [ $((${#must[@]} + ${#nice[@]})) -gt 0 ]; then
	if [ "$(id -u)" = 0 ] && have apt-get; then
		install_missing
		hash -r
		probe
	fi
	missing=("${must[@]}" "${nice[@]}")
	if [ ${#must[@]} -gt 0 ] || { [ "$need" = test ] && [ ${#nice[@]} -gt 0 ]; }; then
		echo "setup: missing packages; as root run" >&2
		echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
		exit 3
	elif [ ${#nice[@]} -gt 0 ]; then
		echo "setup: going on without ${nice[*]}" >&2
	fi
fi
[ -n "$config" ] || exit 0

# Flags of some packages, their headers as system headers so that our warnings skip them.
cflags() { pkg-config --cflags "$@" 2>/dev/null | sed 's/-I/-isystem /g'; }
libs() { pkg-config --libs "$@" 2>/dev/null; }
version() { pkg-config --modversion "$1" 2>/dev/null || echo no; }

hdf5=$(pc_name hdf5-serial hdf5)
dnnl=no dnnl_libs="" dnnl_cflags=""
if path=$(dnnl_header); then
	dnnl=$(awk '$2 ~ /^DNNL_VERSION_(MAJOR|MINOR)$/ { v = v s $3; s = "." } END { print v }' "$path")
	dnnl_libs=-ldnnl dnnl_cflags=-DNX_HAVE_DNNL=1
fi
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
# The backend wants sm_90a and programmatic dependent launch: CUDA 12.3 at least.
cuda=no cuda_fits="" cuda_why="nvcc of CUDA 12.3 or later is not there; put it on PATH or into /usr/local/cuda"
if [ -n "$nvcc" ]; then
	cuda=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
	if awk -v v="$cuda" 'BEGIN { split(v, a, "."); exit !(a[1] > 12 || (a[1] == 12 && a[2] >= 3)) }'; then
		cuda_fits=yes
	else
		cuda_why="nvcc is of CUDA $cuda; legal: 12.3 or later"
		cuda="$cuda (too old)"
	fi
fi
format=$(command -v clang-format-14 || command -v clang-format)
case $([ -z "$format" ] || "$format" --version) in *"version 14."*) ;; *) format= ;; esac

mkdir -p "$(dirname "$config")"
cat >"$config.new" <<END
# Written by harness/build/setup.sh; do not edit.
LIB_CFLAGS := $(cflags libfyaml jansson libpcre2-8 libutf8proc "$hdf5")
LIB_LIBS := $(libs libfyaml jansson libpcre2-8 libutf8proc "$hdf5")
CHECK_CFLAGS := $(cflags check)
CHECK_LIBS := $(libs check)
DNNL_CFLAGS := $dnnl_cflags
DNNL_LIBS := $dnnl_libs
NVCC := $nvcc
CUDA_FITS := $cuda_fits
CUDA_WHY := $cuda_why
CLANG_FORMAT := $format
FEATURES := hdf5 $(version "$hdf5") / libfyaml $(version libfyaml) / jansson $(version jansson) / \
pcre2 $(version libpcre2-8) / utf8proc $(version libutf8proc) / dnnl $dnnl / check $(version check) / nvcc $cuda
END
if cmp -s "$config.new" "$config"; then rm -f "$config.new"; else mv "$config.new" "$config"; fi
