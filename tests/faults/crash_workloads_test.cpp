// The workloads of the crash checker on a device that fails. What each step makes of the tree is known from a run on a
// good one; up to the first step that is told to have failed, the same promises hold after a power cut, and after an
// unmount that succeeded everything is there. Behind it the rest is done all the same: what a later sync acknowledges
// is what the file system itself shows at that moment, and has to be there after a cut; and the image stays sound.
#include "sync/thread.h"
#include "tests/crash/fixed_host.h"
#include "tests/crash/poisoning_device.h"
#include "tests/crash/promises.h"
#include "tests/crash/session.h"
#include "tests/faults/all_faults.h"
#include "tests/faults/faulty_mount.h"
#include "tests/faults/tally.h"

#include "check/check.h"

namespace uext4::faults {
namespace {

using crash::Recording;
using crash::Workload;

bool long_run() { return std::getenv("UEXT4_LONG") != nullptr; }
unsigned first_seed() {
    const char* wanted = std::getenv("UEXT4_SEED");
    return wanted ? static_cast<unsigned>(std::atoi(wanted)) : 1;
}

// Contents cannot be written, nor in the other blocks that are tried, until somebody has asked a few times: the log
// works and life goes on.
const Fault new_blocks_fail = {"NewBlocksFailForAWhile", {Kind::Write}, Effect::Fail, EIO, 6, true};

std::vector<Fault> faults() {
    std::vector<Fault> out(std::begin(all_faults), std::end(all_faults));
    out.push_back(new_blocks_fail);
    return out;
}

class CrashWorkloads : public testing::TestWithParam<std::tuple<Fault, const char*>> {
protected:
    const Fault& fault() const { return std::get<0>(GetParam()); }
    std::string mode() const { return std::get<1>(GetParam()); }

