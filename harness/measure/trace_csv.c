/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/trace_csv.c: the CSV shape of a trace; see trace.h.
 */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "measure/trace_internal.h"

enum what { TIME, PROMPT, OUTPUT, N_WHAT };

/* Names of columns as they are compared: small letters without spaces and underscores. */
static const struct {
	enum what what;
	const char *name;
	double scale_s; /* TIME: what a plain number counts */
} names[] = {
	{TIME, "timestamp", 1},      {TIME, "arrival", 1},          {TIME, "arrivaltimestamp", 1},
	{TIME, "timestampms", 1e-3}, {TIME, "arrivalms", 1e-3},     {PROMPT, "contexttokens", 0},
	{PROMPT, "inputlength", 0},  {PROMPT, "inputtokens", 0},    {PROMPT, "prompttokens", 0},
	{PROMPT, "promptsize", 0},   {PROMPT, "requesttokens", 0},  {OUTPUT, "generatedtokens", 0},
	{OUTPUT, "outputlength", 0}, {OUTPUT, "outputtokens", 0},   {OUTPUT, "completiontokens", 0},
	{OUTPUT, "tokensize", 0},    {OUTPUT, "responsetokens", 0},
};

static const char *const what_text[] = {
	"the time; legal: timestamp, timestamp_ms",
	"prompt lengths; legal: ContextTokens, input_length",
	"output lengths; legal: GeneratedTokens, output_length",
};

struct csv {
	const char *path;
	int line;
	size_t column[N_WHAT]; /* from 1; 0 = not found */
	double scale_s;
};

