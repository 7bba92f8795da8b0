#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# check-deps.sh: holds the floors. One sentence a violation, with file and line.
#
#   harness/FLOOR/     "nexus/...", kernels/include, its own floor and the ones below it
#   harness/include/   "nexus/..." alone
#   kernels/           "nexus/..." and kernels/
#   techniques/NAME/   "nexus/...", kernels/include and its own folder
#   tests              anything but a technique other than their own
#
# Outside harness/cli nothing may exit or abort, and string functions that cannot know the size of
# their buffer, or cannot report an error, are refused everywhere.
set -u
cd "$(dirname "$0")/../.." || exit 2

find harness kernels techniques -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null |
	sort | xargs -r awk '
BEGIN {
	n_floors = split("base model engine measure record present cli", floors, " ")
	for (i = 1; i <= n_floors; i++)
		rank[floors[i]] = i
	banned = "strcpy strcat sprintf vsprintf gets strtok atoi atof"
}

function bad(sentence) {
	printf "%s:%d: %s\n", FILENAME, FNR, sentence
	n_bad++
}

function exists(path,    line, there) {
	if (!(path in known)) {
		there = (getline line < path) >= 0
		close(path)
		known[path] = there
	}
	return known[path]
}

# What an include in this file means, as a path in the tree; empty when it is not ours.
function resolve(name,    i, roots, n) {
	sub(/^\.\//, "", name)
	n = split(folder " harness harness/include kernels/include kernels harness/test .", roots, " ")
	for (i = 1; i <= n; i++)
		if (exists(roots[i] "/" name))
			return roots[i] "/" name
	return ""
}

function check_include(name,    path, part) {
	if (name ~ /(^|\/)\.\.\//)
		return bad("includes \"" name "\"; write the path from the include folder, without ..")
	path = resolve(name)
	if (path == "" && name !~ /^techniques\//)
		return
	split(path, part, "/")
	if ((path ~ /^techniques\// || name ~ /^techniques\//) && index(path, folder "/") != 1)
		return bad("includes \"" name "\" of a technique; nobody includes a technique")
	if (is_test || path ~ /^(harness\/include|kernels\/include)\// || index(path, folder "/") == 1)
		return
	if (area == "kernels" && path !~ /^kernels\//)
		bad("includes \"" name "\"; kernels include nexus/ and kernels/ alone")
	else if (area == "techniques")
		bad("includes \"" name "\"; techniques include nexus/ and kernels/include alone")
	else if (area == "harness" && floor == "include")
		bad("includes \"" name "\"; public headers include nexus/ alone")
	else if (area == "harness" && path ~ /^harness\/test\//)
		bad("includes \"" name "\"; test helpers are for tests")
	else if (area == "harness" && path ~ /^kernels\//)
		bad("includes \"" name "\"; only kernels/include is open to the harness")
	else if (area == "harness" && rank[part[2]] > rank[floor])
		bad("includes \"" name "\" of the higher floor " part[2] "; " floor " may not")
}

# The line without strings, character constants and comments.
function code_of(line,    out, c, i, quote) {
	out = ""
	for (i = 1; i <= length(line); i++) {
		c = substr(line, i, 1)
		if (in_comment) {
			if (c == "*" && substr(line, i + 1, 1) == "/") { in_comment = 0; i++ }
		} else if (quote != "") {
			if (c == "\\") i++
			else if (c == quote) quote = ""
		} else if (c == "\"" || c == "\047") {
			quote = c
			out = out c c
		} else if (c == "/" && substr(line, i + 1, 1) == "*") {
			in_comment = 1
			i++
		} else if (c == "/" && substr(line, i + 1, 1) == "/") {
			break
		} else {
			out = out c
		}
	}
	return out
}

function calls(code, name) { return (" " code) ~ ("[^A-Za-z0-9_.>]" name "[ \t]*\\(") }

FNR == 1 {
	folder = FILENAME
	sub(/\/[^\/]*$/, "", folder)
	split(FILENAME, part, "/")
	area = part[1]
	floor = part[2]
	is_test = FILENAME ~ /^(harness|kernels)\/test\// || FILENAME ~ /^techniques\/[^\/]*\/test_/
	is_program = is_test || FILENAME ~ /^harness\/cli\// || FILENAME ~ /^kernels\/bench\//
	in_comment = 0
	if (area == "harness" && !(floor in rank) && floor !~ /^(include|test|build)$/)
		bad("harness/" floor " is no floor of the design")
}

/^[ \t]*#[ \t]*include/ && !in_comment {
	if (match($0, /["<][^">]+[">]/))
		check_include(substr($0, RSTART + 1, RLENGTH - 2))
	next
}

{
	code = code_of($0)
	if (code !~ /\(/)
		next
	if (!is_program)
		for (i = split("exit abort quick_exit", names, " "); i > 0; i--)
			if (calls(code, names[i]))
				bad("calls " names[i] "(); only harness/cli may end the program")
	for (i = split(banned, names, " "); i > 0; i--)
		if (calls(code, names[i]))
			bad("calls " names[i] "(), which is banned; use snprintf, strtok_r or strtol instead")
}

END { exit n_bad > 0 }
' >&2
