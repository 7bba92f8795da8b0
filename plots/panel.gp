# SPDX-License-Identifier: Apache-2.0
# Axes of panel p.

set lmargin at screen left[p]/width; set rmargin at screen right[p]/width
set bmargin at screen bottom[p]/height; set tmargin at screen top[p]/height
unset logscale
set border 3 linecolor rgb grey
set tics nomirror font font_tics
set xtics nomirror autofreq scale 0.5; set ytics nomirror autofreq scale 0.5; set format '%.10g'
set grid xtics ytics linecolor rgb '#e4e7eb' linetype 1 linewidth 1
set grid back
set xrange [x_min[p]:x_max[p]]; set yrange [y_min[p]:y_max[p]]
set title panel_title[p] font font_label offset 0,-0.4
set xlabel x_label[p] font font_label
set ylabel y_label[p] font font_label
unset label 1
if (strlen(message[p]) > 0) {
	set label 1 message[p] at graph 0.5,0.5 center font font_label textcolor rgb grey
}
if (strlen(message[p]) > 0) { unset ytics }
load sprintf('setup_p%d.gp', p)
files = series[p]
