/* SPDX-License-Identifier: Apache-2.0
 *
 * base/guard.h: tries in a process of its own what a library may crash at.
 *
 * Our own readers of strangers' files are bounds-checked and fuzzed; the libraries under some of them (HDF5,
 * libfyaml) crash at damaged ones, and then nobody is told which file it was. So the program reads such a file once
 * on trial. Tests and fuzzers do not: nothing that a sanitizer finds may be lost.
 */
#ifndef NEXUS_BASE_GUARD_H
#define NEXUS_BASE_GUARD_H

#include "nexus/err.h"

/* From now on nx_guard_try tries; without this call it does nothing. For main(), before there are threads; does
 * nothing in a program built with AddressSanitizer. */
void nx_guard_enable(void);

/* Calls fn(ctx) in a forked child, whose output and memory are lost. 0 when fn returned, when trying is not
 * enabled, in such a child, and when no child could be made. NX_EFORMAT with a sentence on `name` when the child
 * crashed; legal says what would not have. The caller must have one thread. */
int nx_guard_try(void (*fn)(void *ctx), void *ctx, const char *name, const char *legal,
                 struct nx_err *err);

/* What nx_guard_try judges: how the child ended. 0 = fn returned, or there was no child; a signal; -1 = it ended
 * itself otherwise. */
int nx_guard(void (*fn)(void *ctx), void *ctx);

#endif
