// SPDX-License-Identifier: GPL-2.0
/* Part of two modules: each has a copy of the code and of the counter. */
#include <linux/kernel.h>
#include <linux/moduleparam.h>
#include "pair.h"

static int shown;

static int pair_get(char *buffer, const struct kernel_param *kp)
{
	shown++;
	return sprintf(buffer, "as built %d\n", shown);
}

const struct kernel_param_ops pair_ops = { .get = pair_get };
