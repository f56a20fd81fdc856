#include "cli/verbs.h"

namespace uext4::cli {

void add_verbs(CLI::App& app) {
    add_mount_verbs(app);
    add_image_verbs(app);
    add_ls_verb(app);
    add_tree_verb(app);
    add_find_verb(app);
    add_stat_verb(app);
    add_readlink_verb(app);
    add_disk_use_verbs(app);
    add_fiemap_verb(app);
    add_cat_verb(app);
    add_content_verbs(app);
    add_truncate_verb(app);
    add_name_verbs(app);
    add_removal_verb(app);
    add_renaming_verbs(app);
    add_touch_verb(app);
    add_permission_verbs(app);
    add_flag_verbs(app);
    add_extended_attribute_verbs(app);
    add_shell_verb(app);
}

const CLI::App* find_verb(const CLI::App& app, const std::string& name) {
    const std::vector<const CLI::App*> found =
        app.get_subcommands([&](const CLI::App* verb) { return verb->get_name() == name; });
    return found.empty() ? nullptr : found.front();
}

}  // namespace uext4::cli
