/* SPDX-License-Identifier: GPL-2.0 */
#ifndef TYPES_H
#define TYPES_H
#include <stdbool.h>
#include <stddef.h>
typedef unsigned int u32;
typedef unsigned long u64;
#define __used __attribute__((used))
#define __aligned(x) __attribute__((aligned(x)))
#define __section(x) __attribute__((section(x)))
#endif
