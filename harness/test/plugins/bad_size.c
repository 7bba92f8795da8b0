/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin whose table is wrong in one way: size. It must be refused with one sentence.
 */
#include "bad_plugin.h"

BAD_PLUGIN(NX_TECHNIQUE_MAGIC, NX_TECHNIQUE_ABI, 64, "bad")
