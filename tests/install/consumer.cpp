// What a program that uses the C++ interface looks like: prints nothing unless something is wrong.
#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

constexpr std::string_view text = "written through <uext4/uext4.hpp>";

uext4::Result<void> use(const char* image) {
    auto fs = uext4::FileSystem::mount(image);
    if (!fs) return std::unexpected(fs.error());
    if (auto made = fs->create_directory("/folder", 0755); !made && made.error().code != EEXIST) return made;
    {
        auto file = fs->open("/folder/file", O_CREAT | O_TRUNC | O_RDWR, 0644);
        if (!file) return std::unexpected(file.error());
        const auto bytes = std::as_bytes(std::span(text));
        if (auto written = file->write(0, bytes); !written) return std::unexpected(written.error());
        if (auto synced = file->sync(); !synced) return synced;
        std::vector<std::byte> back(100);
        const auto read = file->read(0, back);
        if (!read) return std::unexpected(read.error());
        if (*read != text.size() || std::memcmp(back.data(), text.data(), text.size()) != 0)
            return std::unexpected(uext4::Error{EIO, "other bytes came back"});
        const auto extents = file->extents();
        if (!extents) return std::unexpected(extents.error());
        if (extents->size() != 1 || extents->front().offset != 0)
            return std::unexpected(uext4::Error{EIO, "one block is not one extent"});
        if (auto set = file->set_attribute("user.origin", bytes); !set) return set;
    }
    if (auto names = fs->attributes("/folder/file"); !names || names->size() != 1 || names->front() != "user.origin")
        return std::unexpected(uext4::Error{EIO, "the attribute is not listed"});
    auto directory = fs->open_directory("/folder");
    if (!directory) return std::unexpected(directory.error());
    unsigned entries = 0;
    for (auto entry = directory->next();; entry = directory->next()) {
        if (!entry) return std::unexpected(entry.error());
        if (entry->name.empty()) break;
        ++entries;
    }
    if (entries != 3) return std::unexpected(uext4::Error{EIO, "the directory has other entries"});
    if (auto missing = fs->status("/nothing"); missing || missing.error().code != ENOENT)
        return std::unexpected(uext4::Error{EIO, "a name that is not there was found"});
    return {};
}

}  // namespace

int main(int, char** arguments) {
    const auto used = use(arguments[1]);
    if (!used) std::fprintf(stderr, "%s\n", used.error().message.c_str());
    return used ? 0 : 1;
}
