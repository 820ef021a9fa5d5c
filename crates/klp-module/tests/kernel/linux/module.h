/* SPDX-License-Identifier: GPL-2.0 */
#include <linux/types.h>
struct module { char name[56]; int (*init)(void); void (*exit)(void); };
extern struct module __this_module;
#define THIS_MODULE (&__this_module)
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define MODULE_INFO(tag, info) \
	static const char PASTE(info_, __COUNTER__)[] __used __section(".modinfo") \
	__attribute__((aligned(1))) = #tag "=" info
#define MODULE_LICENSE(x) MODULE_INFO(license, x)
#define MODULE_DESCRIPTION(x) MODULE_INFO(description, x)
#define module_init(f) int init_module(void) __attribute__((alias(#f)))
#define module_exit(f) void cleanup_module(void) __attribute__((alias(#f)))
