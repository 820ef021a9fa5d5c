// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include "pair.h"

module_param_cb(shown, &pair_ops, NULL, 0444);
MODULE_LICENSE("GPL");
