/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin whose table is wrong in one way: abi. It must be refused with one sentence.
 */
#include "bad_plugin.h"

BAD_PLUGIN(NX_TECHNIQUE_MAGIC, NX_TECHNIQUE_ABI + 1, sizeof(struct nx_technique), "bad")
