/* A unit of module xfs: refers to its own module, to vmlinux, to the other unit, and by awkward names. */
extern int printk(const char *format, ...);
extern const char banner[];
extern int shared(int n);
extern int xfs_private(int n);
extern int xfs_exported(int n);
extern int a_name_that_is_so_long_that_modpost_would_refuse_to_note_it(int n);
extern int init_once(void);

static int seen;

static __attribute__((used, noinline)) int read_inode(int n)
{
	seen += xfs_private(n) + xfs_exported(shared(n)) + init_once();
	return printk(banner, seen) + a_name_that_is_so_long_that_modpost_would_refuse_to_note_it(n);
}

int (*const pointers[])(int) __attribute__((used)) = { read_inode, xfs_private };
