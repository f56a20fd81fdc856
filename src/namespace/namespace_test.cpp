// Names on images made by mke2fs: against a model, from several threads, and judged by e2fsck.
#include "namespace/dir_layouts.h"
#include "namespace/hash_order.h"
#include "tests/fixtures/namespace_fs.h"

#include <gtest/gtest.h>
#include <linux/fs.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

namespace uext4 {
namespace {

using Model = std::map<std::string, std::uint64_t>;

std::string unusual_name(std::mt19937_64& random, std::size_t size) {
    std::string name;
    while (name.size() < size) {
        const char c = static_cast<char>(random() & 0xff);
        if (c != '\0' && c != '/') name += c;
    }
    return is_dot_or_dotdot(name) ? "x" : name;
}

Model listed(TestFs& fs, Inode& directory, std::size_t per_call = 1000000) {
    Model names;
    std::uint64_t cookie = 0;
    for (bool more = true; more;) {
        more = false;
        std::size_t seen = 0;
        const auto result = fs.names().read(directory, cookie, [&](const DirectoryEntry& entry) {
            if (seen == per_call) {
                more = true;
                return false;
            }
            ++seen;
            EXPECT_TRUE(names.emplace(std::string(entry.name), entry.inode.value).second) << "a name came twice";
            EXPECT_GT(entry.next_cookie, cookie);
            cookie = entry.next_cookie;
            return true;
        });
        EXPECT_TRUE(result) << (result ? "" : result.error().what);
        if (!result) break;
    }
    EXPECT_EQ(names.erase("."), 1u);
    EXPECT_EQ(names.erase(".."), 1u);
    return names;
}

void expect_same(TestFs& fs, Inode& directory, const Model& model) {
    EXPECT_EQ(listed(fs, directory), model);
    EXPECT_EQ(listed(fs, directory, 7), model);
    for (const auto& [name, number] : model) {
        const auto found = fs.names().lookup(directory, name, nullptr);
        ASSERT_TRUE(found) << found.error().what;
        ASSERT_EQ((*found)->number().value, number);
    }
}

struct Layout {
    const char* name;
    const char* options;
    std::size_t names;
};
std::ostream& operator<<(std::ostream& out, const Layout& layout) { return out << layout.name; }

class Layouts : public ::testing::TestWithParam<Layout> {};

TEST_P(Layouts, MatchesAModel) {
    TestFs fs(GetParam().options);
    std::mt19937_64 random(1);
    auto directory = fs.make_directory(fs.root(), "d");
    Model model;
    for (std::size_t i = 0; i < GetParam().names; ++i) {
        const std::size_t size = i % 5 == 0 ? 255 : i % 7 == 0 ? 1 + random() % 254 : 4 + random() % 20;
        const std::string name = unusual_name(random, size);
        if (model.contains(name)) continue;
        const auto made = fs.make_file(*directory, name);
        ASSERT_TRUE(made) << made.error().what;
        model[name] = (*made)->number().value;
        if (random() % 4 == 0 && !model.empty()) {
            auto victim = model.lower_bound(unusual_name(random, 3));
            if (victim == model.end()) victim = model.begin();
            const auto gone = fs.names().unlink(*directory, victim->first, fs.who(), true);
            ASSERT_TRUE(gone) << gone.error().what;
            model.erase(victim);
            fs.delete_orphans();
        }
        if (random() % 8 == 0) {
            auto moved = model.lower_bound(unusual_name(random, 3));
            if (moved == model.end()) moved = model.begin();
            const std::string to = unusual_name(random, 1 + random() % 255);
            if (moved == model.end() || model.contains(to)) continue;
            const auto renamed =
                fs.names().rename(*directory, moved->first, *directory, to, RENAME_NOREPLACE, fs.who(), true, nullptr);
            ASSERT_TRUE(renamed) << renamed.error().what;
            model[to] = moved->second;
            model.erase(moved);
        }
    }
    expect_same(fs, *directory, model);
    fs.check();
    directory.reset();
    fs.reopen();
    directory = fs.find("d");
    expect_same(fs, *directory, model);
    // Half of it goes, then all.
    bool odd = false;
    for (auto it = model.begin(); it != model.end(); odd = !odd) {
        if (odd) {
            ++it;
            continue;
        }
        ASSERT_TRUE(fs.names().unlink(*directory, it->first, fs.who(), true));
        it = model.erase(it);
    }
    fs.delete_orphans();
    expect_same(fs, *directory, model);
    EXPECT_EQ(fs.names().rmdir(*fs.root(), "d", fs.who(), true).error().code, ENOTEMPTY);
    fs.check();
    for (const auto& [name, number] : model) ASSERT_TRUE(fs.names().unlink(*directory, name, fs.who(), true));
    expect_same(fs, *directory, {});
    ASSERT_TRUE(fs.names().rmdir(*fs.root(), "d", fs.who(), true));
    directory.reset();
    fs.delete_orphans();
    fs.check();
}

TEST_P(Layouts, ReadingSurvivesChanges) {
    TestFs fs(GetParam().options);
    std::mt19937_64 random(2);
    auto directory = fs.make_directory(fs.root(), "d");
    std::set<std::string> steady, seen;
    for (int i = 0; i < 2; ++i) {
        steady.insert(fmt::format("steady{}", i));
        ASSERT_TRUE(fs.make_file(*directory, fmt::format("steady{}", i)));
    }
    // One entry at a time, while the directory grows through all its layouts and back in content.
    std::uint64_t cookie = 0;
    std::vector<std::string> passing;
    for (int step = 0;; ++step) {
        bool any = false;
        ASSERT_TRUE(fs.names().read(*directory, cookie, [&](const DirectoryEntry& entry) {
            if (any) return false;
            any = true;
            cookie = entry.next_cookie;
            if (steady.contains(std::string(entry.name))) {
                EXPECT_TRUE(seen.insert(std::string(entry.name)).second) << entry.name;
            }
            return true;
        }));
        if (!any) break;
        if (step > 60) continue;
        for (int i = 0; i < 20; ++i) {
            passing.push_back(fmt::format("passing-{}-{}", step, unusual_name(random, 30)));
            ASSERT_TRUE(fs.make_file(*directory, passing.back()));
        }
        for (int i = 0; i < 15; ++i) {
            std::swap(passing[random() % passing.size()], passing.back());
            ASSERT_TRUE(fs.names().unlink(*directory, passing.back(), fs.who(), true));
            passing.pop_back();
        }
    }
    EXPECT_EQ(seen, steady);
    fs.delete_orphans();
    fs.check();
}

// A reader who stands in the first names, which lie in the inode perhaps, goes on where they lie when there are more.
TEST_P(Layouts, ReadingGoesOnWhereTheNamesHaveMoved) {
    for (std::size_t first = 1; first <= 8; ++first) {
        TestFs fs(GetParam().options);
        auto directory = fs.make_directory(fs.root(), "d");
        std::map<std::string, int> seen;
        for (int i = 0; i < 6; ++i) {
            seen[fmt::format("n{}", i)] = 0;
            ASSERT_TRUE(fs.make_file(*directory, fmt::format("n{}", i)));
        }
        std::uint64_t cookie = 0;
        const auto read = [&](std::size_t most) {
            std::size_t n = 0;
            EXPECT_TRUE(fs.names().read(*directory, cookie, [&](const DirectoryEntry& entry) {
                if (n++ == most) return false;
                cookie = entry.next_cookie;
                if (const auto name = seen.find(std::string(entry.name)); name != seen.end()) ++name->second;
                return true;
            }));
        };
        read(first);
        for (int i = 0; i < 40; ++i) ASSERT_TRUE(fs.make_file(*directory, fmt::format("later-{}-{}", i, first)));
        read(1000);
        for (const auto& [name, times] : seen) EXPECT_EQ(times, 1) << name << ", moved behind " << first << " entries";
        fs.check();
    }
}

TEST_P(Layouts, ThreadsShareDirectories) {
    TestFs fs(GetParam().options);
    auto left = fs.make_directory(fs.root(), "left");
    auto right = fs.make_directory(fs.root(), "right");
    constexpr int threads = 4, rounds = 300;
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; ++t) {
        workers.emplace_back([&, t] {
            std::mt19937_64 random(t);
            for (int i = 0; i < rounds; ++i) {
                Inode& a = random() % 2 ? *left : *right;
                Inode& b = random() % 2 ? *left : *right;
                const std::string name = fmt::format("name{}", random() % 40);
                const std::string other = fmt::format("name{}", random() % 40);
                switch (random() % 6) {
                    case 0: (void)fs.make_file(a, name); break;
                    case 1: (void)fs.names().unlink(a, name, fs.who(), true); break;
                    case 2: (void)fs.names().rename(a, name, b, other, 0, fs.who(), true, nullptr); break;
                    case 3: (void)fs.names().rename(a, name, b, other, RENAME_EXCHANGE, fs.who(), true, nullptr); break;
                    case 4: (void)fs.make_directory_in(a, name); break;
                    default: (void)fs.names().rmdir(a, name, fs.who(), true); break;
                }
            }
        });
    }
    for (auto& worker : workers) worker.join();
    fs.delete_orphans();
    fs.check();
}

TEST_P(Layouts, OptimisedByE2fsck) {
    TestFs fs(GetParam().options);
    auto directory = fs.make_directory(fs.root(), "d");
    Model model;
    for (int i = 0; i < 3000; ++i) {
        const std::string name = fmt::format("file number {}", i);
        model[name] = (*fs.make_file(*directory, name))->number().value;
    }
    directory.reset();
    fs.optimise();
    directory = fs.find("d");
    expect_same(fs, *directory, model);
    for (int i = 0; i < 500; ++i) {
        const std::string name = fmt::format("later {}", i);
        model[name] = (*fs.make_file(*directory, name))->number().value;
    }
    expect_same(fs, *directory, model);
    directory.reset();
    fs.check();
}

INSTANTIATE_TEST_SUITE_P(Images, Layouts,
                         ::testing::Values(Layout{"default", "", 20000}, Layout{"small_blocks", "-b 1024", 6000},
                                           Layout{"no_index", "-O ^dir_index", 1500},
                                           Layout{"inline_data", "-O inline_data -I 512", 3000},
                                           Layout{"inline_linear", "-O inline_data,^dir_index -I 512", 600},
                                           Layout{"large_dir", "-O large_dir -b 1024", 20000},
                                           Layout{"no_checksums", "-O ^metadata_csum", 6000},
                                           Layout{"indirect", "-O ^extent,^64bit -b 1024", 3000},
                                           Layout{"plain", "-O ^filetype,^metadata_csum", 2000},
                                           Layout{"clusters", "-O bigalloc -C 16384 -b 4096", 3000}),
                         [](const auto& test) { return std::string(test.param.name); });

// Of two names with the same hash the last may stay in the leaf that is split, and the first go to the new one.
TEST(Collisions, NamesAreFoundOnBothSidesOfASplit) {
    TestFs fs("-b 1024");
    const InodeRef root = fs.root();
    std::vector<std::pair<std::uint32_t, std::string>> by_hash;
    for (int i = 0; i < 300000; ++i) {
        std::string name = fmt::format("{:06}{:034}", i, 0);
        const auto hash = hash_name(*root, name, default_hash_version(*root));
        ASSERT_TRUE(hash);
        by_hash.emplace_back(hash->major, std::move(name));
    }
    std::ranges::sort(by_hash);
    constexpr std::size_t names = 30;  // twenty fill a leaf
    int directories = 0;
    for (std::size_t pair = names; pair + names < by_hash.size() && directories < 200; ++pair) {
        if (by_hash[pair].first != by_hash[pair + 1].first) continue;
        for (std::size_t below = 0; below + 2 <= names; ++below) {
            const InodeRef directory = fs.make_directory(root, fmt::format("d{}", directories++));
            Model model;
            for (std::size_t i = pair - below; i < pair - below + names; ++i) {
                const auto made = fs.make_file(*directory, by_hash[i].second);
                ASSERT_TRUE(made) << made.error().what;
                model.emplace(by_hash[i].second, (*made)->number().value);
            }
            ASSERT_TRUE(is_hashed(*directory));
            ASSERT_NO_FATAL_FAILURE(expect_same(fs, *directory, model)) << "with " << below << " names below";
        }
    }
    EXPECT_GT(directories, 0) << "no two names have the same hash";
    fs.check();
}

class Semantics : public ::testing::Test {
protected:
    TestFs fs{""};
    int code(const Result<void>& result) { return result ? 0 : result.error().code; }
    template <class T>
    int code_of(const Result<T>& result) {
        return result ? 0 : result.error().code;
    }
    int rename(Inode& a, std::string_view from, Inode& b, std::string_view to, unsigned flags = 0) {
        return code(fs.names().rename(a, from, b, to, flags, fs.who(), true, nullptr));
    }
    void TearDown() override {
        fs.delete_orphans();
        fs.check();
    }
};

TEST_F(Semantics, LinkCounts) {
    auto root = fs.root();
    const auto before = root->links();
    auto d = fs.make_directory(root, "d");
    EXPECT_EQ(d->links(), 2u);
    EXPECT_EQ(root->links(), before + 1);
    auto f = *fs.make_file(*d, "f");
    EXPECT_EQ(code(fs.names().link(*f, *root, "g", fs.who(), true)), 0);
    EXPECT_EQ(f->links(), 2u);
    EXPECT_EQ(code(fs.names().link(*f, *root, "g", fs.who(), true)), EEXIST);
    EXPECT_EQ(code(fs.names().link(*d, *root, "h", fs.who(), true)), EPERM);
    EXPECT_EQ(code(fs.names().unlink(*root, "g", fs.who(), true)), 0);
    EXPECT_EQ(code(fs.names().unlink(*d, "f", fs.who(), true)), 0);
    EXPECT_EQ(f->links(), 0u);
    EXPECT_EQ(code(fs.names().link(*f, *root, "again", fs.who(), true)), ENOENT);
    EXPECT_EQ(code(fs.names().unlink(*root, "d", fs.who(), true)), EISDIR);
    EXPECT_EQ(code(fs.names().rmdir(*root, "d", fs.who(), true)), 0);
    EXPECT_EQ(root->links(), before);
    EXPECT_EQ(code_of(fs.make_file(*d, "in a removed one")), ENOENT);
}

TEST_F(Semantics, Renames) {
    auto root = fs.root();
    auto a = fs.make_directory(root, "a");
    auto b = fs.make_directory(a, "b");
    auto c = fs.make_directory(b, "c");
    auto f = *fs.make_file(*root, "f");
    auto g = *fs.make_file(*root, "g");
    EXPECT_EQ(rename(*root, "a", *c, "x"), EINVAL);
    EXPECT_EQ(rename(*root, "a", *a, "x"), EINVAL);
    EXPECT_EQ(rename(*b, "c", *root, "a"), ENOTEMPTY);
    EXPECT_EQ(rename(*b, "c", *root, "a", RENAME_EXCHANGE), EINVAL);
    EXPECT_EQ(rename(*root, "f", *root, "a"), EISDIR);
    EXPECT_EQ(rename(*root, "a", *root, "f"), ENOTDIR);
    EXPECT_EQ(rename(*root, "f", *root, "g", RENAME_NOREPLACE), EEXIST);
    EXPECT_EQ(rename(*root, "nothing", *root, "g"), ENOENT);
    EXPECT_EQ(rename(*root, "f", *root, "nothing", RENAME_EXCHANGE), ENOENT);
    EXPECT_EQ(rename(*root, "f", *a, "c2"), 0);
    EXPECT_EQ(rename(*b, "c", *root, "c"), 0);
    EXPECT_EQ(fs.names().parent_of(*c)->value, root->number().value);
    EXPECT_EQ(b->links(), 2u);
    EXPECT_EQ(rename(*root, "c", *a, "b"), 0);  // onto an empty directory
    EXPECT_EQ(b->links(), 0u);
    EXPECT_EQ(rename(*a, "c2", *a, "b", RENAME_EXCHANGE), 0);
    EXPECT_EQ((*fs.names().lookup(*a, "b", nullptr))->number(), f->number());
    EXPECT_EQ(rename(*a, "b", *root, "g"), 0);
    EXPECT_EQ(g->links(), 0u);
    EXPECT_EQ(rename(*root, "g", *a, "w", RENAME_WHITEOUT), 0);
    auto whiteout = *fs.names().lookup(*root, "g", nullptr);
    EXPECT_TRUE(S_ISCHR(whiteout->mode()));
    EXPECT_EQ(whiteout->device_number(), 0u);
    EXPECT_EQ(code(fs.names().link(*f, *root, "same", fs.who(), true)), 0);
    EXPECT_EQ(rename(*root, "same", *a, "w"), 0);  // two names of one file: nothing happens
    EXPECT_EQ(f->links(), 2u);
}

TEST_F(Semantics, BeforeReplace) {
    auto root = fs.root();
    auto f = *fs.make_file(*root, "f");
    ASSERT_TRUE(fs.make_file(*root, "g"));
    int calls = 0;
    const auto flush = [&](Inode& source) -> Result<void> {
        ++calls;
        EXPECT_EQ(source.number(), f->number());
        return {};
    };
    const auto result = fs.names().rename(*root, "f", *root, "g", 0, fs.who(), true, flush);
    EXPECT_TRUE(result);
    EXPECT_EQ(calls, 1);
}

TEST_F(Semantics, Symlinks) {
    auto root = fs.root();
    for (std::size_t size : {1, 59, 60, 61, 1000, 4095}) {
        const std::string target(size, 't');
        const std::string name = fmt::format("l{}", size);
        auto link = fs.make_symlink(*root, name, target);
        ASSERT_TRUE(link) << link.error().what;
        EXPECT_EQ(*fs.names().read_link(**link), target);
    }
    EXPECT_EQ(code_of(fs.make_symlink(*root, "long", std::string(4096, 't'))), ENAMETOOLONG);
    EXPECT_EQ(code_of(fs.make_symlink(*root, "empty", "")), ENOENT);
    root.reset();
    fs.reopen();
    root = fs.root();
    EXPECT_EQ(*fs.names().read_link(**fs.names().lookup(*root, "l60", nullptr)), std::string(60, 't'));
    EXPECT_EQ(code(fs.names().unlink(*root, "l4095", fs.who(), true)), 0);
}

TEST_F(Semantics, UnnamedFiles) {
    auto root = fs.root();
    auto file = fs.make_unnamed(*root);
    ASSERT_TRUE(file);
    EXPECT_EQ((*file)->links(), 0u);
    EXPECT_EQ(code(fs.names().link(**file, *root, "named", fs.who(), true)), 0);
    EXPECT_EQ((*file)->links(), 1u);
    // From now on it is one like any other: without a name it has none for good.
    EXPECT_EQ(code(fs.names().unlink(*root, "named", fs.who(), true)), 0);
    EXPECT_EQ(code(fs.names().link(**file, *root, "again", fs.who(), true)), ENOENT);
    auto other = fs.make_unnamed(*root);
    ASSERT_TRUE(other);
}

// Who knows an inode by its number and its generation does not meet the next one of that number.
TEST_F(Semantics, Generations) {
    auto root = fs.root();
    std::set<std::uint32_t> generations;
    for (int i = 0; i < 20; ++i) {
        auto file = fs.make_file(*root, "f");
        ASSERT_TRUE(file);
        generations.insert((*file)->generation());
        EXPECT_EQ(code(fs.names().unlink(*root, "f", fs.who(), true)), 0);
    }
    EXPECT_GE(generations.size(), 19u);  // they are drawn
}

TEST_F(Semantics, Names) {
    auto root = fs.root();
    EXPECT_EQ(code_of(fs.make_file(*root, std::string(256, 'n'))), ENAMETOOLONG);
    EXPECT_EQ(code_of(fs.make_file(*root, "")), ENOENT);
    EXPECT_EQ(code_of(fs.make_file(*root, "a/b")), EINVAL);
    EXPECT_EQ(code_of(fs.make_file(*root, ".")), EEXIST);
    EXPECT_EQ(code_of(fs.names().lookup(*root, "nothing", nullptr)), ENOENT);
    EXPECT_EQ((*fs.names().lookup(*root, "..", nullptr))->number().value, 2u);
    EXPECT_EQ(code(fs.names().rmdir(*root, ".", fs.who(), true)), EINVAL);
    EXPECT_EQ(code(fs.names().rmdir(*root, "..", fs.who(), true)), ENOTEMPTY);
    auto file = *fs.make_file(*root, "f");
    EXPECT_EQ(code_of(fs.names().lookup(*file, "x", nullptr)), ENOTDIR);
    EXPECT_EQ(code(fs.names().rmdir(*root, "f", fs.who(), true)), ENOTDIR);
}

TEST_F(Semantics, ManySubdirectories) {
    auto d = fs.make_directory(fs.root(), "d");
    auto other = fs.make_directory(fs.root(), "other");
    {
        Handle handle = *fs.context().journal.start(4);
        MutexLock map(d->map_lock);
        d->set_links(names::link_max);
        ASSERT_TRUE(d->store(handle));
    }
    // Only with an index the count may give up: e2fsck wants it right elsewhere.
    ASSERT_FALSE(d->has_flag(format::inode_flag::index));
    EXPECT_EQ(code_of(fs.make_directory_in(*d, "one more")), EMLINK);
    EXPECT_EQ(rename(*fs.root(), "other", *d, "one more"), EMLINK);
    for (int n = 0; !d->has_flag(format::inode_flag::index); ++n)
        ASSERT_TRUE(fs.make_file(*d, fmt::format("a name that takes some room {}", n)));
    auto sub = fs.make_directory(d, "one more");
    EXPECT_EQ(d->links(), 1u);
    sub.reset();
    EXPECT_EQ(code(fs.names().rmdir(*d, "one more", fs.who(), true)), 0);
    EXPECT_EQ(d->links(), 1u);
    // So it stays, whatever comes and goes.
    fs.make_directory(d, "and more").reset();
    EXPECT_EQ(d->links(), 1u);
    EXPECT_EQ(code(fs.names().rmdir(*d, "and more", fs.who(), true)), 0);
    EXPECT_EQ(d->links(), 1u);
    Handle handle = *fs.context().journal.start(4);
    MutexLock map(d->map_lock);
    d->set_links(2);
    ASSERT_TRUE(d->store(handle));
}

}  // namespace
}  // namespace uext4
