# SPDX-License-Identifier: Apache-2.0
# Throughput over latency: a curve for each stack through its batch sizes, which label the points.
# Columns: x y x_lo x_hi y_lo y_hi style; labels: x y text style

load share.'/style.gp'
set multiplot
legend_kind = 'lines'
load share.'/frame.gp'
do for [p = 1:n_panels] {
	load share.'/panel.gp'
	if (words(files) == 0) {
		plot y_min[p]-1 notitle
	} else {
		plot for [s in files] sprintf('p%d_s%s.dat', p, s) using 1:2:3:4:5:6 with xyerrorbars \
				linestyle (s+0) linewidth 1 pointsize 0 dashtype 1 notitle, \
			for [s in files] sprintf('p%d_s%s.dat', p, s) using 1:2 with linespoints \
				linestyle (s+0) notitle, \
			sprintf('labels_p%d.dat', p) using 1:2:3:(colour_of(column(4))) with labels center \
				font font_small textcolor rgb variable notitle
	}
}
unset multiplot
