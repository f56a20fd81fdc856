// One round of the stress: workers on a mount (processes) or in the library (threads), then all of it compared.
// stress_test.py runs the rounds.
//
// Exit: 0 everything is as the models say, 1 something differs, 2 it could not run.
#include "tests/stress/contest.h"
#include "tests/stress/owned.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dirent.h>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

namespace {

using namespace uext4::stress;

struct Arguments {
    std::string image, directory, options, model, remove;
    unsigned workers = 16, stable = 150, name_length = 0;
    std::uint64_t operations = 500, seed = 1, round = 0;
};

const char* usage =
    "uext4-stress (--image IMAGE [--options OPTIONS] | --directory DIR) --model FOLDER\n"
    "  [--workers N] [--operations OF-EACH] [--seed S] [--round R] [--stable NAMES] [--name-length N]\n"
    "  [--remove DIRECTORY]   all workers remove this one first\n";

bool parse(int argc, char** argv, Arguments& a) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string name = argv[i], value = argv[i + 1];
        const auto number = [&] { return std::strtoull(value.c_str(), nullptr, 10); };
        if (name == "--image") a.image = value;
        else if (name == "--options") a.options = value;
        else if (name == "--directory") a.directory = value;
        else if (name == "--model") a.model = value;
        else if (name == "--remove") a.remove = value;
        else if (name == "--workers") a.workers = static_cast<unsigned>(number());
        else if (name == "--stable") a.stable = static_cast<unsigned>(number());
        else if (name == "--name-length") a.name_length = static_cast<unsigned>(number());
        else if (name == "--operations") a.operations = number();
        else if (name == "--seed") a.seed = number();
        else if (name == "--round") a.round = number();
        else return false;
    }
    return argc % 2 == 1 && a.image.empty() != a.directory.empty() && !a.model.empty();
}

// What the workers have in common; in memory that processes share.
struct Desk {
    std::atomic<unsigned> arrived;
    std::atomic<bool> stop;
};

struct Logged {
    unsigned cluster;
    Operation operation;
};

struct Log {
    char problem[6000];
    std::size_t count;
    Logged* entries;  // as many as the worker has operations
};

template <typename T>
T* shared_memory(std::size_t count) {
    void* memory = ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("mmap");
        std::exit(2);
    }
    return static_cast<T*>(memory);
}

class Round {
public:
    Round(const Arguments& arguments, Calls& calls)
        : a_(arguments),
          calls_(calls),
          base_(fmt::format("r{}", a_.round)),
          desk_(shared_memory<Desk>(1)),
          logs_(shared_memory<Log>(a_.workers)) {
        shared_.stable = a_.stable;
        shared_.name_length = a_.name_length;
        for (unsigned i = 0; i < 3; ++i) shared_.directories.push_back(fmt::format("{}/d{}", base_, i));
        for (unsigned i = 0; i < a_.workers; ++i) logs_[i].entries = shared_memory<Logged>(a_.operations);
    }

    bool prepare() {
        bool made = must(calls_.mkdir(base_, 0755), base_) && must(calls_.mkdir(base_ + "/t", 0755), base_ + "/t");
        for (const std::string& path : shared_.directories) made = made && must(calls_.mkdir(path, 0755), path);
        for (unsigned cluster = 0; cluster < clusters; ++cluster)
            for (int root = 0; root < roots; ++root)
                made = made && must(calls_.mkdir(directory_of(base_, cluster, root), 0755), base_);
        for (const std::string& path : shared_.directories)
            for (unsigned i = 0; made && i < shared_.stable; ++i) {
                File file = 0;
                const std::string name = path + "/" + shared_.stable_name(i);
                made = must(calls_.open(name, O_CREAT | O_EXCL | O_RDWR, 0644, file), name);
                if (made) calls_.close(file);
            }
        return made;
    }

    void work(unsigned worker) {
        ++desk_->arrived;
        while (desk_->arrived < a_.workers) ::usleep(100);
        if (!a_.remove.empty()) remove(worker, a_.remove);
        Owned owned(calls_, shared_, worker, a_.seed);
        Contest contest(calls_, base_, worker, a_.seed);
        std::mt19937_64 random(a_.seed * 3001 + worker);
        Log& log = logs_[worker];
        for (std::uint64_t done = 0; done < a_.operations && !desk_->stop; ++done) {
            if (random() % 3 != 0 || contest.is_spent()) {
                if (!owned.step()) return stop(worker, fmt::format("operation {}: {}", done, owned.problem));
                continue;
            }
            Logged& logged = log.entries[log.count];
            if (!contest.step(logged.cluster, logged.operation)) return stop(worker, contest.problem);
            ++log.count;
        }
        if (!contest.finish()) return stop(worker, contest.problem);
        if (!owned.compare_all()) return stop(worker, "at the end: " + owned.problem);
        owned.write_down(a_.model);
    }