    std::shared_ptr<MemoryDevice> image_of(const crash::Format& format) {
        auto image = crash::make_image(format, fmt::format("/dev/shm/uext4-faults-crash-{}", ::getpid()));
        EXPECT_TRUE(image) << image.error().what;
        return image ? *image : nullptr;
    }
    // The threads of a workload one after the other, a step each.
    static Workload by_turns(Workload w) {
        for (std::size_t i = 0; !w.threads.empty(); ++i) {
            bool any = false;
            for (const auto& steps : w.threads)
                if (i < steps.size()) w.steps.push_back(steps[i]), any = true;
            if (!any) break;
        }
        w.threads.clear();
        return w;
    }
    using Named = std::pair<std::string, Workload>;  // by the name that ./dev crash has for it
    // A small log is for changes that do not fit into it.
    static std::vector<Named> workloads_on(const crash::Format& format, unsigned seed) {
        if (format.log_blocks == 0) return workloads(seed);
        return {{"fragments", crash::fragments(seed)}};
    }
    static std::vector<Named> workloads(unsigned seed) {
        const std::size_t share = long_run() ? 60 : 3;
        std::vector<Named> out;
        auto add = [&](const std::string& name, std::vector<Workload> all) {
            all.resize(std::min(all.size(), share));
            for (Workload& w : all) out.emplace_back(name, std::move(w));
        };
        add("ace1", crash::ace_workloads(1, seed, 0));
        add("ace2", crash::ace_workloads(2, seed, 0));
        add("ace3", crash::ace_workloads(3, seed, share));
        std::vector<Workload> replacing = crash::replacements();
        std::shuffle(replacing.begin(), replacing.end(), std::mt19937(seed));
        add("replace", std::move(replacing));
        out.emplace_back("reuse", crash::reuse(seed));
        out.emplace_back("wrap", crash::wrap(seed));
        out.emplace_back("exerciser", crash::exerciser(seed, 60));
        out.emplace_back("namespace", crash::namespace_stress(seed, 80));
        out.emplace_back("held", crash::held(seed));
        out.emplace_back("stress", by_turns(crash::stress(seed, 60)));
        return out;
    }
    // Steps were done up to `done`; `begun` of them were asked for.
    void promised(const Recording& known, std::size_t done, std::size_t begun, const MemoryDevice& image,
                  const std::string& when) {
        auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(image.clone()), crash::mount_options(mode()));
        ASSERT_TRUE(fs) << when << ": " << fs.error().what;
        auto tree = crash::capture(**fs);
        ASSERT_TRUE(tree) << when << ": " << tree.error().what;
        EXPECT_EQ(crash::broken_promise(known, done, begun, *tree), "") << when;
        EXPECT_TRUE((*fs)->unmount()) << when;
    }
    DeviceFault arm(const std::shared_ptr<MemoryDevice>& image, std::mt19937& random) const {
        DeviceFault out = armed(fault(), random);
        if (std::string_view(fault().name) != new_blocks_fail.name) return out;
        out.skip %= 4;
        // What nobody has used is poisoned, the log is not.
        out.predicate = [image](const DeviceRequest& request) {
            std::byte first{};
            return image->read(request.offset, Bytes(&first, 1)) && first == static_cast<std::byte>(crash::poison);
        };
        return out;
    }
    // `sync` was acknowledged just now, whatever failed before: what it is about is as durable as it is to be seen.
    void acknowledged(FileSystem& live, const crash::Operation& sync, const MemoryDevice& image,
                      const std::string& when);
    Outcome run(const Recording& recorded, std::mt19937& random, const std::string& when);
    Outcome run_threads(const std::shared_ptr<MemoryDevice>& image, const Workload& w, std::mt19937& random,
                        const std::string& when);
    void end(FaultyMount& device, const std::string& when) {
        device.faulty->clear();
        if (fault().honest) expect_sound(device.memory, when);
    }
    // Whether it kept its promises is seen by the failures of the test.
    void tell(const std::string& workload, Outcome outcome) {
        outcome.failed = HasFailure();
        Tally::instance().add(fault().name, workload, outcome);
        met += outcome.met;
    }
    std::uint64_t met = 0;            // runs in which the device failed
    std::uint64_t acknowledged_ = 0;  // syncs behind a failure that were judged
};

void CrashWorkloads::acknowledged(FileSystem& live, const crash::Operation& sync, const MemoryDevice& image,
                                  const std::string& when) {
    const bool all = sync.kind == crash::Operation::Kind::Sync;
    // What the device does not give back now is not known.
    Result<crash::Node> node = all ? crash::Node{} : crash::look(live, sync.path);
    const bool directory = all || (node && S_ISDIR(node->mode));
    Result<crash::Tree> tree = directory ? crash::capture(live) : crash::Tree{};
    if (!node || !tree) return;
    ++acknowledged_;

    auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(image.clone()), crash::mount_options(mode()));
    ASSERT_TRUE(fs) << when << ": " << fs.error().what;
    auto got = crash::capture(**fs);
    ASSERT_TRUE(got) << when << ": " << got.error().what;
    ASSERT_TRUE((*fs)->unmount()) << when;
    if (all) {
        EXPECT_EQ(crash::difference(*tree, *got, true), "") << when;
        return;
    }
    // A name may have been changed after the last change of the file, and wait for a commit of its own.
    const auto same = std::ranges::find(*got, node->inode, [](const auto& entry) { return entry.second.inode; });
    ASSERT_NE(same, got->end()) << when << ": inode " << node->inode << " is not there";
    EXPECT_TRUE(same->second.contents == node->contents)
        << when << ": " << same->second.contents.size() << " bytes, " << node->contents.size() << " acknowledged";
    if (sync.persists_data_alone()) return;
    EXPECT_EQ(crash::other_attributes(*node, same->second), "") << when;
    if (!directory) return;
    auto entries = [](const crash::Tree& in, const std::string& at) {
        std::map<std::string, std::uint64_t> out;
        for (const auto& [path, entry] : in)
            if (!path.empty() && path.substr(0, path.rfind('/')) == at) out[path.substr(at.size())] = entry.inode;
        return out;
    };
    EXPECT_EQ(entries(*tree, sync.path == "/" ? "" : sync.path), entries(*got, same->first)) << when;
}

Outcome CrashWorkloads::run(const Recording& recorded, std::mt19937& random, const std::string& when) {
    Recording known = recorded;
    // Inodes are not taken from a block of the table that cannot be read.
    known.other_numbers = std::string_view(fault().name).starts_with("ReadFails");
    for (std::size_t i = 0; i < known.steps.size(); ++i) {
        crash::Step& step = known.steps[i];
        step.begin = i, step.end = i + 1;
        // Commits come where the device makes them come; and of a write-back at close that failed, an fsync tells.
        step.first_transaction = 2 * i, step.last_transaction = 2 * i + 1;
    }
    const std::size_t steps = known.steps.size();
    // What an unmount is to a file system that is well.
    known.steps.push_back({{crash::Operation::Kind::Sync}, steps, steps + 1, true});
    known.trees.push_back(known.trees.back());
    known.files.push_back(known.files.back());

    Outcome outcome;
    FaultyMount m(known.initial->clone());
    crash::restart_host();  // the same times
    auto session = crash::Session::open(m.faulty, crash::mount_options(mode()));
    EXPECT_TRUE(session) << when << ": " << session.error().what;
    if (!session) return outcome;
    const Unsticker unsticker(*m.faulty);
    const std::uint64_t id = m.faulty->add(arm(m.initial, random));
    auto perform = [&](std::size_t i) {
        auto result = (*session)->perform(known.steps[i].operation, static_cast<unsigned>(i));
        // A step may be refused as on a good device.
        if (!result && (known.steps[i].done || result.error().code == EIO || result.error().code == EROFS))
            outcome.told = true;
        return result;
    };
    std::size_t done = 0;
    for (; done < steps; ++done) {
        const auto result = perform(done);
        if (result.has_value() != known.steps[done].done) break;
        // What a step did that the device failed is not known.
        if (!result && (result.error().code == EIO || result.error().code == EROFS)) break;
    }
    if (fault().honest) {
        promised(known, done, std::min(done + 1, steps), *m.durable(), when + ", cut");
        if (HasFailure()) return outcome;
    }
    std::size_t judged = 0;
    for (std::size_t i = done + 1; i < steps; ++i) {
        const crash::Operation& o = known.steps[i].operation;
        if (!perform(i) || !o.persists() || !fault().honest || (!long_run() && judged++ >= 4)) continue;
        acknowledged((*session)->fs(), o, *m.durable(), fmt::format("{}, {} after a failure", when, describe(o)));
        if (HasFailure()) return outcome;
    }
    outcome.read_only = (*session)->fs().read_only();
    outcome.closed = (*session)->close().has_value();
    session->reset();
    outcome.met = m.faulty->hits(id) + unsticker.releases() > 0;
    if (fault().honest && done == steps)
        promised(known, outcome.closed ? done + 1 : done, done + 1, *m.memory, when + ", closed");
    end(m, when);
    return outcome;
}

