# SPDX-License-Identifier: Apache-2.0
# Share of requests that took at most so long: a step curve for each stack.
# Columns: x share

load share.'/style.gp'
set multiplot
legend_kind = 'lines'
load share.'/frame.gp'
do for [p = 1:n_panels] {
	load share.'/panel.gp'
	set ytics nomirror 0,25,100
	if (words(files) == 0) {
		plot y_min[p]-1 notitle
	} else {
		plot for [s in files] sprintf('p%d_s%s.dat', p, s) using 1:($2*100) with steps \
				linestyle (s+0) notitle, \
			for [s in files] sprintf('p%d_s%s.dat', p, s) every 25::1 using 1:($2*100) with points \
				linestyle (s+0) notitle
	}
}
unset multiplot
