/* SPDX-License-Identifier: Apache-2.0
 *
 * A shared object that is no plugin: it exports something else.
 */
#include "nexus/technique.h"

NX_EXPORT int not_a_plugin(void);
NX_EXPORT int not_a_plugin(void)
{
	return 0;
}
