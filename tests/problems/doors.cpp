#include "doors.h"

#include <algorithm>
#include <sstream>

namespace uext4::problems {

using Doors = FullImage::Doors;

const Doors::Door Doors::all[] = {{"append", &Doors::append},
                                  {"fill holes", &Doors::fill_holes},
                                  {"fill holes, O_DIRECT", &Doors::fill_holes_directly},
                                  {"stores", &Doors::store},
                                  {"overwrite", &Doors::overwrite},
                                  {"overwrite, O_DIRECT", &Doors::overwrite_directly},
                                  {"fill what is allocated", &Doors::fill_allocated},
                                  {"fill what is allocated, O_DIRECT", &Doors::fill_allocated_directly},
                                  {"punch", &Doors::punch},
                                  {"allocate behind the end, zero", &Doors::allocate_and_zero},
                                  {"names", &Doors::name},
                                  {"cut", &Doors::cut},
                                  {"collapse and insert", &Doors::shift},
                                  {"allocate within", &Doors::allocate_within},
                                  {"raise the size", &Doors::raise},
                                  {"copy_file_range", &Doors::copy},
                                  {"O_SYNC", &Doors::write_synchronously},
                                  {"vectors", &Doors::write_vectors},
                                  {"contents beside attributes", &Doors::fill_inode},
                                  {"give back", &Doors::give_back},
                                  {"take the rest", &Doors::take_rest}};

void Doors::put(const std::string& name, std::uint64_t at, const std::string& bytes) {
    if (bytes.empty()) return;
    grow(name, at + bytes.size());
    files_[name].bytes.replace(at, bytes.size(), bytes);
}
void Doors::zero(const std::string& name, std::uint64_t at, std::uint64_t size) {
    std::string& bytes = files_[name].bytes;
    if (at < bytes.size()) bytes.replace(at, size, std::min(size, bytes.size() - at), '\0');
}
void Doors::grow(const std::string& name, std::uint64_t size) {
    std::string& bytes = files_[name].bytes;
    if (bytes.size() < size) bytes.resize(size);
}

std::size_t Doors::write(OpenFile& file, const std::string& name, std::uint64_t at,
                         const std::vector<std::size_t>& parts) {
    std::vector<std::string> bytes;
    std::vector<Aligned> memory;
    std::vector<ConstBytes> vector;
    memory.reserve(parts.size());
    for (const std::size_t size : parts) {
        bytes.push_back(next_pattern(size));
        vector.push_back(memory.emplace_back(bytes.back()).bytes().first(size));
    }
    const auto n = file.write(at, vector);
    no_space_or_done(n, "write");
    std::string done;
    for (const std::string& part : bytes) done += part;
    put(name, at, done.substr(0, n.value_or(0)));
    EXPECT_TRUE(full_ || n.value_or(0) == done.size()) << "there is space for all of it";
    return n.value_or(0);
}

std::size_t Doors::write_and_sync(const std::string& name, std::uint64_t at, const std::vector<std::size_t>& parts,
                                  int flags) {
    auto file = open(name, O_RDWR | flags);
    if (!file) return 0;
    const std::size_t n = write(*file, name, at, parts);
    if ((flags & O_DSYNC) == 0) ok(file->sync(false));
    return n;
}

bool Doors::set_attribute(const std::string& name, const std::string& key, const std::string& value) {
    const auto set = image_.fs->set_xattr(*node(name), key, bytes_of(value), 0, image_.who(), true);
    no_space_or_done(set, "setxattr");
    if (set) files_[name].attributes[key] = value;
    return set.has_value();
}

void Doors::prepare() {
    const std::uint64_t bs = block();
    ok(image_.fs->create(**image_.fs->root(), folder_.substr(1), S_IFDIR | 0777, 0, "", root, false));
    ok(image_.fs->set_attributes(*node("/"), {.mode = 0777}, root, false));
    for (const char* name : {"/old", "/allocated", "/sparse", "/mapped", "/append", "/punched", "/direct", "/behind",
                             "/within", "/raised", "/copied", "/synced", "/vectors", "/rest"}) {
        auto file = image_.open(folder_ + name);
        ok(image_.fs->set_attributes(file->inode(), {.mode = 0666}, root, false));
        files_[name] = {};
    }
    EXPECT_EQ(write_and_sync("/old", 0, {64 << 10}), 64u << 10);
    EXPECT_EQ(write_and_sync("/punched", 0, {96 * bs}), 96 * bs);
    for (std::uint64_t i = 0; i < sizes_.in_pieces; ++i) {
        const std::string name = fmt::format("/pieces{}", i);
        ok(image_.fs->set_attributes(image_.open(folder_ + name)->inode(), {.mode = 0666}, root, false));
        for (std::uint64_t k = 0; k < 4; ++k) write_and_sync(name, 4 * k * unit(), {3 * unit()});
    }
    if (image_.format().extents) {
        ok(open("/allocated")->fallocate(0, 0, sizes_.blocks * bs));
        grow("/allocated", sizes_.blocks * bs);
    } else {
        EXPECT_EQ(write_and_sync("/allocated", 0, {sizes_.blocks * bs}), sizes_.blocks * bs);
    }
    ok(open("/mapped")->truncate(sizes_.pages * page));
    grow("/mapped", sizes_.pages * page);
    ok(image_.fs->create(*node("/"), "dir", S_IFDIR | 0777, 0, "", root, false));
    ok(image_.fs->set_attributes(*node("/dir"), {.mode = 0777}, root, false));
    ok(image_.fs->sync());
}

void Doors::pass(unsigned turns) {
    // UEXT4_DOORS: the numbers of those to go through.
    std::vector<unsigned> list, order;
    if (const char* wanted = std::getenv("UEXT4_DOORS")) {
        for (std::istringstream in(wanted); !in.eof();) in >> list.emplace_back();
    } else {
        for (unsigned i = 0; i < std::size(all); ++i) list.push_back(i);
    }
    while (order.size() < turns) order.insert(order.end(), list.begin(), list.end());
    std::ranges::shuffle(order, random_);
    for (const unsigned i : order) {
        ++turn_;
        SCOPED_TRACE(fmt::format("turn {} in '{}', door {}: {}", turn_, folder_, i, all[i].name));
        (this->*all[i].go)();
        if (testing::Test::HasFailure()) return;
    }
}

void Doors::expect_bytes(FileSystem& in, const std::string& name, const File& file, const char* when) {
    auto opened = in.open_path(folder_ + name, O_RDONLY, 0, root);
    ASSERT_TRUE(opened) << when << " " << name << ": " << opened.error().what;
    EXPECT_EQ((*opened)->inode().size_hint(), file.bytes.size()) << when << " " << name;
    const std::string now = read(**opened, file.bytes.size() + 1);
    const auto [is, was] = std::ranges::mismatch(now, file.bytes);
    if (is == now.end() && was == file.bytes.end()) return;
    ADD_FAILURE() << when << " " << name << ": byte " << is - now.begin() << " is "
                  << (is == now.end() ? -1 : static_cast<unsigned char>(*is)) << ", not "
                  << (was == file.bytes.end() ? -1 : static_cast<unsigned char>(*was));
}

void Doors::check(FileSystem& in, const char* when) {
    for (const auto& [name, file] : files_) {
        expect_bytes(in, name, file, when);
        for (const auto& [key, value] : file.attributes) {
            auto inode = in.resolve(folder_ + name, root);
            ASSERT_TRUE(inode) << when << " " << name;
            const auto got = in.get_xattr(**inode, key, root, false);
            ASSERT_TRUE(got) << when << " " << name << " " << key << ": " << got.error().what;
            EXPECT_TRUE(std::ranges::equal(*got, bytes_of(value))) << when << " " << name << " " << key;
        }
    }
    std::set<std::string> found;
    auto dir = in.resolve(folder_ + "/dir", root);
    ASSERT_TRUE(dir) << when;
    ok(in.read_directory(**dir, 0, [&](const DirectoryEntry& entry) {
        if (entry.name != "." && entry.name != "..") found.insert(std::string(entry.name));
        return true;
    }));
    EXPECT_EQ(found, names_) << when;
}

void Doors::append() { write_and_sync("/append", size_of("/append"), {3 * block() - 100}, random(2) ? O_APPEND : 0); }
void Doors::fill_holes() { write_and_sync("/sparse", random(400) * 3 * block(), {block()}); }
void Doors::fill_holes_directly() { write_and_sync("/direct", random(400) * page * 2, {page}, O_DIRECT); }

// What has its blocks is never refused.
void Doors::overwrite() { EXPECT_EQ(write_and_sync("/old", random(15) * page, {page}), page); }
void Doors::overwrite_directly() { EXPECT_EQ(write_and_sync("/old", random(15) * page, {page}, O_DIRECT), page); }
void Doors::fill_allocated() {
    EXPECT_EQ(write_and_sync("/allocated", random(sizes_.blocks) * block(), {block()}), block());
}
void Doors::fill_allocated_directly() {
    const std::uint64_t size = 4 * block();
    EXPECT_EQ(write_and_sync("/allocated", random(sizes_.blocks / 4) * size, {size}, O_DIRECT), size);
}

// A map may stay for the doors behind: it is msync alone that makes what it holds durable then.
void Doors::store() {
    const std::size_t size = sizes_.pages * page;
    auto file = open("/mapped");
    if (!map_) map_ = Map(image_.map(*file, size), [size](char* memory) { unmap(memory, size); });
    if (!map_) return;
    store_into(*file, map_.get());
    // Anew, and known to the maps.
    if (random(3) == 0) {
        const std::uint64_t first = random(sizes_.pages), count = std::min(sizes_.pages - first, 1 + random(8));
        ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * page, count * page));
        zero("/mapped", first * page, count * page);
        for (std::uint64_t p = first; p < first + count; ++p) mapped_pages_.erase(p);
        EXPECT_TRUE(std::string(map_.get(), size) == files_["/mapped"].bytes) << "the map, punched";
        ok(file->sync(false));
    }
    if (random(3) == 0) map_.reset();
}

