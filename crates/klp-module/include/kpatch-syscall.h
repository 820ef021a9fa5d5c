/* SPDX-License-Identifier: GPL-2.0 */
/*
 * System calls in live patches. Where a patch changes a system call, it replaces SYSCALL_DEFINEn by
 * KPATCH_SYSCALL_DEFINEn and leaves the rest as it is.
 *
 * SYSCALL_DEFINEn puts the body into an inline function, which the tracer cannot enter, so that a body that
 * the compiler does not inline cannot be replaced. Here the body becomes a function of a new name, which is
 * never inlined, and the kernel's own macro makes the entry points of the machine with nothing but a call
 * of it: those are what is replaced. Since that macro is used as it is, this is right for all machines
 * and kernels; what it leaves for the tracer of system calls does not change.
 */
#ifndef KPATCH_SYSCALL_H
#define KPATCH_SYSCALL_H

#include <linux/compiler.h>
#include <linux/syscalls.h>

#define KPATCH_SYSCALL_DEFINE1(name, ...) KPATCH_SYSCALL_DEFINEx(1, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE2(name, ...) KPATCH_SYSCALL_DEFINEx(2, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE3(name, ...) KPATCH_SYSCALL_DEFINEx(3, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE4(name, ...) KPATCH_SYSCALL_DEFINEx(4, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE5(name, ...) KPATCH_SYSCALL_DEFINEx(5, _##name, __VA_ARGS__)
#define KPATCH_SYSCALL_DEFINE6(name, ...) KPATCH_SYSCALL_DEFINEx(6, _##name, __VA_ARGS__)

#define KPATCH_SYSCALL_DEFINEx(x, name, ...)						\
	static long __kpatch_do_sys##name(__MAP(x, __SC_DECL, __VA_ARGS__));		\
	SYSCALL_DEFINEx(x, name, __VA_ARGS__)						\
	{										\
		return __kpatch_do_sys##name(__MAP(x, __SC_ARGS, __VA_ARGS__));		\
	}										\
	static noinline long __kpatch_do_sys##name(__MAP(x, __SC_DECL, __VA_ARGS__))

#endif /* KPATCH_SYSCALL_H */
