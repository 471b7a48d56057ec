/* Preloaded: write(2) to files below a folder is short, or fails once, as a disk would have it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SHORT = 0, AT_MOST = 997 };

static char folder[4096];
static int kind;
static long at, count;

/* From now on: every write takes AT_MOST bytes (SHORT), or the `when`-th fails with the error `what`. */
void arm(const char *where, int what, long when) {
    snprintf(folder, sizeof folder, "%s/", where);
    kind = what;
    at = when;
}

static int is_below(int handle) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

ssize_t write(int handle, const void *bytes, size_t n) {
    static ssize_t (*next)(int, const void *, size_t);
    if (next == NULL) next = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (folder[0] && is_below(handle)) {
        if (kind == SHORT) return next(handle, bytes, n < AT_MOST ? n : AT_MOST);
        if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == at) {
            errno = kind;
            return -1;
        }
    }
    return next(handle, bytes, n);
}
