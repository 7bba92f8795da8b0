# SPDX-License-Identifier: Apache-2.0
# A metric over batch size or prompt length, with 95 % intervals. A panel for each other setting.
# Columns: x y x_lo x_hi y_lo y_hi style

load share.'/style.gp'
set multiplot
legend_kind = 'lines'
load share.'/frame.gp'
do for [p = 1:n_panels] {
	load share.'/panel.gp'
	if (words(files) == 0) {
		plot y_min[p]-1 notitle
	} else {
		plot for [s in files] sprintf('p%d_s%s.dat', p, s) using 1:2:5:6 with yerrorbars \
				linestyle (s+0) linewidth 1 pointsize 0 dashtype 1 notitle, \
			for [s in files] sprintf('p%d_s%s.dat', p, s) using 1:2 with linespoints \
				linestyle (s+0) notitle
	}
}
unset multiplot
