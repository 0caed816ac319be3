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
 */
#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
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

static int serve(int argc, char **argv)
{
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
