# SPDX-License-Identifier: Apache-2.0
# What all pictures share: the terminal, colours, line and point types. Loaded first.
# Okabe-Ito colours, told apart by people with any kind of colour vision; shapes and dashes tell the
# same apart once more, for grey paper. Style 1 is the reference stack.

font_name = 'DejaVu Sans'
if (terminal eq 'svg') {
	set terminal svg size width,height dynamic font font_name.',14' noenhanced background '#ffffff' name plot_name
	font_scale = 14.0/11
	point_scale = 0.75
} else {
	set terminal pngcairo size width,height font font_name.',11' noenhanced background '#ffffff'
	font_scale = 1.0
	point_scale = 1.2
}
set output 'out.'.terminal
font(points) = sprintf('%s,%.1f', font_name, points*font_scale)
font_title = font(17); font_label = font(11); font_tics = font(10.5); font_small = font(9.5)

array colour[8] = [0x000000, 0x0072B2, 0xD55E00, 0x009E73, 0xCC79A7, 0xE69F00, 0x56B4E9, 0x8B7B00]
array shape[12] = [7, 5, 9, 11, 13, 15, 4, 6, 8, 10, 12, 14]
colour_of(i) = colour[(int(i) - 1) % 8 + 1]
do for [i = 1:64] {
	rgb_number = colour_of(i)
	shape_number = shape[(i - 1) % 12 + 1]
	dash_number = i == 1 ? 1 : (i - 2) % 4 + 1
	set style line i linecolor rgb rgb_number linewidth 2 pointsize point_scale \
		pointtype shape_number dashtype dash_number
}
grey = '#57606a'
set encoding utf8
set datafile missing NaN
set errorbars small
set style fill solid 1.0 noborder
