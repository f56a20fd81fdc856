// The table of options, the parser that goes by it, and the document that has the same rows.
#include "volume/option_table.h"

#include "volume/options.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace uext4 {
namespace {

std::string row_of_document(const MountOption& row) {
    std::string names;
    for_each_name(row, [&](std::string_view name) { names += fmt::format("{}`{}`", names.empty() ? "" : ", ", name); });
    const char* use = row.use == OptionTarget::image     ? "verbs, mount"
                      : row.use == OptionTarget::mount   ? "mount"
                      : row.use == OptionTarget::nothing ? "all; does nothing"
                                                         : "none: an error";
    return fmt::format("| {} | {} | {} | {} | {} |", names, row.unit, row.default_value, row.meaning, use);
}

TEST(OptionTable, IsTheOneOfTheDocument) {
    std::vector<std::string> expected, found;
    for (const MountOption& row : option_table()) expected.push_back(row_of_document(row));
    std::ifstream document(UEXT4_SOURCE_DIR "/docs/MOUNT.md");
    bool inside = false;
    for (std::string line; std::getline(document, line);) {
        if (line.starts_with("| option | unit |")) inside = true;
        else if (inside && !line.starts_with('|')) break;
        else if (inside && !line.starts_with("|---")) found.push_back(line);
    }
    EXPECT_EQ(expected, found);
}

TEST(OptionTable, HasEachNameOnce) {
    std::set<std::string_view> names;
    for (const MountOption& row : option_table())
        for_each_name(row, [&](std::string_view name) { EXPECT_TRUE(names.insert(name).second) << name; });
}

// A value that each option of the file system takes.
std::string with_value(std::string_view name, const MountOption& row) {
    if (!row.needs_value()) return std::string(name);
    return fmt::format("{}{}", name, name == "data=" ? "ordered" : name == "errors=" ? "panic" : "1048576");
}

TEST(OptionTable, IsWhatTheParserTakes) {
    for (const MountOption& row : option_table())
        for_each_name(row, [&](std::string_view name) {
            std::string text = with_value(name, row);
            if (name == "commit=") text = "commit=7";
            if (name.ends_with('*')) text = std::string(name.substr(0, 2)) + "anything=of";
            if (name == "sb=" || row.names.starts_with("noload")) text += ",ro";
            const Result<VolumeOptions> parsed = parse_volume_options(text);
            EXPECT_EQ(parsed.has_value(), row.use != OptionTarget::refused) << text;
            if (!parsed) {
                EXPECT_NE(parsed.error().what.find("is not offered here"), std::string::npos) << parsed.error().what;
                return;
            }
            EXPECT_EQ(!parsed->ignored.empty(), row.use == OptionTarget::mount) << text;
            EXPECT_EQ(!parsed->given_names.empty(), row.use == OptionTarget::image) << text;
            EXPECT_EQ(parse_all_options(text).has_value(), row.use != OptionTarget::mount) << text;
            if (row.use == OptionTarget::nothing || row.use == OptionTarget::mount) return;
            const std::string key(name.substr(0, name.find('=')));
            const Result<VolumeOptions> other = parse_volume_options(row.needs_value() ? key : key + "=no/value");
            ASSERT_FALSE(other) << key;
            EXPECT_NE(other.error().what.find(key), std::string::npos) << other.error().what;
        });
}

TEST(OptionTable, NamesWhatIsMeant) {
    for (const auto& [wrong, meant] : {std::pair{"noatim", "noatime"},
                                       {"cahce=5", "cache="},
                                       {"reado", ""},
                                       {"xyz", ""},
                                       {"discrad", "discard"},
                                       {"no_load", "noload"},
                                       {"comit=5", "commit="}}) {
        const Result<VolumeOptions> parsed = parse_volume_options(wrong);
        ASSERT_FALSE(parsed) << wrong;
        const std::string hint = *meant ? fmt::format("; did you mean '{}'?", meant) : "";
        EXPECT_EQ(parsed.error().what, fmt::format("option '{}' is not known{}", wrong, hint));
    }
    EXPECT_FALSE(parse_volume_options(std::string(100000, 'a')));
}

}  // namespace
}  // namespace uext4
