/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/err.h: the one error convention of Nexus.
 *
 * Functions that can fail return 0 on success or one of the negative codes below, and take a
 * `struct nx_err *err` as their last argument. On failure err holds one complete sentence without a
 * full stop that names the place, what was found and what is legal. On success err is untouched.
 * err may be NULL where the caller does not want the sentence. Header-only, so that plugins need
 * not link against anything. Thread-safe: all state is the caller's.
 */
#ifndef NEXUS_ERR_H
#define NEXUS_ERR_H

#include <stdarg.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, text): the codes, said once. */
#define NX_ERROR_CODES(X)                                                                          \
	X(NX_OK, 0, "no error")                                                                    \
	X(NX_EINVAL, -1, "invalid value")                                                          \
	X(NX_ENOMEM, -2, "out of memory")                                                          \
	X(NX_EIO, -3, "input or output failed")                                                    \
	X(NX_EABI, -4, "incompatible plugin")                                                      \
	X(NX_EFORMAT, -5, "malformed file")                                                        \
	X(NX_ENOTSUP, -6, "not supported here")                                                    \
	X(NX_ENOSPC, -7, "pool or disk full")                                                      \
	X(NX_EENV, -8, "the environment lacks something")                                          \
	X(NX_ECONFLICT, -9, "conflicting choices")                                                 \
	X(NX_ESKIP, -10, "skipped with a reason")                                                  \
	X(NX_EBUG, -11, "a broken invariant")                                                      \
	X(NX_EFAULT, -12, "the device failed, and what this process has on it is lost")

enum nx_code {
#define X(name, value, text) name = value,
	NX_ERROR_CODES(X)
#undef X
};

#define NX_ERR_MAX 512

struct nx_err {
	int code;             /* 0 or an nx_code */
	char msg[NX_ERR_MAX]; /* NUL-terminated UTF-8; cut at NX_ERR_MAX - 1 bytes */
};

#if defined(__GNUC__)
#define NX_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define NX_MUST_CHECK __attribute__((warn_unused_result))
#else
#define NX_PRINTF(fmt, args)
#define NX_MUST_CHECK
#endif

/* Fills *err (when not NULL) and returns code, so that `return nx_fail(err, ...)` is one line. What is quoted may be
 * anybody's: line breaks and tabs in it become blanks, other control bytes '?'. */
NX_PRINTF(3, 4)
static inline int nx_fail(struct nx_err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
		for (char *p = err->msg; *p; p++)
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				*p = *p == '\n' || *p == '\t' ? ' ' : '?';
		err->code = code;
	}
	return code;
}

/* The short text of a code; static storage. */
static inline const char *nx_code_text(int code)
{
	switch (code) {
#define X(name, value, text)                                                                       \
	case value: return text;
		NX_ERROR_CODES(X)
#undef X
	}
	return "unknown error";
}

#ifdef __cplusplus
}
#endif
#endif