NX_PRINTF(3, 4)
static int fail(const struct csv *c, struct nx_err *err, const char *fmt, ...)
{
	char text[NX_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return nx_fail(err, NX_EFORMAT, "%s:%d: %s", c->path, c->line, text);
}

/* ---- times ------------------------------------------------------------------------------------ */

static bool digits(const char **s, int n, int *out)
{
	*out = 0;
	for (int i = 0; i < n; i++, (*s)++) {
		if (!isdigit((unsigned char)**s))
			return false;
		*out = *out * 10 + (**s - '0');
	}
	return true;
}

static bool take(const char **s, char c)
{
	if (**s != c)
		return false;
	(*s)++;
	return true;
}

/* Days since 1970-01-01 of the Gregorian calendar (Hinnant, chrono-compatible low-level date algorithms). */
static int64_t days_of(int y, int m, int d)
{
	y -= m <= 2;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400, doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int days_in(int y, int m)
{
	static const int n[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	return n[m - 1] + (m == 2 && (y % 4 == 0 && (y % 100 != 0 || y % 400 == 0)));
}

/* YYYY-MM-DD, a space or T, HH:MM:SS, a fraction, Z or +HH:MM. */
static int parse_date(const char *s, int64_t *ns)
{
	int y, mo, d, h, mi, sec, zh = 0, zm = 0, sign = 0;
	int64_t frac = 0;
	if (!digits(&s, 4, &y) || !take(&s, '-') || !digits(&s, 2, &mo) || !take(&s, '-') ||
	    !digits(&s, 2, &d) || !(take(&s, ' ') || take(&s, 'T')) || !digits(&s, 2, &h) ||
	    !take(&s, ':') || !digits(&s, 2, &mi) || !take(&s, ':') || !digits(&s, 2, &sec))
		return NX_EINVAL;
	if (take(&s, '.')) {
		int64_t unit = 100000000;
		if (!isdigit((unsigned char)*s))
			return NX_EINVAL;
		for (; isdigit((unsigned char)*s); s++, unit /= 10)
			frac += unit * (*s - '0'); /* beyond nanoseconds nothing is added */
	}
	if (take(&s, '+'))
		sign = 1;
	else if (take(&s, '-'))
		sign = -1;
	else
		take(&s, 'Z');
	if (sign && (!digits(&s, 2, &zh) || !take(&s, ':') || !digits(&s, 2, &zm)))
		return NX_EINVAL;
	if (*s || y < 1900 || y > 2095 || mo < 1 || mo > 12 || d < 1 || d > days_in(y, mo) ||
	    h > 23 || mi > 59 || sec > 60 || zh > 14 || zm > 59)
		return NX_EINVAL;
	int64_t seconds =
		days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec - sign * (zh * 3600 + zm * 60);
	*ns = seconds * 1000000000 + frac;
	return 0;
}

int nx_trace_parse_time(const char *s, double scale_s, int64_t *ns)
{
	double v;
	if (nx_parse_double(s, &v) != 0)
		return parse_date(s, ns);
	if (!(fabs(v * scale_s) <= NX_TRACE_TIME_MAX_S))
		return NX_EINVAL;
	*ns = llround(v * (scale_s * 1e9));
	return 0;
}

/* ---- rows ------------------------------------------------------------------------------------- */

/* Cuts the next field off *s, which becomes NULL behind the last; quotes around it and spaces go. */
static char *next_field(char **s)
{
	char *f = *s, *end;
	f += strspn(f, " \t");
	if (*f == '"' && (end = strchr(f + 1, '"')) != NULL) {
		f++;
		*end++ = '\0';
		end += strcspn(end, ",");
		*s = *end ? end + 1 : NULL;
		return f;
	}
	end = f + strcspn(f, ",");
	*s = *end ? end + 1 : NULL;
	*end = '\0';
	while (end > f && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	return f;
}

static void plain_name(char *buf, size_t size, const char *s)
{
	size_t n = 0;
	for (; *s && n + 1 < size; s++)
		if (*s != ' ' && *s != '_')
			buf[n++] = (char)tolower((unsigned char)*s);
	buf[n] = '\0';
}

static int read_header(struct csv *c, char *line, struct nx_err *err)
{
	char name[32], quoted[96], whole[128];
	snprintf(whole, sizeof(whole), "%s", line);
	for (size_t k = 1; line; k++) {
		plain_name(name, sizeof(name), next_field(&line));
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
			if (strcmp(names[i].name, name) != 0)
				continue;
			if (c->column[names[i].what])
				return fail(c, err,
				            "found two columns (%zu and %zu) for %s, one of them",
				            c->column[names[i].what], k, what_text[names[i].what]);
			c->column[names[i].what] = k;
			if (names[i].what == TIME)
				c->scale_s = names[i].scale_s;
		}
	}
	for (int w = 0; w < N_WHAT; w++)
		if (!c->column[w])
			return fail(c, err, "found the header %s, without a column for %s",
			            nx_quote(quoted, sizeof(quoted), whole), what_text[w]);
	return 0;
}

static int take_length(const struct csv *c, const char *s, const char *what, int32_t least,
                       int32_t *out, struct nx_err *err)
{
	char quoted[96];
	int64_t v;
	if (nx_parse_i64(s, &v) != 0 || v < least || v > NX_TRACE_LEN_MAX)
		return fail(c, err, "found %s as %s length; legal: an integer from %d to %d",
		            nx_quote(quoted, sizeof(quoted), s), what, least, NX_TRACE_LEN_MAX);
	*out = (int32_t)v;
	return 0;
}

static int read_row(const struct csv *c, char *line, struct nx_trace_rows *t, struct nx_err *err)
{
	const char *field[N_WHAT] = {0};
	char quoted[96];
	struct nx_trace_raw raw = {0};
	struct nx_err why = {0};
	size_t n = 0;
	for (char *s = line; s;) {
		const char *f = next_field(&s);
		n++;
		for (int w = 0; w < N_WHAT; w++)
			if (c->column[w] == n)
				field[w] = f;
	}
	for (int w = 0; w < N_WHAT; w++)
		if (!field[w])
			return fail(
				c, err,
				"found %zu fields; legal: as many as the header has, %zu or more",
				n, c->column[w]);
	if (nx_trace_parse_time(field[TIME], c->scale_s, &raw.time_ns) != 0)
		return fail(
			c, err,
			"found %s as time; legal: a number, or a date such as 2023-11-16 18:15:46.68",
			nx_quote(quoted, sizeof(quoted), field[TIME]));
	int rc = take_length(c, field[PROMPT], "prompt", 1, &raw.n_in, err);
	if (rc == 0)
		rc = take_length(c, field[OUTPUT], "output", 0, &raw.n_out, err);
	if (rc == 0 && nx_trace_add(t, &raw, &why) != 0)
		rc = why.code == NX_ENOMEM ? nx_fail(err, NX_ENOMEM, "%s: %s", c->path, why.msg)
		                           : fail(c, err, "%s", why.msg);
	return rc;
}

int nx_trace_read_csv(const char *path, struct nx_trace_rows *t, struct nx_err *err)
{
	struct nx_arena a = {0};
	struct csv c = {.path = path};
	char *data;
	size_t len;
	bool header = false;
	int rc = nx_file_read(&a, path, NX_TRACE_BYTES_MAX, &data, &len, err);
	if (rc)
		return rc;
	char *s = data, *end = data + len;
	if (len >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0)
		s += 3;
	while (rc == 0 && s < end) {
		char *nl = memchr(s, '\n', (size_t)(end - s)), *stop = nl ? nl : end;
		c.line++;
		*stop = '\0'; /* data has a NUL at its end */
		if (memchr(s, '\0', (size_t)(stop - s))) {
			rc = fail(&c, err, "found a NUL byte; legal: CSV text");
			break;
		}
		if (stop > s && stop[-1] == '\r')
			stop[-1] = '\0';
		if (s[strspn(s, " \t")]) {
			rc = header ? read_row(&c, s, t, err) : read_header(&c, s, err);
			header = true;
		}
		s = nl ? nl + 1 : end;
	}
	nx_arena_release(&a);
	return rc;
}
