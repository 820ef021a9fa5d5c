/* A unit of vmlinux: replaces show, refers to unexported data and to the second of three init_once. */
extern int printk(const char *format, ...);
extern int weak_export(void);
extern const char banner[];
extern void init_once(void);
struct klp_object;

static int seen;
static const char *const words[] = { "one", "two" };

int shared(int n)
{
	return printk("shared %d\n", n + seen++);
}

static __attribute__((used, noinline)) int show(int n)
{
	init_once();
	return printk(banner, words[n & 1], shared(n));
}

static __attribute__((used)) int before(struct klp_object *object)
{
	return object == 0;
}
