/* What a program in C that uses the C interface looks like: prints nothing unless something is wrong. */
#include <stdio.h>
#include <string.h>
#include <uext4/uext4.h>

#define TEXT "written through <uext4/uext4.h>"

static int use(uext4_fs* fs) {
    uext4_file* file;
    char back[sizeof TEXT + 1];
    int failed = uext4_open(fs, "/of a C program", 02 | 0100, 0644, &file); /* O_RDWR, O_CREAT */
    if (failed) return failed;
    if (uext4_pwrite(file, TEXT, sizeof TEXT, 0) != sizeof TEXT || uext4_fsync(file) != 0 ||
        uext4_pread(file, back, sizeof back, 0) != sizeof TEXT || memcmp(back, TEXT, sizeof TEXT) != 0)
        failed = -1;
    uext4_close(file);
    return failed;
}

int main(int count, char** arguments) {
    uext4_fs* fs;
    int failed = count == 2 ? uext4_mount(arguments[1], NULL, &fs) : -1;
    if (!failed) {
        failed = use(fs);
        if (uext4_umount(fs) != 0) failed = -1;
    }
    if (failed) fprintf(stderr, "%d: %s\n", failed, uext4_strerror());
    return failed ? 1 : 0;
}
