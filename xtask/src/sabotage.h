/* A live patch of /proc/meminfo by hand; the files that include this spoil it, each in one way. */
/* SPDX-License-Identifier: GPL-2.0 */
#include <linux/irqflags.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#ifndef OLD_NAME
#define OLD_NAME "meminfo_proc_show"
#endif
#ifndef OBJECT
#define OBJECT NULL
#endif
#ifndef FIRST
#define FIRST
#endif

static int replacement(struct seq_file *m, void *v)
{
	FIRST;
	seq_puts(m, "kpatch: patched\n");
	return 0;
}

static struct klp_func functions[] = {
#ifndef NO_FUNCTION
	{ .old_name = OLD_NAME, .new_func = replacement },
#endif
	{ }
};
static struct klp_object objects[] = { { .name = OBJECT, .funcs = functions }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init sabotage_init(void)
{
#ifdef NO_PATCH
	return 0;
#else
	return klp_enable_patch(&patch);
#endif
}
module_init(sabotage_init);

#ifndef NO_EXIT
static void __exit sabotage_exit(void)
{
}
module_exit(sabotage_exit);
#endif

MODULE_LICENSE("GPL");
#ifdef NO_PATCH
static struct klp_patch *unused __used = &patch;
#else
MODULE_INFO(livepatch, "Y");
#endif
