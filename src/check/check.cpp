// The order of the passes, and the superblock.
#include "check/checker.h"
#include "inode/superblock.h"

#include <algorithm>

namespace uext4 {

Result<CheckReport> Checker::run() {
    check_supers();
    mark_system();
    for (std::uint32_t n = 0; n < g_.group_count; ++n) check_group_inodes(GroupNr(n));
    check_references();
    check_journal();
    check_mmp();
    check_orphan_file();
    check_quotas();
    walk();
    check_links();
    check_bitmaps();
    name_paths();
    return std::move(report_);
}

// Many errors name the structure already.
void Checker::add_problem(const std::string& where, std::string what) {
    if (report_.problems.size() + 1 == max_problems) {
        report_.problems.push_back({"check", "more problems than are listed"});
        return;
    }
    if (what.starts_with(where + ": ")) what.erase(0, where.size() + 2);
    report_.problems.push_back({where, std::move(what)});
}

void Checker::new_problem(const std::string& where, std::string what) {
    if (what.starts_with(where + ": ")) what.erase(0, where.size() + 2);
    if (std::ranges::none_of(report_.problems,
                             [&](const CheckProblem& p) { return p.structure == where && p.message == what; }))
        add_problem(where, std::move(what));
}

void Checker::check_supers() {
    if (Result<format::SuperBlock> used = read_superblock(fs_)) super_ = *used;
    else problem("superblock", "{}", used.error().what);
    if (g_.reserved_blocks > g_.blocks_count / 2)
        problem("superblock", "s_r_blocks_count is {}, more than half of {}", g_.reserved_blocks, g_.blocks_count);
    const bool has_journal = super_.has_compat(format::compat::has_journal);
    if (!has_journal && super_.journal_inum != 0)
        problem("superblock", "s_journal_inum is {}, but it lacks has_journal", super_.journal_inum.get());
    if (has_journal && super_.journal_inum == 0 && super_.journal_dev == 0)
        problem("superblock", "s_journal_inum is 0, and so is s_journal_dev");
    if (has_journal && super_.journal_inum != 0 &&
        std::ranges::any_of(super_.journal_uuid, [](auto byte) { return byte != decltype(byte){}; }))
        problem("superblock", "s_journal_uuid names another device, but the journal is inode {}",
                super_.journal_inum.get());
    for (const std::string& doubt : volume_.orphans().skipped())
        problem(doubt.starts_with("orphan file") ? "orphan file" : "orphan list", "{}", doubt);
    if (!volume_.options().backup_super) return;
    // The one that is used was good enough to open it. Where that is a backup, what about the first?
    if (const std::string damage = volume_.primary_superblock_problem(); !damage.empty())
        problem("superblock", "{}", damage);
}

Result<CheckReport> check(Volume& volume) { return Checker(volume).run(); }

}  // namespace uext4