// With threads the order of things is not known: that it ends, and well.
Outcome CrashWorkloads::run_threads(const std::shared_ptr<MemoryDevice>& image, const Workload& w, std::mt19937& random,
                                    const std::string& when) {
    Outcome outcome;
    FaultyMount m(image->clone());
    auto session = crash::Session::open(m.faulty, crash::mount_options(mode()));
    EXPECT_TRUE(session) << when;
    if (!session) return outcome;
    for (const crash::Operation& o : w.setup) EXPECT_TRUE((*session)->perform(o, 0)) << when;
    const Unsticker unsticker(*m.faulty);
    const std::uint64_t id = m.faulty->add(arm(m.initial, random));
    std::atomic<bool> told{false};
    std::vector<Thread> threads;
    for (const auto& steps : w.threads)
        threads.emplace_back("stress", [&] {
            unsigned serial = 0;
            for (const crash::Operation& o : steps) {
                const auto done = (*session)->perform(o, serial++);
                if (!done && (done.error().code == EIO || done.error().code == EROFS)) told.store(true);
            }
        });
    for (Thread& thread : threads) thread.join();
    outcome.told = told.load();
    outcome.read_only = (*session)->fs().read_only();
    outcome.closed = (*session)->close().has_value();
    session->reset();
    outcome.met = m.faulty->hits(id) + unsticker.releases() > 0;
    end(m, when);
    return outcome;
}

TEST_P(CrashWorkloads, KeepTheirPromises) {
    for (const crash::Format& format : crash::formats) {
        // In the suite each fault and mode meets some of the formats.
        const bool small = format.mke2fs == std::string_view(crash::formats[1].mke2fs) ||
                           format.mke2fs == std::string_view(crash::formats[2].mke2fs);
        const bool small_log = format.log_blocks != 0;
        if (!long_run() && !small_log && (format.samples_pairs || small != (mode() == "ordered"))) continue;
        const auto image = image_of(format);
        ASSERT_TRUE(image);
        crash::Recorder recorder(image, format.name, mode());
        const unsigned seed = first_seed();
        std::mt19937 random(seed);
        for (const auto& [name, w] : workloads_on(format, seed)) {
            const std::string when = fmt::format("{}, {}, seed {}, {}", format.name, mode(), seed, w.name);
            auto known = recorder.record(w, crash::Between::nothing);
            ASSERT_TRUE(known) << when << ": " << known.error().what;
            for (int round = 0; round < (long_run() ? 4 : 1); ++round) tell(name, run(*known, random, when));
            if (HasFailure()) return;
        }
        if (small_log) continue;
        const Workload threads = crash::stress(seed, long_run() ? 400 : 60);
        tell("stress, threads", run_threads(image, threads, random, fmt::format("{}, threads", format.name)));
        if (HasFailure()) return;
    }
    EXPECT_GT(met, 0u) << "the device never failed";
    RecordProperty("acknowledged", std::to_string(acknowledged_));
    // Contents that go to the log are not written anywhere else for the time being.
    if (std::string_view(fault().name) == new_blocks_fail.name && mode() == "ordered") {
        EXPECT_GT(acknowledged_, 0u) << "no sync succeeded after the failure";
    }
}

INSTANTIATE_TEST_SUITE_P(Faults, CrashWorkloads,
                         testing::Combine(testing::ValuesIn(faults()), testing::Values("ordered", "journal")),
                         [](const auto& p) {
                             return std::string(std::get<0>(p.param).name) + "_" + std::get<1>(p.param);
                         });

}  // namespace
}  // namespace uext4::faults
