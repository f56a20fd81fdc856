// SIGINT, SIGTERM and SIGHUP while a verb changes an image or the host: the verb ends at its next safe point, where no
// call into the file system is under way. The session then unmounts, so that the image is clean, and the process ends
// by the signal. All functions are for the thread that runs the verb.
#pragma once

#include "base/bytes.h"

#include <sys/types.h>

#include <string>

namespace uext4::cli {

// Thrown at a safe point.
struct InterruptError {
    int signal;
};

// From now on the first of the three signals is noted, and a second one ends the process at once. A signal that the
// process was started to ignore (nohup) stays ignored.
void catch_interrupts();
// The same for a process of a shell: further signals are noted as well, since the process that reads the commands ends
// its workers.
void catch_interrupts_in_shell();
// The number of the signal that was noted, or 0.
int noted_interrupt();
// Throws Interrupted if a signal was noted.
void check_interrupt();
// Waits until a pipe, terminal or socket has something to read, or its end. A safe point while it waits.
void wait_for_input(int fd);
// As write(2), with the same for a pipe, terminal or socket that takes nothing at the moment.
ssize_t write_when_ready(int fd, ConstBytes bytes);
// One more entry of a copy (a file, a directory, a link), or operand of another verb, is complete: for the sentence
// about an interrupted verb.
void count_complete();
// While it lives, a file is being written. `name`, as messages have it, is then incomplete after an interrupt.
class PartialResult {
public:
    explicit PartialResult(const std::string& name) : name_(name) {}
    ~PartialResult();
    PartialResult(const PartialResult&) = delete;
    PartialResult& operator=(const PartialResult&) = delete;

private:
    const std::string& name_;
};
// An image that an interrupted verb has left, and whether its unmount succeeded.
void note_left_image(const std::string& image, bool clean);

// Prints the one line about an interrupted verb and ends the process by the signal. In a process of a shell it returns
// the exit code for that instead.
int end_interrupted(const std::string& verb, const InterruptError& interrupt);

}  // namespace uext4::cli
