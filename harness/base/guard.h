/* SPDX-License-Identifier: Apache-2.0
 *
 * base/guard.h: tries in a process of its own what a library may crash at.
 *
 * Our own readers of strangers' files are bounds-checked and fuzzed; the libraries under some of them (HDF5,
 * libfyaml) crash at damaged ones, and then nobody is told which file it was. So a file is read once on trial.
 */
#ifndef NEXUS_BASE_GUARD_H
#define NEXUS_BASE_GUARD_H

/* Calls fn(ctx) in a forked child, whose output and memory are lost. Returns the signal that ended it; -1 when it
 * ended itself otherwise than by returning; 0 when fn returned, or when no child could be made. The
 * caller must have one thread. */
int nx_guard(void (*fn)(void *ctx), void *ctx);

#endif
