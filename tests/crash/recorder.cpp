#include "tests/crash/recorder.h"

#include "tests/crash/fixed_host.h"
#include "tests/crash/poisoning_device.h"
#include "tests/crash/session.h"
#include "volume/flusher.h"
#include "volume/journal_location.h"

#include "format/journal.h"
#include "sync/thread.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>

namespace uext4::crash {

namespace {

bool expected(const Error& error) {
    constexpr int refusals[] = {ENOENT,  EEXIST,     ENOTDIR, EISDIR,  ENOTEMPTY, EINVAL, EPERM, ELOOP,
                                ENODATA, EOPNOTSUPP, ENOSPC,  ETXTBSY, EBUSY,     EACCES, ENXIO};
    return std::ranges::find(refusals, error.code) != std::end(refusals);
}

Result<void> disturb(FileSystem& fs, Between between) {
    if (between == Between::write_back || between == Between::both) TRY(Flusher::flush_all(fs.volume().inodes()));
    if (between == Between::commit || between == Between::both) TRY(fs.volume().fs().journal.commit_all());
    if (between == Between::both) fs.volume().wait_for_deletions();
    return {};
}

std::uint64_t transaction_of(FileSystem& fs) {
    const Journal& journal = fs.volume().fs().journal;
    const Tid newest = journal.running_tid();
    return journal.is_open(newest) ? newest : newest + 1;
}

// A file keeps its number while it is in one tree after the other.
void number_files(Recording& recording) {
    const Tree& tree = recording.trees.back();
    std::map<std::uint64_t, unsigned> now;
    const std::map<std::uint64_t, unsigned> before =
        recording.files.empty() ? std::map<std::uint64_t, unsigned>() : recording.files.back();
    static std::atomic<unsigned> next{0};
    for (const auto& [path, node] : tree) {
        const auto known = before.find(node.inode);
        now.try_emplace(node.inode, known != before.end() ? known->second : ++next);
    }
    recording.files.push_back(std::move(now));
}

// mke2fs makes none of less than 1,024 blocks.
Result<void> shorten_log(const std::shared_ptr<MemoryDevice>& image, std::uint32_t blocks) {
    VolumeOptions options;
    options.background = false;
    options.fs.read_only = true;
    std::uint64_t place = 0;
    std::vector<std::byte> bytes;
    {
        auto fs = TRY(FileSystem::mount_device(image, options));
        const auto runs = TRY(locate_journal(fs->volume().inodes(), fs->volume().geometry()));
        bytes.resize(fs->volume().geometry().block_size);
        place = runs.front().first.value * bytes.size();
    }
    TRY(image->read(place, bytes));
    auto& super = view_as<format::JournalSuper>(Bytes(bytes));
    super.maxlen = blocks;
    if (super.checksum_v2or3()) super.checksum = format::journal_super_checksum(super);
    return image->write(place, bytes);
}

Result<void> record_steps(Session& session, const RecordingDevice& device, Recording& into) {
    auto note = [&]() -> Result<void> {
        into.trees.push_back(into.directory.empty() ? TRY(capture(session.fs()))
                                                    : TRY(capture(session.fs(), into.directory)));
        number_files(into);
        return {};
    };
    TRY(note());
    unsigned serial = into.first_serial;
    for (const Operation& operation : into.workload.steps) {
        Step step{operation, device.log_size()};
        step.first_transaction = transaction_of(session.fs());
        const Result<void> done = session.perform(operation, serial++);
        if (!done && !expected(done.error()))
            return fail(done.error().code, "{}: {}: {}", into.workload.name, describe(operation), done.error().what);
        step.done = done.has_value();
        step.last_transaction = transaction_of(session.fs());
        step.end = device.log_size();
        into.steps.push_back(std::move(step));
        TRY(note());
        TRY(disturb(session.fs(), into.between));
        if (into.poisons && into.directory.empty()) (void)TRY(session.fs().trim(1));
    }
    return {};
}

// Each thread sees to its own directory, so its trees are what it made them; commits and writeback come in between.
Result<void> record_threads(Session& session, const RecordingDevice& device, Recording& into) {
    const auto& work = into.workload.threads;
    into.threads.resize(work.size());
    std::vector<Result<void>> results(work.size());
    std::atomic<bool> over{false};
    Thread disturber("disturber", [&] {
        for (unsigned i = 0; !over.load(); ++i) {
            (void)disturb(session.fs(), static_cast<Between>(i % 4));
            this_thread::sleep(std::chrono::milliseconds(1));
        }
    });
    {
        std::vector<Thread> threads;
        for (std::size_t i = 0; i < work.size(); ++i) {
            Recording& track = into.threads[i];
            track.format = into.format;
            track.mode = into.mode;
            track.directory = fmt::format("/t{}", i);
            track.workload = {into.workload.name, {}, work[i]};
            threads.emplace_back(fmt::format("stress {}", i),
                                 [&, i] { results[i] = record_steps(session, device, into.threads[i]); });
        }
    }
    over.store(true);
    disturber.join();
    for (Result<void>& result : results) TRY(std::move(result));
    return {};
}

}  // namespace

const char* between_name(Between between) {
    switch (between) {
        case Between::nothing: return "nothing";
        case Between::commit: return "commits";
        case Between::write_back: return "writeback";
        case Between::both: return "writeback and commits";
    }
    return "?";
}

Result<std::shared_ptr<MemoryDevice>> make_image(const Format& format, const std::string& scratch) {
    if (!make_poisoned_file(scratch, format.size)) return fail(EIO, "{}: cannot be written", scratch);
    constexpr const char* uuid = "a17e0000-5eed-4bad-9cab-1e0f5a3e5c01";
    const std::string command = fmt::format(
        "E2FSPROGS_FAKE_TIME={} mke2fs -q -F -t ext4 -N 256 -m 0 -U {} -E "
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0,hash_seed={} {} {} {} >/dev/null 2>&1",
        fixed_time, uuid, uuid, format.mke2fs, scratch, format.size);
    if (std::system(command.c_str()) != 0) return fail(EIO, "this failed: {}", command);
    auto device = MemoryDevice::load(scratch);
    ::unlink(scratch.c_str());
    if (!device) return fail(device.error());
    std::shared_ptr<MemoryDevice> image = std::move(*device);
    if (format.log_blocks != 0) TRY(shorten_log(image, format.log_blocks));
    return image;
}

VolumeOptions mount_options(const std::string& mode) {
    VolumeOptions options;
    if (auto parsed = parse_all_options("cache=8M,data=" + mode)) options = *parsed;
    options.background = false;
    options.commit_interval = std::chrono::milliseconds(0);
    return options;
}

Result<std::shared_ptr<MemoryDevice>> Recorder::prepared(const std::vector<Operation>& setup) {
    std::string key;
    for (const Operation& o : setup) key += describe(o) + ";";
    auto& known = prepared_[key];
    if (known) return known;
    std::shared_ptr<MemoryDevice> copy = image_->clone();
    restart_host();
    auto session = TRY(Session::open(copy, mount_options(mode_)));
    unsigned serial = 1000000;
    for (const Operation& o : setup) TRY(session->perform(o, serial++));
    TRY(session->close());
    known = copy;
    return copy;
}

// One thread has what is free poisoned between its steps. Of several, each would be short of it meanwhile: there the
// library tells the device of what was freed.
Result<void> record_on(std::shared_ptr<BlockDevice> device, Recording& into) {
    auto recorder = std::make_shared<RecordingDevice>(std::move(device));
    VolumeOptions options = mount_options(into.mode);
    options.discard = into.poisons && !into.workload.threads.empty();
    restart_host(into.first_serial);
    auto session = TRY(Session::open(std::make_shared<PoisoningDevice>(recorder), options));
    if (into.workload.threads.empty()) TRY(record_steps(*session, *recorder, into));
    else TRY(record_threads(*session, *recorder, into));
    TRY(session->close());
    session.reset();
    into.log = recorder->take_log();
    return {};
}

Result<Recording> Recorder::record(const Workload& workload, Between between, bool poisons) {
    Recording out;
    out.format = format_;
    out.mode = mode_;
    out.between = between;
    out.poisons = poisons;
    out.workload = workload;
    const std::shared_ptr<MemoryDevice> start = TRY(prepared(workload.setup));
    out.initial = start;
    TRY(record_on(start->clone(), out));
    return out;
}

}  // namespace uext4::crash
