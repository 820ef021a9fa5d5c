/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Macros for the authors of live patches. A source patch adds
 *
 *	#include "kpatch-macros.h"
 *
 * to a file it changes. Each macro leaves a mark in a section of its own, which kpatch-build reads and
 * does not put into the patch module. All are written without a semicolon at their end where they are
 * used like statements, KPATCH_PRINTK and KPATCH_STATIC_CALL, and with one elsewhere.
 */
#ifndef KPATCH_MACROS_H
#define KPATCH_MACROS_H

#include <linux/compiler.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/livepatch.h>
#include <linux/printk.h>
#include <linux/stringify.h>

/* The name that patches for older tools use for what callbacks get. */
typedef struct klp_object patch_object;

#define KPATCH_JOIN_(a, b) a##b
#define KPATCH_JOIN(a, b) KPATCH_JOIN_(a, b)

/*
 * Callbacks, at most one of each kind for vmlinux and for each module of a patch:
 *
 *	pre-patch	before anything is patched; a result other than 0 refuses the patch
 *	post-patch	when all tasks run the new functions
 *	pre-unpatch	before the functions are put back
 *	post-unpatch	when no task runs the new functions any more
 *
 * For a module that is not loaded they run when it comes and goes.
 */
#define KPATCH_CALLBACK_(kind, result, function)					\
	static const struct {								\
		result (*callback)(struct klp_object *object);				\
		const char *object;							\
	} KPATCH_JOIN(__kpatch_callback_, kind)						\
	__used __section(".kpatch.callbacks." __stringify(kind)) = { .callback = function }

#define KPATCH_PRE_PATCH_CALLBACK(function)						\
	KPATCH_CALLBACK_(pre_patch, int, function)
#define KPATCH_POST_PATCH_CALLBACK(function)						\
	KPATCH_CALLBACK_(post_patch, void, function)
#define KPATCH_PRE_UNPATCH_CALLBACK(function)						\
	KPATCH_CALLBACK_(pre_unpatch, void, function)
#define KPATCH_POST_UNPATCH_CALLBACK(function)						\
	KPATCH_CALLBACK_(post_unpatch, void, function)

/* Take a function for unchanged: one that differs only in something that does not matter. */
#define KPATCH_IGNORE_FUNCTION(function)						\
	static const void * const KPATCH_JOIN(__kpatch_ignore_func_, function)		\
	__used __section(".kpatch.ignore.functions") = function

/* Take a section, given as a string, for unchanged. */
#define KPATCH_IGNORE_SECTION(section)							\
	static const char * const							\
	KPATCH_JOIN(__UNIQUE_ID_kpatch_ignore_section_, __LINE__)			\
	__used __section(".kpatch.ignore.sections") = section

/*
 * Marks a function that may be replaced while tasks run it. Of use to kernels without livepatch's own
 * consistency model only; accepted for the sake of patches that have it.
 */
#define KPATCH_FORCE_UNSAFE(function)							\
	static const void * const KPATCH_JOIN(__kpatch_force_func_, function)		\
	__used __section(".kpatch.force") = function

/*
 * printk() for code that has none yet. A bare printk() tells the compiler that the path is unlikely, and
 * may so change the layout of functions that have nothing to do with the patch; behind a condition that
 * holds, but not for the compiler, it does not.
 */
#define KPATCH_PRINTK(format, ...)							\
	do {										\
		if (jiffies)								\
			printk(format, ##__VA_ARGS__);					\
	} while (0)

/* The same for places that hold the locks of the scheduler or of printk. */
#define KPATCH_PRINTK_DEFERRED(format, ...)						\
	do {										\
		if (jiffies)								\
			printk_deferred(format, ##__VA_ARGS__);				\
	} while (0)

/*
 * Calls a static call through its key. A static call that a module defines cannot be used as such in a
 * patch, since the kernel prepares call sites before the patch learns where that module is.
 *
 *	KPATCH_STATIC_CALL(name)(arguments)
 */
#define KPATCH_STATIC_CALL(name)							\
	((typeof(STATIC_CALL_TRAMP(name)) *)READ_ONCE(STATIC_CALL_KEY(name).func))

/*
 * Shadow variables by name, as patches for older tools use them. New patches rather call klp_shadow_alloc()
 * and its kin with a number of their own; a name is turned into such a number (FNV-1a).
 */
static __always_inline unsigned long kpatch_shadow_id_(const char *name)
{
	unsigned long id = 0xcbf29ce484222325UL;

	while (*name)
		id = (id ^ (unsigned char)*name++) * 0x100000001b3UL;
	return id;
}

static inline void *kpatch_shadow_alloc(void *object, const char *name, size_t size, gfp_t flags)
{
	return klp_shadow_alloc(object, kpatch_shadow_id_(name), size, flags, NULL, NULL);
}

static inline void *kpatch_shadow_get(void *object, const char *name)
{
	return klp_shadow_get(object, kpatch_shadow_id_(name));
}

static inline void *kpatch_shadow_get_or_alloc(void *object, const char *name, size_t size, gfp_t flags)
{
	return klp_shadow_get_or_alloc(object, kpatch_shadow_id_(name), size, flags, NULL, NULL);
}

static inline void kpatch_shadow_free(void *object, const char *name)
{
	klp_shadow_free(object, kpatch_shadow_id_(name), NULL);
}

static inline void kpatch_shadow_free_all(const char *name)
{
	klp_shadow_free_all(kpatch_shadow_id_(name), NULL);
}

#endif /* KPATCH_MACROS_H */
