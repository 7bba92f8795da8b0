# SPDX-License-Identifier: Apache-2.0
# The roofline: a point a phase and stack, flop/s over flop a byte, below the slope of the memory and the ceiling of the
# arithmetic. Columns: points: x y style; labels: x y text; roof: x y; texts: x y text angle (ceiling, slope)

load share.'/style.gp'
set multiplot
legend_kind = 'lines'
load share.'/frame.gp'
do for [p = 1:n_panels] {
	load share.'/panel.gp'
	if (words(files) == 0) {
		plot y_min[p]-1 notitle
	} else {
		plot sprintf('roof_p%d.dat', p) using 1:2 with lines linecolor rgb grey linewidth 2 notitle, \
			for [s in files] sprintf('p%d_s%s.dat', p, s) using 1:2 with points \
				linestyle (s+0) notitle, \
			sprintf('labels_p%d.dat', p) using 1:2:3 with labels center \
				font font_small notitle, \
			sprintf('texts_p%d.dat', p) using 1:2:3 every ::0::0 with labels right \
				offset 0,0.7 font font_small textcolor rgb grey notitle, \
			sprintf('texts_p%d.dat', p) using 1:2:3:4 every ::1::1 with labels center \
				rotate variable offset -0.6,0.6 font font_small textcolor rgb grey notitle
	}
}
unset multiplot