void Doors::store_into(OpenFile& file, char* memory) {
    const std::uint64_t inside = random(page);
    for (std::uint64_t p = random(3); p < sizes_.pages; p += 3) {
        const char byte = static_cast<char>(1 + random(250));
        const bool stored = !refused([&] { memory[p * page + inside] = byte; });
        ++(stored ? taken_stores_ : refused_stores_);
        if (stored) put("/mapped", p * page + inside, {byte});
        EXPECT_TRUE(stored || (full_ && !mapped_pages_.contains(p))) << "page " << p << ": there is a block for it";
        if (stored) mapped_pages_.insert(p);
        // A load is never refused.
        EXPECT_FALSE(refused([&] { (void)*static_cast<volatile char*>(memory + (p + 1) % sizes_.pages * page); }));
    }
    EXPECT_TRUE(std::string(memory, sizes_.pages * page) == files_["/mapped"].bytes) << "the map";
    switch (random(3)) {
        case 0: ok(file.sync(false)); break;
        case 1: ok(file.sync(true)); break;
        default: ok(FileSystem::sync_maps(memory, sizes_.pages * page, true));
    }
}

// What is in one piece, or in as many as the root of a tree has room for, so that one more wants a block.
std::string Doors::file_to_change() {
    const std::uint64_t i = random(sizes_.in_pieces + 1);
    return i == 0 ? "/punched" : fmt::format("/pieces{}", i - 1);
}

