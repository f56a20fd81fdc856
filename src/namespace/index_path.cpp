#include "namespace/index_path.h"

namespace uext4 {

Result<IndexPath> IndexPath::to(Inode& directory, std::uint32_t hash) {
    return from_root(directory, TRY(read_dir_block(directory, LogicalBlock(0), DirBlock::root)), hash);
}

Result<IndexPath> IndexPath::from_root(Inode& directory, DirBuffer root, std::uint32_t hash) {
    IndexPath path;
    path.version_ = byte_at(root.data(), hash_version_offset);
    path.levels_ = byte_at(root.data(), index_levels_offset);
    if (path.levels_ > hashed_dir::max_levels(directory))
        return fail(EUCLEAN, "directory {}: its index has {} levels below the root", directory.number(), path.levels_);
    Frame frame{std::move(root), index_root_offset, 0};
    frame.position = frame.view().position(hash);
    path.frames_.push_back(std::move(frame));
    TRY(path.descend(directory, hash));
    return path;
}

Result<IndexPath> IndexPath::to_name(Inode& directory, std::string_view name, NameHash& hash) {
    DirBuffer root = TRY(read_dir_block(directory, LogicalBlock(0), DirBlock::root));
    hash = TRY(hash_name(directory, name, byte_at(root.data(), hash_version_offset)));
    return from_root(directory, std::move(root), hash.major);
}

Result<std::uint8_t> IndexPath::hash_version(Inode& directory) {
    const DirBuffer root = TRY(read_dir_block(directory, LogicalBlock(0), DirBlock::root));
    return byte_at(root.data(), hash_version_offset);
}

// From the last frame down to the lowest index block, by `hash` or along the first pairs.
Result<void> IndexPath::descend(Inode& directory, std::optional<std::uint32_t> hash) {
    while (frames_.size() <= levels_) {
        const Frame& above = frames_.back();
        const std::uint32_t child = above.view().block(above.position);
        Frame frame {
            TRY(read_below(directory, LogicalBlock(child), DirBlock::node))
            , index_node_offset, 0
        };
        if (hash) frame.position = frame.view().position(*hash);
        frames_.push_back(std::move(frame));
    }
    return {};
}

Result<DirBuffer> IndexPath::read_below(Inode& directory, LogicalBlock block, DirBlock what) const {
    DirBuffer read = TRY(read_dir_block(directory, block, what));
    for (const Frame& frame : frames_)
        if (frame.block.buffer.get() == read.buffer.get())
            return fail(EUCLEAN, "directory {}: block {} is named in the index below itself", directory.number(),
                        block);
    return read;
}

Result<DirBuffer> IndexPath::read_leaf(Inode& directory) const { return read_below(directory, leaf(), DirBlock::leaf); }

LogicalBlock IndexPath::leaf() const { return LogicalBlock(frames_.back().view().block(frames_.back().position)); }

std::uint32_t IndexPath::range_start() const {
    for (auto frame = frames_.rbegin(); frame != frames_.rend(); ++frame)
        if (frame->position != 0) return frame->view().hash(frame->position);
    return 0;
}

std::optional<std::uint32_t> IndexPath::next_start() const {
    for (auto frame = frames_.rbegin(); frame != frames_.rend(); ++frame)
        if (frame->position + 1 < frame->view().count()) return frame->view().hash(frame->position + 1);
    return {};
}

Result<bool> IndexPath::advance(Inode& directory) {
    std::size_t depth = frames_.size();
    while (depth > 0 && frames_[depth - 1].position + 1 >= frames_[depth - 1].view().count()) --depth;
    if (depth == 0) return false;
    const std::uint32_t before = range_start();
    frames_.resize(depth);
    ++frames_.back().position;
    TRY(descend(directory, std::nullopt));
    if (range_start() < before)
        return fail(EUCLEAN, "directory {}: its index is not in ascending order at block {}", directory.number(),
                    frames_.back().block.logical);
    return true;
}

}  // namespace uext4
