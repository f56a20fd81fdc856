#include "volume/multi_mount_protection.h"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>

namespace uext4 {

namespace {

std::uint32_t random_sequence() {
    std::uint32_t n = 1;
    if (::getrandom(&n, sizeof n, 0) != sizeof n) n = static_cast<std::uint32_t>(::time(nullptr));
    return n % format::mmp_highest_sequence + 1;
}

template <std::size_t N>
std::string text_of(const char (&field)[N]) {
    return {field, strnlen(field, N)};
}

}  // namespace

Result<format::MmpBlock> MultiMountProtection::read() {
    format::MmpBlock block;
    TRY(device_.read_from_medium(geometry_.mmp_block * geometry_.block_size,
                                 std::as_writable_bytes(std::span(&block, 1))));
    if (block.magic != format::mmp_magic)
        return fail(EUCLEAN, "mmp block {}: magic is {:#x}", geometry_.mmp_block, block.magic.get());
    if (!format::mmp_checksum_ok(geometry_, block))
        return fail(EUCLEAN, "mmp block {}: bad checksum", geometry_.mmp_block);
    return block;
}

Result<void> MultiMountProtection::write(format::MmpBlock block) {
    std::memset(block.node, 0, sizeof block.node);
    std::memset(block.device, 0, sizeof block.device);
    if (fixed_time_ && block.sequence == format::mmp_clean) {
        block.time = static_cast<std::uint64_t>(*fixed_time_);
    } else {
        block.time = static_cast<std::uint64_t>(::time(nullptr));
        ::gethostname(block.node, sizeof block.node - 1);
        const std::string name = device_.name();
        std::memcpy(block.device, name.data(), std::min(name.size(), sizeof block.device - 1));
    }
    format::set_mmp_checksum(geometry_, block);
    return device_.write_fua(geometry_.mmp_block * geometry_.block_size, bytes_of(block));
}

Result<std::unique_ptr<MultiMountProtection>> MultiMountProtection::acquire(BlockDevice& device,
                                                                            const format::Geometry& g,
                                                                            std::function<void(const std::string&)> log,
                                                                            std::optional<std::int64_t> fixed_time) {
    if (!g.has_incompat(format::incompat::mmp)) return std::unique_ptr<MultiMountProtection>();
    if (!g.valid_block(BlockNr(g.mmp_block)) || g.block_size < sizeof(format::MmpBlock))
        return fail(EUCLEAN, "superblock: s_mmp_block is {}", g.mmp_block);
    std::unique_ptr<MultiMountProtection> m(new MultiMountProtection(device, g, std::move(log), fixed_time));
    format::MmpBlock block = TRY(m->read());
    m->interval_ = std::clamp<std::uint32_t>(block.check_interval, 5, 300);
    if (block.sequence == format::mmp_fsck) return fail(EBUSY, "mmp block {}: e2fsck is running on it", g.mmp_block);
    if (block.sequence != format::mmp_clean) {
        const std::uint32_t before = block.sequence;
        this_thread::sleep(std::chrono::seconds(std::min<std::uint32_t>(m->interval_ * 2 + 1, m->interval_ + 60)));
        block = TRY(m->read());
        if (block.sequence != before)
            return fail(EBUSY, "mmp block {}: in use by {} on {}", g.mmp_block, text_of(block.node),
                        text_of(block.device));
    }
    // Ours, unless another claims it in the same moment.
    m->sequence_ = random_sequence();
    block.sequence = m->sequence_;
    TRY(m->write(block));
    this_thread::sleep(std::chrono::seconds(std::min<std::uint32_t>(m->interval_, 5)));
    if (TRY(m->read()).sequence != m->sequence_)
        return fail(EBUSY, "mmp block {}: somebody else claimed it", g.mmp_block);
    m->thread_ = Thread("uext4-mmp", [raw = m.get()] { raw->keep_alive_loop(); });
    return m;
}

Result<format::MmpBlock> MultiMountProtection::next_block() {
    format::MmpBlock block = TRY(read());
    if (block.sequence != sequence_)
        return fail(EBUSY, "mmp block {}: taken over by {} on {}", geometry_.mmp_block, text_of(block.node),
                    text_of(block.device));
    sequence_ = sequence_ >= format::mmp_highest_sequence ? 1 : sequence_ + 1;
    block.sequence = sequence_;
    return block;
}

void MultiMountProtection::keep_alive_loop() {
    MutexLock guard(lock_);
    while (!stop_) {
        changed_.wait_for(lock_, std::chrono::seconds(std::max<std::uint32_t>(1, interval_ / 2)));
        if (stop_) return;
        if (paused_ || renewing_) continue;
        if (lost_) return;
        renewing_ = true;
        guard.unlock();
        const Result<void> renewed = renew();
        guard.lock();
        renewing_ = false;
        changed_.notify_all();
        if (!renewed && renewed.error().code == EBUSY) return;
    }
}

Result<void> MultiMountProtection::renew() {
    Result<format::MmpBlock> block = next_block();
    if (!block && block.error().code != EBUSY) {
        log_(block.error().what);
        return fail(block.error());
    }
    Result<void> renewed = block ? write(*block) : fail(block.error());
    if (renewed) return renewed;
    std::function<void(const Error&)> told;
    {
        MutexLock guard(lock_);
        if (!block) lost_ = renewed.error();
        told = lost_callback_;
    }
    if (told) told(renewed.error());
    else log_(renewed.error().what);
    return renewed;
}

void MultiMountProtection::pause() {
    MutexLock guard(lock_);
    paused_ = true;
    while (renewing_) changed_.wait(lock_);
}

Result<void> MultiMountProtection::resume() {
    {
        MutexLock guard(lock_);
        if (!std::exchange(paused_, false)) return {};
        if (lost_) return fail(*lost_);
        renewing_ = true;
    }
    struct Renewed {
        MultiMountProtection& m;
        ~Renewed() {
            MutexLock guard(m.lock_);
            m.renewing_ = false;
            m.changed_.notify_all();
        }
    } const end{*this};
    return renew();
}

void MultiMountProtection::set_lost_callback(std::function<void(const Error&)> told) {
    {
        MutexLock guard(lock_);
        lost_callback_ = told;
        if (!lost_) return;
    }
    told(*lost_);
}

void MultiMountProtection::release() {
    if (!thread_.joinable()) return;
    {
        MutexLock guard(lock_);
        stop_ = true;
        changed_.notify_all();
    }
    thread_.join();
    if (lost_) return;
    if (Result<format::MmpBlock> block = read(); block && block->sequence == sequence_) {
        block->sequence = format::mmp_clean;
        (void)write(*block);
    }
}

}  // namespace uext4
