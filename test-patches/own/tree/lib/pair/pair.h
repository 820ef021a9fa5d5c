/* SPDX-License-Identifier: GPL-2.0 */
struct kernel_param_ops;

extern const struct kernel_param_ops pair_ops;
