/*
 * The runner: what the line of shell in package modalbox does, as a static
 * program of some hundred instructions, because starting a shell takes longer
 * than starting most commands. It has no library and needs none.
 *
 *	runner DIR FLAGS MARK CANCEL FAIL PROGRAM [ARGUMENT]...
 *
 * It goes to DIR, looks for PROGRAM, marks itself by the limit RLIMIT_LOCKS,
 * prints "k" and its process id, and executes PROGRAM. FLAGS are letters: i no
 * stdin, o no stdout, m stderr to stdout, and last tROWSxCOLS the terminal's size.
 * Nothing is executed when the file CANCEL exists. When executing fails at the
 * end, the status goes to the file FAIL.
 *
 *	runner tROWSxCOLS TERMINAL
 *
 * It sets the size of a terminal, both numbers at once, as stty does not.
 *
 * "go generate" builds it, for amd64, which is what Modal has.
 */

typedef unsigned long u64;

static long call(long n, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}

enum { WRITE = 1, OPEN = 2, CLOSE = 3, STAT = 4, IOCTL = 16, ACCESS = 21, DUP2 = 33, GETPID = 39, EXECVE = 59, EXIT = 60, GETCWD = 79, CHDIR = 80, PRLIMIT = 302 };
enum { ENOENT = 2, ENOEXEC = 8, EACCES = 13, ENOTDIR = 20 };

#define NIL ((long)0)
#define P(x) ((long)(x))

static u64 length(const char *s)
{
	u64 n = 0;
	while (s[n])
		n++;
	return n;
}

static void quit(int code)
{
	for (;;)
		call(EXIT, code, NIL, NIL, NIL);
}

static void say(char c)
{
	char line[2] = {c, '\n'};
	call(WRITE, 1, P(line), 2, NIL);
	quit(0);
}

/* number reads decimal digits and moves s behind them. */
static u64 number(const char **s)
{
	u64 n = 0;
	for (; **s >= '0' && **s <= '9'; (*s)++)
		n = n * 10 + (u64)(**s - '0');
	return n;
}

/* started prints c and the process's id. */
static void started(char c)
{
	char line[24];
	int i = sizeof line;
	long pid = call(GETPID, NIL, NIL, NIL, NIL);
	line[--i] = '\n';
	do
		line[--i] = (char)('0' + pid % 10);
	while (pid /= 10);
	line[--i] = c;
	call(WRITE, 1, P(line + i), sizeof line - (u64)i, NIL);
}

/* runnable: 0 when path can be executed and is no directory. */
static long runnable(const char *path)
{
	u64 st[18]; /* struct stat: st_mode is the low half of the fourth word */
	long err = call(STAT, P(path), P(st), NIL, NIL);
	if (err)
		return err;
	if ((st[3] & 0170000) == 0040000)
		return -EACCES;
	return call(ACCESS, P(path), 1, NIL, NIL);
}

static char found[4096], pwd[4096 + 8];

/* search looks for a name in the directories of PATH. */
static const char *search(const char *name, const char *path)
{
	u64 n = length(name);
	for (;;) {
		u64 k = 0;
		while (path[k] && path[k] != ':')
			k++;
		if (k + n + 2 <= sizeof found) {
			u64 i = 0;
			for (; i < k; i++)
				found[i] = path[i];
			if (k)
				found[i++] = '/';
			for (u64 j = 0; j <= n; j++)
				found[i++] = name[j];
			if (runnable(found) == 0)
				return found;
		}
		if (!path[k])
			return 0;
		path += k + 1;
	}
}

/* value is the rest of entry when it begins with the name given. */
static const char *value(const char *entry, const char *name)
{
	while (*name)
		if (*entry++ != *name++)
			return 0;
	return entry;
}

static void redirect(const char *flags)
{
	for (; *flags; flags++) {
		if (*flags == 'm')
			call(DUP2, 1, 2, NIL, NIL);
		if (*flags != 'i' && *flags != 'o')
			continue;
		int to = *flags == 'o';
		long null = call(OPEN, P("/dev/null"), to, NIL, NIL);
		if (null >= 0 && null != to) {
			call(DUP2, null, to, NIL, NIL);
			call(CLOSE, null, NIL, NIL, NIL);
		}
	}
}

static long resize(long fd, const char *flags)
{
	while (*flags && *flags != 't')
		flags++;
	if (!*flags++)
		return 0;
	unsigned short size[4] = {0, 0, 0, 0};
	size[0] = (unsigned short)number(&flags);
	flags++;
	size[1] = (unsigned short)number(&flags);
	return call(IOCTL, fd, 0x5414 /* TIOCSWINSZ */, P(size), NIL);
}

void run(long *stack)
{
	char **argv = (char **)(stack + 1);
	if (stack[0] == 3)
		quit(resize(call(OPEN, P(argv[2]), 02 | 0400 /* O_RDWR, O_NOCTTY */, NIL, NIL), argv[1]) ? 1 : 0);
	if (stack[0] < 7)
		quit(7);
	char **env = argv + stack[0] + 1;
	const char *dir = argv[1], *flags = argv[2], *mark = argv[3], *cancel = argv[4], *fail = argv[5];

	long err = call(CHDIR, P(dir), NIL, NIL, NIL);
	if (err)
		say(err == -ENOENT ? 'd' : err == -ENOTDIR ? 'D' : 'a');

	const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	char **to = env; /* the environment but for PWD, which chdir made wrong */
	for (char **e = env; *e; e++) {
		const char *v = value(*e, "PATH=");
		if (v)
			path = v;
		if (value(*e, "VIVARIUM_RAW="))
			say('s');
		if (!value(*e, "PWD="))
			*to++ = *e;
	}
	/* One more can lie over what the kernel put behind, which nobody reads. */
	pwd[0] = 'P', pwd[1] = 'W', pwd[2] = 'D', pwd[3] = '=';
	if (call(GETCWD, P(pwd + 4), sizeof pwd - 4, NIL, NIL) > 0)
		*to++ = pwd;
	*to = 0;

	const char *program = argv[6];
	const char *s = program;
	while (*s && *s != '/')
		s++;
	if (!*s) {
		program = *program ? search(program, path) : 0;
		if (!program)
			say('n');
	} else {
		err = runnable(program);
		if (err)
			say(err == -ENOENT || err == -ENOTDIR ? 'n' : 'p');
	}

	u64 limit[2];
	limit[0] = limit[1] = number(&mark);
	err = call(PRLIMIT, 0, 10 /* RLIMIT_LOCKS */, P(limit), NIL);
	if (call(ACCESS, P(cancel), 0, NIL, NIL) == 0)
		say('x');
	resize(0, flags);
	started(err ? 'm' : 'k');
	redirect(flags);

	err = call(EXECVE, P(program), P(argv + 6), P(env), NIL);
	if (err == -ENOEXEC) { /* a script without a first line: execvp(3) */
		argv[5] = "/bin/sh";
		argv[6] = (char *)program;
		err = call(EXECVE, P(argv[5]), P(argv + 5), P(env), NIL);
	}
	int code = err == -ENOENT ? 127 : 126;
	long fd = call(OPEN, P(fail), 01 | 0100 | 0200, 0600, NIL);
	call(WRITE, fd, P(code == 127 ? "127\n" : "126\n"), 4, NIL);
	quit(code);
}

__asm__(".globl _start\n_start:\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall run\n");
