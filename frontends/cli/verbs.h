// The verbs, by file.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

namespace uext4::cli {

void add_ls_verb(CLI::App& app);
void add_tree_verb(CLI::App& app);
void add_find_verb(CLI::App& app);
void add_stat_verb(CLI::App& app);
void add_readlink_verb(CLI::App& app);
void add_disk_use_verbs(CLI::App& app);
void add_fiemap_verb(CLI::App& app);
void add_cat_verb(CLI::App& app);
void add_touch_verb(CLI::App& app);
void add_content_verbs(CLI::App& app);
void add_truncate_verb(CLI::App& app);
void add_name_verbs(CLI::App& app);
void add_removal_verb(CLI::App& app);
void add_renaming_verbs(CLI::App& app);
void add_permission_verbs(CLI::App& app);
void add_flag_verbs(CLI::App& app);
void add_extended_attribute_verbs(CLI::App& app);
void add_image_verbs(CLI::App& app);
void add_mount_verbs(CLI::App& app);
void add_shell_verb(CLI::App& app);

// All of them.
void add_verbs(CLI::App& app);
// Null where there is no such verb.
const CLI::App* find_verb(const CLI::App& app, const std::string& name);

}  // namespace uext4::cli
