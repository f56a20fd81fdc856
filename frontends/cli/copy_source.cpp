#include "cli/copy_source.h"

#include <algorithm>

namespace uext4::cli {

namespace {

constexpr std::size_t longest_piece = std::size_t{1} << 20;
constexpr std::size_t pipe_piece = std::size_t{1} << 16;  // what a pipe holds

}  // namespace

SourceReader::SourceReader(std::unique_ptr<SourceContents> from, std::uint64_t size)
    : from_(std::move(from)),
      sized_(size != 0),
      size_(size),
      room_(sized_ ? static_cast<std::size_t>(std::min<std::uint64_t>(size, longest_piece)) : pipe_piece),
      buffer_(std::make_unique_for_overwrite<std::byte[]>(room_)),
      first_(read()) {}

std::optional<SourceReader::Piece> SourceReader::next() {
    if (first_) return std::exchange(first_, std::nullopt);
    return read();
}

std::optional<SourceReader::Piece> SourceReader::read() {
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
