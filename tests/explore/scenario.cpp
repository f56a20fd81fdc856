#include "tests/explore/scenario.h"

#include "check/check.h"
#include "sync/thread.h"
#include "tests/crash/poisoned_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace uext4::explore {

namespace {

const Credentials root = Credentials::root();

std::vector<Scenario>& registry() {
    static std::vector<Scenario> all;
    return all;
}

void add_designs(std::vector<Scenario>& all) {
    std::ranges::sort(all, {}, &Scenario::name);
    for (Scenario& s : all) s.designs.push_back({"shipped"});
    for (const designs::WrongDesign& wrong : designs::all()) {
        for (const designs::Found& found : wrong.found) {
            const auto scenario = std::ranges::find(all, found.scenario, &Scenario::name);
            if (scenario == all.end()) {
                std::fputs(fmt::format("{}: there is no scenario {}\n", wrong.name, found.scenario).c_str(), stderr);
                std::_Exit(2);
            }
            scenario->designs.push_back({wrong.name, &wrong, found.within});
        }
    }
}

}  // namespace

Register::Register(Scenario scenario) { registry().push_back(std::move(scenario)); }

const std::vector<Scenario>& scenarios() {
    static const bool complete = (add_designs(registry()), true);
    (void)complete;
    return registry();
}

const Scenario* find_scenario(std::string_view name) {
    for (const Scenario& s : scenarios())
        if (s.name == name) return &s;
    return nullptr;
}

World::~World() {
    if (fs_) (void)fs_->unmount();
}

void World::wrong(const std::string& text) {
    if (scheduler_) scheduler_->fail(Failure::wrong, text);
    throw Unprepared{text};
}

void World::mount() {
    // The scenarios' own words are none of the file system's options.
    std::string text = "," + scenario_.options;
    const auto take_out = [&](const std::string& word) {
        const std::size_t at = ("," + scenario_.options + ",").find("," + word + ",");
        if (at == std::string::npos) return false;
        text.erase(text.find("," + word), word.size() + 1);
        return true;
    };
    const bool background = take_out("background"), tiny_cache = take_out("tiny-cache");
    VolumeOptions options = expect(parse_volume_options(text.empty() ? text : text.substr(1)), "options");
    options.background = background;
    options.cache_grows = false;  // schedules do not depend on the machine's memory
    if (tiny_cache) options.cache_bytes = 64 << 10;
    std::shared_ptr<BlockDevice> device = device_;
    if (scheduler_ && (scenario_.may_fail.times != 0 || scenario_.may_fail.cuts_lose) && !healed_) {
        failing_ = std::make_shared<FailingDevice>(device_, *scheduler_, scenario_.may_fail);
        device = failing_;
    }
    watched_ = std::make_shared<WatchedDevice>(
        device, [this](const std::string& what) { wrong(what + " where nothing may be written"); });
    device = watched_;
    fs_ = expect(FileSystem::mount_device(device, options), "mount");
    if (failing_ && !healed_) failing_->set_log(log_ranges());
}

std::vector<FailingDevice::Range> World::log_ranges() {
    std::vector<FailingDevice::Range> ranges;
    auto log = expect(fs_->inode(InodeNr(8)), "the log's inode");
    expect(for_each_extent(*log, 0, log->size_hint(),
                           [&](const Mapping& m) {
                               ranges.push_back({m.block.value * fs_->volume().geometry().block_size, m.length});
                               return true;
                           }),
           "the log's blocks");
    return ranges;
}

void World::unmount() {
    if (!failing_) {
        fs_->volume().wait_for_deletions();
        expect(fs_->sync(), "sync before the unmount");
        require_settled();
    }
    expect(fs_->unmount(), "unmount");
    fs_.reset();
    check_image();
}

void World::reopen() {
    expect(fs_->unmount(), "unmount");
    fs_.reset();
    mount();
}

void World::require_settled() {
    Allocator& space = fs_->volume().fs().allocator;
    require(space.allocated_clusters() == 0, "a grant is left");
    require(space.reserved_clusters() == 0, "a promise of space is left");
    // What could not be deleted because of an error is still expected.
    if (failing_) return;
    const std::uint64_t usable = space.counts().free_blocks, free = space.super_free_blocks();
    require(usable == free, fmt::format("{} blocks can be had, {} are free", usable, free));
}

bool World::remount_after_errors() {
    const bool well = fs_->unmount().has_value();
    fs_.reset();
    if (failing_) failing_->heal();
    healed_ = true;
    mount();
    remount();
    return well;
}

void World::end_after_failed_reads(const std::function<std::string()>& judge, const std::function<void()>& let_go) {
    failing_->heal();
    let_go();
    fs_->volume().wait_for_deletions();
    const std::string before = judge();
    expect(fs_->sync(), "sync");
    require_settled();
    remount_after_errors();
    require(judge() == before, "a remount shows something else");
    unmount();
}

