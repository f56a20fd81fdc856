#include "cli/copy_source.h"

#include <algorithm>
#include <cstring>

namespace uext4::cli {

namespace {

constexpr std::size_t longest_piece = std::size_t{1} << 20;
constexpr std::size_t pipe_piece = std::size_t{1} << 16;  // what a pipe holds

// How many bytes at the beginning are in units that are zero, or that are not.
std::size_t leading_units(ConstBytes bytes, bool zero) {
    constexpr std::size_t unit = 4096;
    std::size_t length = 0;
    while (length < bytes.size()) {
        const ConstBytes part = bytes.subspan(length, std::min(unit, bytes.size() - length));
        const bool is_zero = part[0] == std::byte{0} && std::memcmp(part.data(), part.data() + 1, part.size() - 1) == 0;
        if (is_zero != zero) break;
        length += part.size();
    }
    return length;
}

}  // namespace

SourceReader::SourceReader(std::unique_ptr<SourceContents> from, std::uint64_t size, Holes holes)
    : from_(std::move(from)),
      in_memory_(from_->in_memory()),
      sized_(size != 0),
      size_(size),
      room_(sized_ ? static_cast<std::size_t>(std::min<std::uint64_t>(size, longest_piece)) : pipe_piece),
      buffer_(in_memory_ ? nullptr : std::make_unique_for_overwrite<std::byte[]>(room_)),
      zeros_are_holes_(holes == Holes::zeros),
      first_(read()),
      ended_(!first_) {}

std::optional<SourceReader::Piece> SourceReader::next() {
    if (first_) return std::exchange(first_, std::nullopt);
    if (ended_) return {};
    std::optional<Piece> out = read();
    ended_ = !out;
    return out;
}

std::size_t SourceReader::fill(std::size_t length) {
    const Bytes buffer(buffer_.get(), length);
    std::size_t done = 0;
    for (std::size_t n = 1; n > 0 && done < length; done += n)
        n = sized_ ? from_->read(at_ + done, buffer.subspan(done)) : from_->next(buffer.subspan(done));
    return done;
}

// Pieces depend on the contents alone, not on the holes of the source nor on how much a call reads.
std::optional<SourceReader::Piece> SourceReader::read_between_zeros() {
    for (;;) {
        if (left_.empty()) {
            if (at_ >= size_) return {};
            const std::optional<SourceContents::Range> data = from_->data_from(at_);
            if (data) at_ = std::max(at_, round_down(data->begin, std::uint64_t{longest_piece}));
            if (!data || at_ >= size_) {
                at_ = size_;
                return {};
            }
            const std::size_t wanted = std::min<std::uint64_t>(room_, size_ - at_);
            left_ = in_memory_ ? in_memory_->subspan(at_, wanted) : ConstBytes(buffer_.get(), fill(wanted));
            if (left_.size() < wanted) size_ = at_ + left_.size();
        }
        const std::size_t zeros = leading_units(left_, true);
        at_ += zeros;
        left_ = left_.subspan(zeros);
        const Piece out{at_, left_.first(leading_units(left_, false))};
        at_ += out.bytes.size();
        left_ = left_.subspan(out.bytes.size());
        if (!out.bytes.empty()) return out;
    }
}

std::optional<SourceReader::Piece> SourceReader::read() {
    if (!zeros_are_holes_ && in_memory_) return read_at_once();
    if (!zeros_are_holes_) return read_next();
    if (sized_) return read_between_zeros();
    const std::size_t length = fill(room_);
    size_ += length;
    const Piece out{std::exchange(at_, at_ + length), ConstBytes(buffer_.get(), length)};
    return length > 0 ? std::optional(out) : std::nullopt;
}

std::optional<SourceReader::Piece> SourceReader::read_at_once() {
    if (at_ == size_) return {};
    return Piece{std::exchange(at_, size_), *in_memory_};
}

std::optional<SourceReader::Piece> SourceReader::read_next() {
    const Bytes buffer(buffer_.get(), room_);
    const auto piece = [&](std::size_t length) {
        const Piece out{at_, ConstBytes(buffer).first(length)};
        at_ += length;
        return out;
    };
    if (!sized_) {
        const std::size_t length = from_->next(buffer);
        size_ += length;
        if (length == 0) return {};
        return piece(length);
    }
    if (at_ >= size_) return {};
    if (at_ >= data_end_) {
        const std::optional<SourceContents::Range> data = from_->data_from(at_);
        if (!data || data->begin >= size_) {
            at_ = size_;
            return {};
        }
        at_ = data->begin;
        data_end_ = std::min(size_, std::max(data->end, data->begin + 1));
    }
    const std::size_t length = from_->read(at_, buffer.first(std::min<std::uint64_t>(room_, data_end_ - at_)));
    if (length == 0) {  // it says more than it has (/sys), or has become shorter
        size_ = at_;
        return {};
    }
    return piece(length);
}

}  // namespace uext4::cli
