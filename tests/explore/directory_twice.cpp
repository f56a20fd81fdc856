// A damaged image: one directory names another that lies beside it, so that each is above the other for somebody.
#include "tests/explore/scenario.h"

#include <sys/stat.h>

#include <cstring>

namespace uext4::explore::directory_twice {
namespace {

const Credentials root = Credentials::root();
constexpr std::string_view name = "named-twice";

// The entry of that name gets another directory's number, wherever its block is on the device.
void name_again(World& w, std::uint32_t number) {
    std::vector<std::byte> bytes(w.device().size());
    w.expect(w.device().read(0, bytes), "reading the image");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    constexpr std::size_t before_name = 8, type_at = 7;
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(name, at)) != text.npos; ++at, ++found) {
        std::memcpy(&bytes[at - before_name], &number, sizeof number);
        bytes[at - before_name + type_at] = std::byte{2};  // a directory
    }
    w.require(found > 0, "the entry is not on the device");
    w.expect(w.device().write(0, bytes), "writing the image");
}

void prepare(World& w) {
    auto top = w.expect(w.fs().root(), "root");
    auto first = w.expect(w.fs().create(*top, "first", S_IFDIR | 0755, 0, "", root, false), "mkdir");
    auto second = w.expect(w.fs().create(*top, "second", S_IFDIR | 0755, 0, "", root, false), "mkdir");
    for (const char* file : {"stays", "moves"})
        w.expect(w.fs().create(*first, file, S_IFREG | 0644, 0, "", root, false), "create");
    w.expect(w.fs().create(*second, std::string(name), S_IFREG | 0644, 0, "", root, false), "create");
    w.expect(w.fs().create(*second, "empty", S_IFDIR | 0755, 0, "", root, false), "mkdir");
}

void run(World& w, const std::function<Result<void>(Inode& second)>& take) {
    const auto number = w.expect(w.fs().resolve("/first", root), "resolve")->number().value;
    w.unmount();
    name_again(w, static_cast<std::uint32_t>(number));
    w.mount();
    {
        auto first = w.expect(w.fs().resolve("/first", root), "resolve");
        auto second = w.expect(w.fs().resolve("/second", root), "resolve");
        w.run({{"take", [&] { w.allow(take(*second), ENOTEMPTY, "what has a file in it is not empty"); }},
               {"move", [&] { w.expect(w.fs().rename(*first, "moves", *second, "moved", 0, root, false), "rename"); }},
               {"look", [&] { (void)w.names("/first"); }}});
    }
    w.require(w.fs().resolve("/first/stays", root).has_value(), "what stayed");
    w.require(w.fs().resolve("/second/moved", root).has_value(), "what moved");
    w.reopen();
}

void run_rmdir(World& w) {
    run(w, [&](Inode& second) { return w.fs().rmdir(second, std::string(name), root, false); });
}

void run_rename(World& w) {
    run(w, [&](Inode& second) { return w.fs().rename(second, "empty", second, std::string(name), 0, root, false); });
}

constexpr const char* format = "-t ext4 -b 1024 -N 64 -O ^metadata_csum -J size=1 8M";

const Register removed({"twice-rmdir",
                        "a damaged image names a directory twice: a removal and a rename wait for each other", format,
                        "noatime", prepare, run_rmdir});
const Register replaced({"twice-rename", "a damaged image names a directory twice: two renames wait for each other",
                         format, "noatime", prepare, run_rename});

}  // namespace
}  // namespace uext4::explore::directory_twice
