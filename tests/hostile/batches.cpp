#include "tests/hostile/batches.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace uext4::hostile {

namespace {

constexpr std::size_t text_bytes = 1 << 20;
constexpr std::size_t most_failures = 60;  // more say nothing new

// A thread sanitizer keeps several bytes for each: what is measured then is its memory.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UEXT4_THREAD_SANITIZER 1
#endif
#endif
#ifdef UEXT4_THREAD_SANITIZER
constexpr bool memory_is_measured = false;
#else
constexpr bool memory_is_measured = true;
#endif

struct Shared {
    std::atomic<std::size_t> at;  // the case under way
    std::atomic<std::size_t> used;
    char text[text_bytes];

    void add(const std::string& line) {
        if (used + line.size() + 1 >= text_bytes) return;
        std::memcpy(text + used, (line + "\n").c_str(), line.size() + 1);
        used += line.size() + 1;
    }
};

}  // namespace

std::vector<std::string> run_in_batches(std::size_t count, const std::function<std::string(std::size_t)>& name,
                                        const std::function<std::vector<std::string>(std::size_t)>& run,
                                        const BatchLimits& limits) {
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return {"no shared memory for the batches"};
    auto* shared = new (memory) Shared{};
    std::vector<std::string> crashes;
    for (std::size_t first = 0; first < count && crashes.size() < most_failures;) {
        const pid_t child = ::fork();
        if (child == 0) {
            for (std::size_t i = first; i < count; ++i) {
                shared->at = i;
                ::alarm(limits.seconds);
                for (const std::string& failure : run(i)) shared->add(name(i) + ": " + failure);
            }
            ::alarm(0);
            std::fflush(nullptr);
            ::_exit(0);
        }
        int status = 0;
        rusage usage{};
        if (child < 0 || ::wait4(child, &status, 0, &usage) != child) {
            crashes.push_back("a batch could not be run");
            break;
        }
        const std::size_t at = shared->at;
        if (memory_is_measured && static_cast<std::size_t>(usage.ru_maxrss) * 1024 > limits.memory)
            crashes.push_back(
                fmt::format("between {} and {}: {} MiB of memory", name(first), name(at), usage.ru_maxrss >> 10));
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
            crashes.push_back(fmt::format("{}: did not end within {} s", name(at), limits.seconds));
        else if (WIFSIGNALED(status))
            crashes.push_back(fmt::format("{}: ended by signal {}", name(at), WTERMSIG(status)));
        else crashes.push_back(fmt::format("{}: ended with status {}", name(at), WEXITSTATUS(status)));
        first = at + 1;
    }
    std::vector<std::string> failures;
    std::string text(shared->text, shared->used);
    for (std::size_t from = 0, to; (to = text.find('\n', from)) != std::string::npos; from = to + 1)
        failures.push_back(text.substr(from, to - from));
    failures.insert(failures.begin(), crashes.begin(), crashes.end());
    ::munmap(memory, sizeof(Shared));
    return failures;
}

}  // namespace uext4::hostile
