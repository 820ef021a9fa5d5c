/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Static branches that read their keys.
 *
 * kpatch-build includes this first in a unit whose replaced functions branch on static keys of a module. The
 * kernel takes up the jump labels of a live patch when the patch is loaded, before the livepatch core knows
 * where that module's keys are; a key that is read as the variable it is needs no jump label. Only the code
 * that the patch brings is compiled so.
 */
#ifndef KPATCH_STATIC_KEYS_H
#define KPATCH_STATIC_KEYS_H

#include <linux/jump_label.h>

/* A key that is being enabled for the first time (-1) counts as enabled, as in static_key_count(). */
#define KPATCH_KEY_ENABLED(key) (READ_ONCE((key)->enabled.counter) != 0)

#undef static_branch_likely
#undef static_branch_unlikely
#define static_branch_likely(x) __builtin_expect(KPATCH_KEY_ENABLED(&(x)->key), 1)
#define static_branch_unlikely(x) __builtin_expect(KPATCH_KEY_ENABLED(&(x)->key), 0)

/* Tracepoints of older kernels. */
#define static_key_false(key) __builtin_expect(KPATCH_KEY_ENABLED(key), 0)
#define static_key_true(key) __builtin_expect(KPATCH_KEY_ENABLED(key), 1)

#endif