// What cannot be freed, as there is no block for the tree, reads as zeros all the same.
void Doors::punch() {
    const std::string name = file_to_change();
    const std::uint64_t at = random(size_of(name)), size = 1 + random(4 * block());
    auto file = open(name);
    if (random(2)) {
        write(*file, name, at / block() * block(), {block()});
        ok(file->sync(true));
    }
    ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size));
    zero(name, at, size);
    ok(file->sync(false));
}

void Doors::allocate_and_zero() {
    if (!image_.format().extents) return;
    const std::uint64_t at = random(400) * 3 * block();
    if (random(2)) write_and_sync("/behind", at, {block()});
    auto file = open("/behind");
    no_space_or_done(file->fallocate(FALLOC_FL_KEEP_SIZE, at, 2 * block()), "fallocate");
    const bool grows = random(2) != 0;
    const std::uint64_t from = at + random(block()), size = 1 + random(2 * block());
    const auto done = file->fallocate(FALLOC_FL_ZERO_RANGE | (grows ? 0 : FALLOC_FL_KEEP_SIZE), from, size);
    no_space_or_done(done, "zero range");
    if (done) zero("/behind", from, size);
    if (done && grows) grow("/behind", from + size);
    ok(file->sync(false));
}

void Doors::allocate_within() {
    if (!image_.format().extents) return;
    auto file = open("/within", O_RDWR | (random(2) ? O_DSYNC : 0));
    const std::uint64_t at = random(400 * 2 * block()), size = 1 + random(3 * block());
    const auto done = file->fallocate(0, at, size);
    no_space_or_done(done, "fallocate");
    if (done) {
        grow("/within", at + size);
        EXPECT_EQ(write(*file, "/within", at, {size}), size) << "it has its blocks";
    }
    ok(file->sync(false));
}