void World::check_image() {
    VolumeOptions options;
    options.fs.read_only = true;
    options.background = false;
    auto volume = expect(Volume::open(device_, options, {}), "open for the check");
    require(!volume->was_not_unmounted(), "the image says that it was not closed");
    const CheckReport report = expect(check(*volume), "check");
    if (!report.clean()) {
        std::string text = "the image is not sound:";
        for (const CheckProblem& p : report.problems) text += fmt::format("\n  {}: {}", p.structure, p.message);
        wrong(text);
    }
}

void World::run(std::vector<Body> bodies) {
    if (!scheduler_) wrong("nothing to run while the image is made");
    std::vector<Thread> threads;
    for (Body& body : bodies)
        threads.emplace_back("t:" + body.name, std::move(body.run), std::source_location::current());
    scheduler_->set_quiet(false);
    for (Thread& thread : threads) thread.join();
    scheduler_->set_quiet(true);
}

void World::pause() { this_thread::yield(); }

std::unique_ptr<OpenFile> World::open(std::string_view path, int flags) {
    return expect(fs_->open_path(path, flags, 0644, root), "open");
}

void World::write(OpenFile& file, std::uint64_t offset, std::size_t length, char fill) {
    const std::string bytes(length, fill);
    const std::size_t n = expect(file.write(offset, std::as_bytes(std::span(bytes))), "write");
    require(n == length, "a short write");
}

bool World::done_write(OpenFile& file, std::uint64_t offset, std::size_t length, char fill) {
    const std::string bytes(length, fill);
    const auto n = file.write(offset, std::as_bytes(std::span(bytes)));
    return done(n, "write") && *n == length;
}

std::vector<std::string> World::names(std::string_view path) {
    std::vector<std::string> names;
    const InodeRef directory = expect(fs().resolve(path, Credentials::root()), "a directory");
    expect(
        fs().read_directory(*directory, 0, [&](const DirectoryEntry& e) { return names.emplace_back(e.name), true; }),
        "readdir");
    std::ranges::sort(names);
    return names;
}

void World::fill_but(std::uint64_t blocks) {
    auto fill = open("/fill", O_CREAT | O_RDWR);
    const std::uint64_t free = fs().volume().counts().free_blocks, left = free > blocks ? free - blocks : 0;
    expect(fill->fallocate(FALLOC_FL_KEEP_SIZE, 0, left * fs().volume().geometry().block_size), "fallocate");
}

std::string World::read(OpenFile& file, std::uint64_t offset, std::size_t length) {
    std::string bytes(length, '?');
    bytes.resize(expect(file.read(offset, std::as_writable_bytes(std::span(bytes))), "read"));
    return bytes;
}

void World::require_bytes(std::string_view what, std::string_view bytes, std::string_view allowed) {
    for (std::size_t i = 0; i < bytes.size(); ++i)
        if (!allowed.contains(bytes[i]))
            wrong(fmt::format("{}: byte {} is {:#04x}", what, i, static_cast<unsigned char>(bytes[i])));
}

void World::quietly(const std::function<void()>& look) {
    const bool before = scheduler_ && scheduler_->set_quiet(true);
    look();
    if (scheduler_) scheduler_->set_quiet(before);
}

void World::cut_power() {
    cuts_.push_back(image());
    if (!scenario_.may_fail.cuts_lose) return;
    quietly([this] { expect(failing_->lose_unflushed(*cuts_.back()), "a power cut"); });
}

void World::on(std::shared_ptr<MemoryDevice> image, const std::function<void(World&)>& look) {
    World world(scenario_, std::move(image), scheduler_);
    look(world);
}

void World::after_cut(const std::function<void(World&)>& look) {
    for (auto& cut : std::exchange(cuts_, {}))
        on(std::move(cut), [&](World& world) {
            world.mount();
            look(world);
            world.unmount();
        });
}

std::shared_ptr<MemoryDevice> make_template(const Scenario& scenario) {
    const std::string path = fmt::format("/dev/shm/uext4-explore-{}", ::getpid());
    const std::string command = fmt::format(
        "mke2fs -q -F -U 11111111-2222-3333-4444-555555555555 -E "
        "lazy_itable_init=0,nodiscard,hash_seed=11111111-2222-3333-4444-555555555555 {}",
        scenario.format);
    // The size stands last, behind the file.
    const auto space = command.rfind(' ');
    const std::string size = command.substr(space + 1);
    const std::string full = fmt::format("{} {} {} >/dev/null", command.substr(0, space), path, size);
    const int status = crash::make_poisoned_file(path, size) ? std::system(full.c_str()) : -1;
    auto image = status == 0 ? MemoryDevice::load(path) : fail(EIO, "mke2fs failed");
    ::unlink(path.c_str());
    if (!image) {
        std::fputs(fmt::format("{}: {}\n", full, image.error().what).c_str(), stderr);
        std::_Exit(2);
    }
    std::shared_ptr<MemoryDevice> device = std::move(*image);
    if (scenario.prepare) {
        World world(scenario, device, nullptr);
        world.mount();
        scenario.prepare(world);
        world.unmount();
    }
    return device;
}

}  // namespace uext4::explore
