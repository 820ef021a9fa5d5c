/* SPDX-License-Identifier: GPL-2.0 */
/* As much of the livepatch API as the hook needs, with private fields behind the public ones. */
#include <linux/types.h>

struct module;
struct list { struct list *next, *previous; };

struct klp_func {
	const char *old_name;
	void *new_func;
	unsigned long old_sympos;
	void *old_func;
	struct list node;
	unsigned long old_size, new_size;
	bool nop, patched, transition;
};

struct klp_object;

struct klp_callbacks {
	int (*pre_patch)(struct klp_object *obj);
	void (*post_patch)(struct klp_object *obj);
	void (*pre_unpatch)(struct klp_object *obj);
	void (*post_unpatch)(struct klp_object *obj);
	bool post_unpatch_enabled;
};

struct klp_object {
	const char *name;
	struct klp_func *funcs;
	struct klp_callbacks callbacks;
	struct list func_list, node;
	struct module *mod;
	bool dynamic, patched;
};

struct klp_patch {
	struct module *mod;
	struct klp_object *objs;
	void *states;
	bool replace;
	struct list list;
	bool enabled, forced;
};

int klp_enable_patch(struct klp_patch *patch);