void Doors::sync_names() { ok(image_.open(folder_ + "/dir", O_RDONLY | O_DIRECTORY)->sync(false)); }

void Doors::remove_name(const std::string& name, bool directory) {
    InodeRef dir = node("/dir");
    if (names_.erase(name) == 0) return;
    ok(directory ? image_.fs->rmdir(*dir, name, image_.who(), true)
                 : image_.fs->unlink(*dir, name, image_.who(), true));
}

void Doors::name() {
    InodeRef dir = node("/dir");
    const std::string n = fmt::format("{}-{}", turn_, std::string(200, 'n'));
    const auto note = [&](const Result<void>& made, const std::string& name, const char* what) {
        no_space_or_done(made, what);
        if (made) names_.insert(name);
    };
    const auto create = [&](const std::string& name, mode_t mode, const std::string& target) -> Result<void> {
        (void)TRY(image_.fs->create(*dir, name, mode, 0, target, image_.who(), true));
        return {};
    };
    note(create(n, S_IFREG | 0666, ""), n, "create");
    note(create(n + "d", S_IFDIR | 0777, ""), n + "d", "mkdir");
    note(create(n + "s", S_IFLNK | 0777, std::string(900, 't')), n + "s", "symlink");
    note(image_.fs->link(*node("/old"), *dir, n + "l", root, true), n + "l", "link");
    const std::string value(300, static_cast<char>('a' + turn_ % 26));
    set_attribute("/old", fmt::format("user.a{}", turn_ % 3), value);
    ok(open("/old")->sync(false));
    if (names_.contains(n)) {
        const auto moved = image_.fs->rename(*dir, n, *dir, n + "r", 0, image_.who(), true);
        no_space_or_done(moved, "rename");
        if (moved) {
            names_.erase(n);
            names_.insert(n + "r");
        }
    }
    // Names go without a block.
    if (random(2)) remove_name(n + "s", false);
    if (random(2)) remove_name(n + "d", true);
    sync_names();
}

void Doors::cut() {
    auto file = open("/old");
    const std::uint64_t size = 61'500 + random(4000), whole = 64 << 10;
    ok(file->truncate(size));
    files_["/old"].bytes.resize(size);
    if (random(2)) ok(file->sync(false));
    // Blocks of the tree are promised as well, so even what was cut off need not be enough.
    write(*file, "/old", size, {whole - size});
    ok(file->sync(false));
}

void Doors::raise() {
    auto file = open("/raised");
    if (size_of("/raised") > 64 * block()) {
        const std::uint64_t size = random(8 * block());
        ok(file->truncate(size));
        files_["/raised"].bytes.resize(size);
    }
    const std::uint64_t size = size_of("/raised") + 1 + random(6 * block());
    const auto raised = file->truncate(size);
    no_space_or_done(raised, "truncate");
    if (raised) grow("/raised", size);
    if (random(2)) ok(file->sync(true));
    write(*file, "/raised", random(size), {1 + random(2 * block())});
    ok(file->sync(false));
}

