// info, label, check, replay, journal.
#include "base/counted.h"
#include "check/check.h"
#include "cli/session.h"
#include "cli/times.h"
#include "cli/verbs.h"
#include "inode/superblock.h"
#include "journal/log_reader.h"
#include "volume/journal_location.h"

#include <algorithm>

namespace uext4::cli {

namespace {

std::string uuid_text(const std::uint8_t* u) {
    std::string out;
    for (int i = 0; i < 16; ++i) out += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    return out;
}

struct ImageArguments {
    std::string image, text;
    bool set = false;
    CommonOptions o;
};

void info(const ImageArguments& st) {
    const Place p = image_place(st.image);
    Session s(p.image, false, st.o, Session::Use::alone);  // while it is mounted, it says so
    {
        s.resolve(p.path);
        const format::SuperBlock super = value_or_fail(read_superblock(s.fs().volume().fs()), p.image);
        const format::Geometry& g = s.fs().volume().geometry();
        const SpaceCounts counts = s.fs().volume().counts();
        using format::FeatureSet;
        Json j;
        set_text(j, "image", p.image);
        j["uuid"] = uuid_text(super.uuid);
        set_text(j, "label", value_or_fail(s.fs().label(), p.image));
        j.update({{"block_size", g.block_size},
                  {"blocks", g.blocks_count},
                  {"free_blocks", counts.free_blocks},
                  {"reserved_blocks", g.reserved_blocks},
                  {"inodes", g.inodes_count},
                  {"free_inodes", counts.free_inodes},
                  {"inode_size", g.inode_size},
                  {"groups", g.group_count},
                  {"cluster_blocks", g.cluster_ratio},
                  {"features_compat", format::feature_names(FeatureSet::compat, g.compat)},
                  {"features_incompat", format::feature_names(FeatureSet::incompat, super.feature_incompat)},
                  {"features_ro_compat", format::feature_names(FeatureSet::ro_compat, super.feature_ro_compat)},
                  {"state", super.state & format::super_state::errors       ? "errors"
                            : super.has_incompat(format::incompat::recover) ? "needs recovery"
                                                                            : "clean"},
                  {"mount_count", super.mnt_count.get()},
                  {"journal_inode", g.journal_inode}});
        if (st.o.json) print(j);
        else print_members(j, 20);
    }
    s.close();
}

void replay(const ImageArguments& st) {
    Session s(st.image, true, st.o, Session::Use::alone);
    const RecoveryReport r = s.fs().volume().recovery();
    const std::uint64_t orphans = s.fs().volume().orphans_processed();
    s.close();
    const Json j{{"journal_needed_replay", r.needed},
                 {"transactions", r.transactions},
                 {"fast_commits", r.fast_commits.commits},
                 {"blocks", r.blocks},
                 {"revoked", r.revoked},
                 {"orphans", orphans}};
    if (st.o.json) print(j);
    else if (!r.needed && orphans == 0) fmt::print("nothing to replay\n");
    else
        fmt::print("replayed {}, {}, {}; finished {}\n", counted(r.transactions, "transaction"),
                   counted(r.blocks, "block"), counted(r.fast_commits.commits, "fast commit"),
                   counted(orphans, "orphan"));
}

Json describe(const FastCommitOperation& o) {
    Json j{{"log_block", o.log_block},
           {"offset", o.offset},
           {"type", fast_commit_tag_name(o.type)},
           {"inode", o.inode.value}};
    switch (o.type) {
        case format::fc_add_range:
            j["unwritten"] = o.unwritten;
            j["physical"] = o.physical.value;
            [[fallthrough]];
        case format::fc_delete_range:
            j["logical"] = o.logical.value;
            j["count"] = o.count;
            break;
        case format::fc_inode: j["bytes"] = o.contents.size(); break;
        default: j["parent"] = o.parent.value; set_text(j, "name", o.name);
    }
    return j;
}

// What waits behind the ring to be replayed.
Json list_fast_commits(const LogReader& log, std::uint32_t tid, std::uint32_t block_size, const ImageArguments& st) {
    const FastCommits found = value_or_fail(read_fast_commits(log, tid, block_size), st.image);
    Json operations = Json::array();
    for (const FastCommitOperation& o : found.operations) {
        Json j = describe(o);
        if (!st.o.json) fmt::print("{:>8} {:>10} fast       {}\n", o.log_block, tid, line_of(j));
        operations.push_back(std::move(j));
    }
    return {{"commits", found.commits}, {"operations", std::move(operations)}};
}

void journal(const ImageArguments& st) {
    CommonOptions raw = st.o;
    raw.no_replay = true;
    Session s(st.image, false, raw, Session::Use::alone);
    {
        Volume& volume = s.fs().volume();
        if (!volume.geometry().has_compat(format::compat::has_journal))
            fail_with(exit_negative, st.image + ": no journal");
        const std::vector<BlockRun> runs = value_or_fail(locate_journal(volume.inodes(), volume.geometry()), st.image);
        const LogReader log =
            value_or_fail(LogReader::open(volume.fs().device, volume.geometry().block_size, runs), st.image);
        const format::JournalLayout& l = log.layout();
        Json j{{"blocks", l.length},
               {"start", l.start},
               {"sequence", l.sequence},
               {"features", fmt::format("{:#x}", l.incompat)}};
        if (!st.o.json)
            fmt::print("{} blocks, start {}, sequence {}, incompatible features {:#x}\n", l.length, l.start, l.sequence,
                       l.incompat);
        Json records = Json::array();
        std::uint32_t end = l.sequence;
        value_or_fail(log.walk([&](const LogRecord& r) -> Result<bool> {
            const char* type = r.type == format::journal::descriptor ? "descriptor"
                               : r.type == format::journal::commit   ? "commit"
                               : r.type == format::journal::revoke   ? "revoke"
                                                                     : "damaged";
            Json record{{"log_block", r.log_block}, {"sequence", r.sequence}, {"type", type}};
            Json blocks = Json::array();
            for (const LogTag& tag : r.tags) blocks.push_back(tag.block.value);
            for (BlockNr b : r.revoked) blocks.push_back(b.value);
            if (!blocks.empty()) record["blocks"] = blocks;
            if (r.type == format::journal::commit) end = r.sequence + 1;
            if (r.type == format::journal::commit)
                record["time"] = iso_time({static_cast<std::int64_t>(r.commit_seconds), 0});
            if (!st.o.json)
                fmt::print("{:>8} {:>10} {:<10} {}\n", r.log_block, r.sequence, type,
                           blocks.empty() ? "" : blocks.dump());
            records.push_back(std::move(record));
            return true;
        }),
                      st.image);
        j["records"] = std::move(records);
        j["fast_commits"] = l.start ? list_fast_commits(log, end, l.block_size, st)
                                    : Json{{"commits", 0}, {"operations", Json::array()}};
        if (st.o.json) print(j);
    }
    s.close();
}

// An image that is too damaged to be opened has the problem that opening named.
CheckReport check_or_say_why(const ImageArguments& st) {
    try {
        Session s(st.image, false, st.o, Session::Use::alone);
        CheckReport report = value_or_fail(check(s.fs().volume()), st.image);
        s.close();
        return report;
    } catch (const Failure& failure) {
        if (!failure.damaged) throw;
        const std::string what = failure.what.substr(std::min(st.image.size() + 2, failure.what.size()));
        const std::size_t colon = what.find(": ");
        CheckReport report;
        if (colon == std::string::npos) report.problems.push_back({"image", what});
        else report.problems.push_back({what.substr(0, colon), what.substr(colon + 2)});
        return report;
    }
}

void check_image(const ImageArguments& st) {
    const CheckReport report = check_or_say_why(st);
    Json j{{"clean", report.clean()},
           {"inodes", report.inodes},
           {"directories", report.directories},
           {"used_clusters", report.used_clusters},
           {"problems", Json::array()}};
    for (const CheckProblem& p : report.problems) {
        Json problem;
        set_text(problem, "where", p.structure);
        set_text(problem, "what", p.message);
        if (!p.path.empty()) set_text(problem, "path", p.path);
        j["problems"].push_back(std::move(problem));
        if (st.o.json) continue;
        if (p.path.empty()) fmt::print("{}: {}\n", printable(p.structure), printable(p.message));
        else fmt::print("{}: {}: {}\n", printable(p.path), printable(p.structure), printable(p.message));
    }
    if (st.o.json) print(j);
    else
        fmt::print("{}: {}, {}, {} used: {}\n", st.image, counted(report.inodes, "inode"),
                   counted(report.directories, "directory", "directories"), counted(report.used_clusters, "cluster"),
                   report.clean() ? "clean" : counted(report.problems.size(), "problem"));
    if (report.clean()) return;
    if (!st.o.json)
        fmt::print("To repair it: save what can be read (uext4 cp -a {}:/. DIR), then run e2fsck -f on it.\n",
                   st.image);
    fail_with(exit_negative, "");
}

}  // namespace

void add_image_verbs(CLI::App& app) {
    auto verb = [&](const char* name, const char* help, const char* example, bool reads, bool lists) {
        auto s = std::make_shared<ImageArguments>();
        CLI::App* v = app.add_subcommand(name, help);
        v->footer(std::string("Example: ") + example);
        v->add_option("IMAGE", s->image, "The image")->required();
        add_common(v, s->o, reads, lists);
        return std::pair(v, s);
    };
    {
        auto [v, s] = verb("info", "Shows what the superblock says", "uext4 info --json disk.img", true, true);
        v->callback([s] { info(*s); });
    }
    {
        auto [v, s] = verb("check", "Compares all structures with each other", "uext4 check disk.img", true, true);
        v->callback([s] {
            s->image = whole_image(s->image);
            check_image(*s);
        });
    }
    {
        auto [v, s] = verb("replay", "Recovers the journal and finishes orphans", "uext4 replay disk.img", false, true);
        v->callback([s] {
            s->image = whole_image(s->image);
            replay(*s);
        });
    }
    {
        auto [v, s] = verb("journal", "Shows what is in the journal", "uext4 journal disk.img", false, true);
        v->callback([s] {
            s->image = whole_image(s->image);
            journal(*s);
        });
    }
    {
        auto [v, s] = verb("label", "Shows or sets the label", "uext4 label disk.img rootfs", true, false);
        v->add_option("LABEL", s->text, "At most 16 bytes")->each([s](const std::string&) { s->set = true; });
        v->callback([s] {
            if (s->text.size() > sizeof(format::SuperBlock::volume_name))
                fail_with(exit_failure, fmt::format("'{}': a label has at most {} bytes", s->text,
                                                    sizeof(format::SuperBlock::volume_name)));
            s->image = whole_image(s->image);
            Session session(s->image, s->set, s->o);
            if (s->set) value_or_fail(session.fs().set_label(s->text), s->image);
            else fmt::print("{}\n", printable(value_or_fail(session.fs().label(), s->image)));
            session.close();
        });
    }
}

}  // namespace uext4::cli