    bool judge() {
        for (unsigned i = 0; i < a_.workers; ++i)
            if (logs_[i].problem[0] != 0) return says(logs_[i].problem);
        std::size_t contested = 0, most = 0;
        for (unsigned cluster = 0; cluster < clusters; ++cluster) {
            std::vector<Operation> history;
            for (unsigned i = 0; i < a_.workers; ++i)
                for (std::size_t j = 0; j < logs_[i].count; ++j)
                    if (logs_[i].entries[j].cluster == cluster) history.push_back(logs_[i].entries[j].operation);
            contested += history.size();
            const Verdict verdict = explain(history);
            if (!verdict.problem.empty()) return says(fmt::format("cluster {}: {}", cluster, verdict.problem));
            most = std::max(most, verdict.most);
            const Seen seen = look_at_all(calls_, base_, cluster);
            if (!seen.problem.empty()) return says(seen.problem);
            if (std::ranges::find(verdict.ends, seen.tree) == verdict.ends.end())
                return says(fmt::format("cluster {}: the tree is none of the {} that the answers allow", cluster,
                                        verdict.ends.size()));
            write_down(seen.tree, base_, cluster, a_.model);
        }
        fmt::print("round {}: {} workers, {} operations, {} of them on contested names, {} orders at most\n", a_.round,
                   a_.workers, a_.workers * a_.operations, contested, most);
        return true;
    }

    Desk& desk() { return *desk_; }
    void stop(unsigned worker, const std::string& problem) {
        desk_->stop = true;
        std::snprintf(logs_[worker].problem, sizeof logs_[worker].problem, "%s", problem.c_str());
    }

private:
    static bool says(const std::string& problem) {
        fmt::print(stderr, "{}\n", problem);
        return false;
    }
    static bool must(int result, const std::string& path) {
        return result == 0 || says(fmt::format("{}: {}", path, std::strerror(-result)));
    }

    // Several do this at once: what one of them has listed, another may have removed.
    void remove(unsigned worker, const std::string& path) {
        const Listing found = calls_.list(path, 0);
        if (found.result < 0 && found.result != -ENOENT)
            return stop(worker, fmt::format("{} cannot be listed: {}", path, std::strerror(-found.result)));
        for (const Entry& entry : found.entries) {
            const std::string inner = path + "/" + entry.name;
            if (entry.type == DT_DIR) {
                remove(worker, inner);
                continue;
            }
            const int result = calls_.unlink(inner);
            if (result != 0 && result != -ENOENT)
                return stop(worker, fmt::format("unlink {}: {}", inner, std::strerror(-result)));
        }
        const int result = calls_.rmdir(path);
        if (result != 0 && result != -ENOENT) stop(worker, fmt::format("rmdir {}: {}", path, std::strerror(-result)));
    }

    const Arguments& a_;
    Calls& calls_;
    std::string base_;
    Shared shared_;
    Desk* desk_;
    Log* logs_;
};

void run_processes(Round& round, const Arguments& a) {
    std::vector<pid_t> children;
    for (unsigned i = 0; i < a.workers; ++i) {
        const pid_t child = ::fork();
        if (child < 0) {
            std::perror("fork");
            std::exit(2);
        }
        if (child == 0) {
            round.work(i);
            ::_exit(0);
        }
        children.push_back(child);
    }
    for (unsigned i = 0; i < a.workers; ++i) {
        int status = 0;
        ::waitpid(children[i], &status, 0);
        if (status != 0) round.stop(i, fmt::format("worker {} ended with status {:x}", i, status));
    }
}

void run_threads(Round& round, const Arguments& a) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < a.workers; ++i) threads.emplace_back([&round, i] { round.work(i); });
    for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments;
    if (!parse(argc, argv, arguments)) {
        fmt::print(stderr, "{}", usage);
        return 2;
    }
    ::umask(022);
    const auto calls =
        arguments.image.empty() ? mount_calls(arguments.directory) : library_calls(arguments.image, arguments.options);
    Round round(arguments, *calls);
    if (!round.prepare()) return 2;
    calls->is_mount() ? run_processes(round, arguments) : run_threads(round, arguments);
    return round.judge() ? 0 : 1;
}