// A range is cut out or inserted, or nothing has moved.
void Doors::shift() {
    if (!image_.format().extents) return;
    const std::string name = file_to_change();
    auto file = open(name);
    std::string& bytes = files_[name].bytes;
    // What is newer than on disk moves as well.
    if (random(2)) write(*file, name, random(bytes.size() / block()) * block(), {block()});
    const bool inserted = bytes.size() < 8 * unit() || (bytes.size() < 24 * unit() && random(2));
    const std::uint64_t size = (1 + random(2)) * unit(), at = random(bytes.size() / unit() - 2) * unit();
    const auto done = file->fallocate(inserted ? FALLOC_FL_INSERT_RANGE : FALLOC_FL_COLLAPSE_RANGE, at, size);
    no_space_or_done(done, inserted ? "insert" : "collapse");
    if (done && inserted) bytes.insert(at, size, '\0');
    else if (done) bytes.erase(at, size);
    if (random(2)) write(*file, name, random(bytes.size() / block()) * block(), {block()});
    ok(file->sync(false));
}

void Doors::copy() {
    auto from = open("/old"), to = open("/copied");
    const std::uint64_t at = random(60 << 10), target = random(300 * block());
    const std::uint64_t size = std::min(1 + random(5 * block()), size_of("/old") - at);
    const auto n = image_.fs->copy_range(*from, at, *to, target, size);
    no_space_or_done(n, "copy_file_range");
    EXPECT_TRUE(full_ || n.value_or(0) == size) << "there is space for all of it";
    put("/copied", target, files_["/old"].bytes.substr(at, n.value_or(0)));
    ok(to->sync(false));
}

// Nobody syncs these afterwards.
void Doors::write_synchronously() {
    const bool direct = random(3) == 0;
    const int flags = (random(2) ? O_SYNC : O_DSYNC) | (direct ? O_DIRECT : 0);
    write_and_sync("/synced", random(400) * 2 * page, {direct ? page : 1 + random(2 * page)}, flags);
}

void Doors::write_vectors() {
    if (random(2)) write_and_sync("/vectors", random(200) * 4 * page, {page, 2 * page, page}, O_DIRECT);
    else write_and_sync("/vectors", random(800 * page), {1 + random(page), 1 + random(3), 1 + random(2 * block())});
}

// So that the others meet no block at all.
void Doors::take_rest() {
    if (!full_) return;
    auto file = open("/rest");
    for (int i = 0; i < 70; ++i)
        if (write(*file, "/rest", size_of("/rest") + 2 * block(), {block()}) == 0) break;
    ok(file->sync(false));
    // A target wants a block and no tree for it: these get the last ones, those kept for root as well.
    for (int i = 0; i < 12; ++i) {
        const std::string name = fmt::format("rest{}-{}", turn_, i);
        const auto made = image_.fs->create(*node("/dir"), name, S_IFLNK | 0777, 0, std::string(900, 't'), root, false);
        no_space_or_done(made, "symlink");
        if (!made) break;
        names_.insert(name);
    }
    sync_names();
}

// That needs no block.
void Doors::give_back() {
    const char* names[] = {"/sparse", "/direct", "/append",  "/behind", "/within",
                           "/copied", "/synced", "/vectors", "/rest"};
    const char* name = names[random(std::size(names))];
    const std::uint64_t size = random(size_of(name) + 1);
    auto file = open(name);
    ok(file->truncate(size));
    files_[name].bytes.resize(size);
    ok(file->sync(false));
    if (random(2)) return;
    const std::set<std::string> there = names_;
    for (const std::string& link : there)
        if (link.starts_with("rest")) remove_name(link, false);
    sync_names();
}

// Attributes and contents that take each other's room in an inode: one of them has to leave it.
void Doors::fill_inode() {
    if (!files_.contains("/tiny") || random(2)) {
        if (files_.erase("/tiny") != 0) ok(image_.fs->unlink(*node("/"), "tiny", root, false));
        const auto made = image_.fs->create(*node("/"), "tiny", S_IFREG | 0666, 0, "", image_.who(), true);
        no_space_or_done(made, "create");
        if (!made) return;
        files_["/tiny"] = {};
    }
    auto file = open("/tiny");
    for (int i = 0; i < 3; ++i) {
        if (random(2)) write(*file, "/tiny", random(size_of("/tiny") + 1), {1 + random(60)});
        else set_attribute("/tiny", fmt::format("user.t{}", random(2)), next_pattern(1 + random(70)));
        if (random(2)) ok(file->sync(false));
    }
    ok(file->sync(false));
}

}  // namespace uext4::problems
