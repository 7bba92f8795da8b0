# SPDX-License-Identifier: Apache-2.0
# Horizontal bars, a stack on each line: stacked owners of memory, or kinds of utilisation side by side.
# Columns: x y x_lo x_hi y_lo y_hi; labels: x y text

load share.'/style.gp'
set multiplot
legend_kind = 'boxes'
load share.'/frame.gp'
do for [p = 1:n_panels] {
	load share.'/panel.gp'
	set border 2
	if (words(files) == 0) {
		plot sprintf('labels_p%d.dat', p) using 1:2:3 with labels left offset char 0.6,0 \
			font font_small textcolor rgb grey notitle
	} else {
		plot for [s in files] sprintf('p%d_s%s.dat', p, s) using 1:2:3:4:5:6 with boxxyerror \
				fillstyle pattern (legend_hatch[s+0] ? 4 : 3) \
				linecolor rgb colour_of(legend_style[s+0]) notitle, \
			sprintf('labels_p%d.dat', p) using 1:2:3 with labels left offset char 0.6,0 \
				font font_small textcolor rgb grey notitle
	}
}
unset multiplot
