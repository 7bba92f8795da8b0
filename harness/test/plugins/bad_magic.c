/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin whose table is wrong in one way: magic. It must be refused with one sentence.
 */
#include "bad_plugin.h"

BAD_PLUGIN(0x1234, NX_TECHNIQUE_ABI, sizeof(struct nx_technique), "bad")
