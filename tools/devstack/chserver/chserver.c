/*
 * chserver LIBRARY ARGUMENT...
 *
 * Opens the ClickHouse engine as a shared library and hands it the arguments as a command line of `clickhouse local`.
 * With a query that starts the listeners and then blocks, that is a ClickHouse server: see clickhouse.go, which writes
 * the arguments. The engine is opened here and not in Go so that penstock stays free of cgo, and so that a crash of the
 * engine, or a kill -9 in a test, ends a process of its own.
 *
 * It ends only when that query does, which is an error in itself: exit status 1, or 2 when the library is not usable.
 *
 * The engine in this form aborts now and then when a client is cut off in the middle of a connection, where a server of
 * its own would only log it. So it runs in a child, and this process starts it again after an abort, as a service
 * manager would; the data survive that. A child that did not live for a second is not started again.
 *
 * `clickhouse local` lets a query read any file of its user: SELECT file('/home/me/.ssh/id_rsa'). A server does not. So
 * the child confines itself by Landlock to its working folder, and to what it has to read of the system. A kernel
 * without Landlock (before 5.19) confines nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#endif

/* What the engine returns. Only error is read; the fields before it give it its place. */
struct result {
    char *text;
    size_t text_bytes;
    void *owner;
    double seconds;
    uint64_t rows;
    uint64_t bytes;
    char *error;
};

typedef struct result *(*run_fn)(int argc, char **argv);

#ifdef __linux__
/*
 * Landlock's interface, from https://docs.kernel.org/userspace-api/landlock.html. It is declared here since the headers
 * of a machine may be older than its kernel. The numbers of the calls are those of every architecture.
 */
enum { create_ruleset = 444, add_rule = 445, restrict_self = 446 };
enum { abi_version = 1, path_beneath = 1, first_useful_abi = 2 };
enum {
    read_file = 1 << 2,
    read_dir = 1 << 3,
    file_rights = 1 << 1 | read_file | 1 << 14,      /* write, read, truncate (from version 3 on) */
    all_rights = (1 << 15) - 2,                      /* all but to execute */
};
struct rule {
    uint64_t rights;
    int32_t folder;
} __attribute__((packed));

static void allow(int rules, const char *path, uint64_t rights)
{
    struct rule rule = {rights, open(path, O_PATH | O_CLOEXEC)};
    struct stat is;
    if (rule.folder < 0)
        return; /* this machine does not have it */
    if (fstat(rule.folder, &is) == 0 && !S_ISDIR(is.st_mode))
        rule.rights &= file_rights;
    if (syscall(add_rule, rules, path_beneath, &rule, 0) != 0)
        perror(path);
    close(rule.folder);
}

/* confine lets this process write into its working folder only. It returns -1 if the kernel refused that. */
static int confine(const char *library)
{
    static const char *const readable[] = {
        "/usr", "/lib", "/lib64", "/proc", "/sys", "/dev/urandom", "/dev/random", "/etc/localtime", "/etc/timezone",
        "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf",
        "/etc/host.conf", "/etc/ld.so.cache",
    };
    long version = syscall(create_ruleset, NULL, 0, abi_version);
    if (version < first_useful_abi)
        return 0; /* version 1 refuses to move files between folders, which the engine does */
    uint64_t rights = version < 3 ? all_rights & ~(1 << 14) : all_rights;
    int rules = (int)syscall(create_ruleset, &rights, sizeof rights, 0);
    if (rules < 0)
        return -1;
    char path[4096];
    if (strlen(library) >= sizeof path)
        return -1;
    allow(rules, dirname(strcpy(path, library)), read_file | read_dir);
    for (size_t i = 0; i < sizeof readable / sizeof *readable; i++)
        allow(rules, readable[i], read_file | read_dir);
    allow(rules, "/dev/null", rights);
    allow(rules, "/proc/self", rights); /* it sets the names and priorities of its threads */
    allow(rules, ".", rights);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return (int)syscall(restrict_self, rules, 0);
}
#else
static int confine(const char *library) { return (void)library, 0; }
#endif

static int serve(int argc, char **argv)
{
    if (confine(argv[1]) != 0) {
        perror("chserver: confine the engine to its folder");
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "chserver: open the engine: %s\n", dlerror());
        return 2;
    }
    run_fn run = (run_fn)dlsym(library, "query_stable_v2");
    if (run == NULL) {
        fprintf(stderr, "chserver: find the engine's entry: %s\n", dlerror());
        return 2;
    }

    /* The engine takes argv[0] for its own name, so the library's path stands where a program's would. */
    struct result *result = run(argc - 1, argv + 1);
    const char *why = result == NULL || result->error == NULL ? "the query ended" : result->error;
    fprintf(stderr, "chserver: %s\n", why);
    return 1;
}

/* SIGTERM goes to the whole process group: the child ends by it, and we when the child has ended. */
static void wait_for_child(int signal) { (void)signal; }

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: chserver LIBRARY ARGUMENT...\n");
        return 2;
    }
    for (;;) {
        time_t began = time(NULL);
        signal(SIGTERM, wait_for_child);
        pid_t parent = getpid(), child = fork();
        if (child < 0) {
            perror("chserver: fork");
            return 2;
        }
        if (child == 0) {
            signal(SIGTERM, SIG_DFL);
#ifdef __linux__
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                return 1; /* it went before we said so */
#endif
            return serve(argc, argv);
        }
        int status;
        while (waitpid(child, &status, 0) < 0)
            ;
        if (!WIFSIGNALED(status))
            return WEXITSTATUS(status);
        signal(SIGTERM, SIG_DFL);
        if (WTERMSIG(status) != SIGABRT || time(NULL) - began < 2) {
            raise(WTERMSIG(status));
            return 1;
        }
        fprintf(stderr, "chserver: the engine has aborted; starting it again\n");
    }
}
