# SPDX-License-Identifier: Apache-2.0
# Title, the line below it, the footnote and the legend's texts: a plot over the whole canvas, in
# pixels. legend_kind is 'lines' or 'boxes'.

set lmargin at screen 0; set rmargin at screen 1; set bmargin at screen 0; set tmargin at screen 1
set xrange [0:width]; set yrange [0:height]
unset border; unset tics; unset key; unset title; unset xlabel; unset ylabel
set label 1 main_title at 24,height-30 left font font_title
set label 2 subtitle at 24,height-60 left font font_tics textcolor rgb grey
set label 3 footnote at 24,20 left font font_small textcolor rgb grey
do for [i = 1:n_legend] {
	set label 10+i legend_name[i] at legend_x[i]+46,legend_y[i] left font font_label
}
if (n_legend == 0) {
	plot -1 notitle
}
if (n_legend > 0 && legend_kind eq 'lines') {
	plot for [i = 1:n_legend] '+' every ::::0 using (legend_x[i]):(legend_y[i]):(38):(0) with vectors nohead \
			linestyle legend_style[i] notitle, \
		for [i = 1:n_legend] '+' every ::::0 using (legend_x[i]+19):(legend_y[i]) with points \
			linestyle legend_style[i] notitle
}
if (n_legend > 0 && legend_kind eq 'boxes') {
	plot for [i = 1:n_legend] '+' every ::::0 \
		using (0):(0):(legend_x[i]+8):(legend_x[i]+36):(legend_y[i]-7):(legend_y[i]+7) with boxxyerror \
		fillstyle pattern (legend_hatch[i] ? 4 : 3) linecolor rgb colour_of(legend_style[i]) notitle
}
do for [i = 1:n_legend] { unset label 10+i }
unset label 1; unset label 2; unset label 3
