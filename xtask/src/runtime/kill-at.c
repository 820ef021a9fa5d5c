/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kill-at before|after CALL[=TEXT] COMMAND...: runs a command and kills it when it comes to a system call, or returns
 * from it; with a text, only where that is in the path of the file that the call's first argument stands for. Killed
 * on entry, the call does not happen. Exit status is 137 if it was killed, as in a shell, or else the command's own.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ptrace.h>

static const struct { const char *name; long number; } calls[] = {
	{ "finit_module", SYS_finit_module },
	{ "delete_module", SYS_delete_module },
	{ "write", SYS_write },
	{ "fsync", SYS_fsync },
	{ "ppoll", SYS_ppoll },
	/* One name for all ways to do a thing. */
	{ "rename", SYS_rename },
	{ "rename", SYS_renameat },
	{ "rename", SYS_renameat2 },
	{ "unlink", SYS_unlink },
	{ "unlink", SYS_unlinkat },
};

static int is_call(const char *name, size_t length, long number)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (calls[i].number == number && strlen(calls[i].name) == length &&
		    !strncmp(calls[i].name, name, length))
			return 1;
	return 0;
}

static int file_has(pid_t child, unsigned long descriptor, const char *text)
{
	char link[64], path[4096];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/%d/fd/%lu", child, descriptor);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return strstr(path, text) != NULL;
}

int main(int argc, char **argv)
{
	int after, status, is_there = 0;
	const char *text;
	size_t length;
	pid_t child;

	if (argc < 4 || (strcmp(argv[1], "before") && strcmp(argv[1], "after"))) {
		fprintf(stderr, "kill-at before|after CALL[=TEXT] COMMAND...\n");
		return 2;
	}
	after = !strcmp(argv[1], "after");
	text = strchr(argv[2], '=');
	length = text ? (size_t)(text - argv[2]) : strlen(argv[2]);

	child = fork();
	if (!child) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execvp(argv[3], argv + 3);
		perror(argv[3]);
		_exit(2);
	}
	if (child < 0 || waitpid(child, &status, 0) != child ||
	    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) {
		perror("kill-at");
		return 2;
	}
	for (int signal = 0;;) {
		struct ptrace_syscall_info info;

		if (ptrace(PTRACE_SYSCALL, child, NULL, (void *)(long)signal) || waitpid(child, &status, 0) != child) {
			perror("kill-at");
			return 2;
		}
		if (WIFEXITED(status))
			return WEXITSTATUS(status);
		if (WIFSIGNALED(status))
			return 128 + WTERMSIG(status);
		signal = WSTOPSIG(status);
		if (signal != (SIGTRAP | 0x80)) {
			/* The stop at exec is nobody's signal. */
			if (signal == SIGTRAP)
				signal = 0;
			continue;
		}
		signal = 0;
		if (ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof(info), &info) <= 0) {
			perror("kill-at");
			return 2;
		}
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
			is_there = is_call(argv[2], length, (long)info.entry.nr) &&
				   (!text || file_has(child, info.entry.args[0], text + 1));
		if (is_there && info.op == (after ? PTRACE_SYSCALL_INFO_EXIT : PTRACE_SYSCALL_INFO_ENTRY)) {
			kill(child, SIGKILL);
			while (waitpid(child, &status, 0) == child && !WIFSIGNALED(status) && !WIFEXITED(status))
				ptrace(PTRACE_CONT, child, NULL, NULL);
			return 128 + SIGKILL;
		}
	}
}
