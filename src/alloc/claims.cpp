#include "alloc/allocator_state.h"
#include "base/counted.h"
#include "base/seam.h"
#include "sync/atomic_point.h"

namespace uext4 {

Result<DelallocReservation> Allocator::reserve(std::uint64_t clusters, bool privileged) {
    State& s = *state_;
    for (;;) {
        Result<DelallocReservation> out = reserve_without_avoided(clusters, privileged);
        if (out || out.error().code != ENOSPC) return out;
        const std::int64_t keep = privileged ? 0 : static_cast<std::int64_t>(s.root_reserved_clusters);
        atomic_point("Allocator::available", &s.available);
        const std::int64_t missing = static_cast<std::int64_t>(clusters) + keep - s.available.load();
        if (missing > s.avoided_clusters.load()) return out;
        if (missing > 0 && !s.release_avoided(missing)) return out;
    }
}

Result<DelallocReservation> Allocator::reserve_without_avoided(std::uint64_t clusters, bool privileged) {
    State& s = *state_;
    DelallocReservation out;
    if (clusters == 0) {
        out.state_ = state_;
        return out;
    }
    s.sum_counts();
    const std::int64_t keep = privileged ? 0 : static_cast<std::int64_t>(s.root_reserved_clusters);
    const auto take = [&](std::int64_t& now) {
        atomic_point("Allocator::available", &s.available);
        const std::int64_t left = now - static_cast<std::int64_t>(clusters);
        if (UEXT4_SEAM(claims_at_once)) return s.available.compare_exchange_weak(now, left);
        s.available.store(left);
        return true;
    };
    atomic_point("Allocator::available", &s.available);
    std::int64_t now = s.available.load();
    do {
        if (now - keep < static_cast<std::int64_t>(clusters))
            return fail(ENOSPC, "{} wanted, {} free", counted(clusters, "cluster"),
                        std::max<std::int64_t>(0, now - keep));
    } while (!take(now));
    s.delalloc_reserved.fetch_add(static_cast<std::int64_t>(clusters));
    out.state_ = state_;
    out.clusters_ = clusters;
    return out;
}

void DelallocReservation::release_part(std::uint64_t n) {
    n = std::min(n, clusters_);
    if (n == 0) return;
    clusters_ -= n;
    atomic_point("Allocator::claimed", &state_->delalloc_reserved);
    state_->delalloc_reserved.fetch_sub(static_cast<std::int64_t>(n));
    atomic_point("Allocator::available", &state_->available);
    state_->available.fetch_add(static_cast<std::int64_t>(n));
    state_->free_count_generation.fetch_add(1);
}

void DelallocReservation::release() { release_part(clusters_); }

void DelallocReservation::consume(std::uint64_t n) {
    n = std::min(n, clusters_);
    clusters_ -= n;
    if (n) state_->delalloc_reserved.fetch_sub(static_cast<std::int64_t>(n));
}

void DelallocReservation::merge(DelallocReservation&& other) {
    if (other.clusters_ == 0) return;
    if (!state_) state_ = other.state_;
    clusters_ += std::exchange(other.clusters_, 0);
}

Allocation Allocation::split_front(std::uint64_t blocks) {
    Allocation front;
    front.state_ = state_;
    front.first_ = first_;
    front.count_ = std::min(blocks, count_);
    first_ += front.count_;
    count_ -= front.count_;
    return front;
}

void Allocation::release() {
    if (count_ == 0) return;
    const std::uint64_t n = std::exchange(count_, 0);
    state_->return_to_free(first_, n, true);
}

}  // namespace uext4
