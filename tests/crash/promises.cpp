#include "tests/crash/promises.h"

#include <linux/falloc.h>

#include <algorithm>
#include <set>

namespace uext4::crash {

namespace {

using Names = std::set<std::pair<std::uint64_t, std::string>>;  // parent, name

std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

std::uint64_t inode_at(const Tree& tree, const std::string& path) {
    const auto found = tree.find(path);
    return found == tree.end() ? 0 : found->second.inode;
}

Names names_of(const Tree& tree, std::uint64_t inode) {
    Names out;
    for (const auto& [path, node] : tree)
        if (node.inode == inode) out.emplace(inode_at(tree, parent_of(path)), path.substr(path.rfind('/') + 1));
    return out;
}

std::map<std::string, std::uint64_t> entries_of(const Tree& tree, std::uint64_t directory) {
    std::map<std::string, std::uint64_t> out;
    for (const auto& [path, node] : tree)
        if (inode_at(tree, parent_of(path)) == directory) out.emplace(path.substr(path.rfind('/') + 1), node.inode);
    return out;
}

const Node* node_of(const Tree& tree, std::uint64_t inode) {
    for (const auto& [path, node] : tree)
        if (node.inode == inode) return &node;
    return nullptr;
}

bool zeros(const std::string& bytes, std::size_t from, std::size_t to) {
    return std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                       bytes.begin() + static_cast<std::ptrdiff_t>(to), [](char c) { return c == 0; });
}

constexpr std::size_t least_block = 1024;

// [at, at + length) is removed first, from its end on; then each block behind it moves down, until everything before
// `moved` has.
bool fits_half_collapse(const std::string& before, std::size_t at, std::size_t length, const std::string& got) {
    const std::size_t size = before.size(), end = at + length;
    if (got.size() != size || got.compare(0, at, before, 0, at) != 0) return false;
    if (got.compare(end, size, before, end, size) == 0) {
        std::size_t removed = end;
        while (removed > at && zeros(got, removed - least_block, removed)) removed -= least_block;
        return got.compare(at, removed - at, before, at, removed - at) == 0;
    }
    std::size_t moved = end;
    while (moved < size && got[moved - length] == before[moved]) ++moved;
    // With the last block goes the size.
    for (moved = round_down(std::min(moved, size - 1), least_block); moved > end; moved -= least_block)
        if (got.compare(moved, size, before, moved, size) == 0 && zeros(got, moved - length, moved)) return true;
    return false;
}

// The file grows first, then each block moves up, until everything from `moved` on has.
bool fits_half_insert(const std::string& before, std::size_t at, std::size_t length, const std::string& got) {
    const std::size_t size = before.size();
    if (got.size() != size + length) return false;
    std::size_t moved = 0;
    while (moved < size && got[moved] == before[moved]) ++moved;
    moved = moved == size ? round_up(moved, least_block) : round_down(moved, least_block);
    for (; moved >= at; moved -= least_block) {
        const std::size_t from = std::min(moved, size), hole_end = std::min(moved + length, got.size());
        if (zeros(got, from, hole_end) && got.compare(hole_end, size, before, from, size) == 0) return true;
        if (moved == 0) break;
    }
    return false;
}

class Promises {
public:
    Promises(const Recording& recording, std::size_t acked, std::size_t cut) : r_(recording) {
        for (std::size_t i = 0; i < r_.steps.size(); ++i) {
            const Step& step = r_.steps[i];
            // What a sync has answered for began before it, also where neither made a request of the device.
            const bool answered = step.end <= acked && step.done && step.operation.persists();
            if (step.begin < cut || answered) high_ = i + 1;
            if (answered) note_sync(i);
        }
    }

    std::string judge(const Tree& got) const {
        std::string closest, others;
        for (std::size_t k = high_ + 1; k-- > low_;) {
            std::string wrong = difference(r_.trees[k], got, false, !r_.other_numbers);
            const bool names_fit = wrong.empty();
            if (names_fit) wrong = judge_contents(k, got);
            if (names_fit && wrong.empty()) wrong = judge_times(k, got);
            if (wrong.empty()) return {};
            (names_fit ? closest : others) += fmt::format("  after step {}: {}\n", k, wrong);
        }
        if (closest.empty()) closest = others;
        return fmt::format("no state between steps {} (synced) and {} (begun) fits:\n{}", low_, high_, closest);
    }

private:
    // Step `i` is a sync that was acknowledged.
    void note_sync(std::size_t i) {
        const Operation& o = r_.steps[i].operation;
        const std::size_t now = i + 1;  // trees[now] is what it made durable
        if (o.kind == Operation::Kind::Sync) {
            low_ = all_ = now;
            return;
        }
        const Tree& tree = r_.trees[now];
        const std::uint64_t inode = inode_at(tree, o.path == "/" ? "" : o.path);
        if (inode == 0) return;
        synced_[r_.files[now].at(inode)] = now;
        if (!o.persists_data_alone()) times_synced_[r_.files[now].at(inode)] = now;
        low_ = std::max(low_, last_change(now, inode, o.persists_data_alone()));
    }

    // The newest tree up to `now` that a sync of this file makes durable; with `data` alone, the one that has it.
    std::size_t last_change(std::size_t now, std::uint64_t inode, bool data) const {
        for (std::size_t k = now; k > 0; --k) {
            const Tree &after = r_.trees[k], &before = r_.trees[k - 1];
            const Node *a = node_of(after, inode), *b = node_of(before, inode);
            if (!b || r_.files[k].at(inode) != r_.files[k - 1].at(inode)) return k;
            if (r_.journals_data() && a->contents != b->contents) return k;
            if (data) continue;
            if (a->links != b->links || !other_attributes(*a, *b).empty()) return k;
            if (names_of(after, inode) != names_of(before, inode)) return k;
            if (S_ISDIR(a->mode) && entries_of(after, inode) != entries_of(before, inode)) return k;
        }
        return 0;
    }

    // The names are those of trees[k].
    std::string judge_contents(std::size_t k, const Tree& got) const {
        for (const auto& [path, node] : r_.trees[k]) {
            if (!S_ISREG(node.mode)) continue;
            std::string wrong = "contents that no commit could show";
            for (const Versions& may : versions(k, node.inode)) {
                if (may.empty()) continue;
                wrong = misfit(may, got.at(path).contents);
                if (wrong.empty()) break;
            }
            if (!wrong.empty() && !is_half_shifted(k, node.inode, got.at(path).contents)) return path + ": " + wrong;
        }
        return {};
    }

    // Of a collapse or insert that takes several transactions a cut may leave what only the first ones did. Everything
    // before it was on the device then, and nothing behind it is there.
    bool is_half_shifted(std::size_t k, std::uint64_t inode, const std::string& got) const {
        if (!r_.workload.in_several_transactions) return false;
        const unsigned file = r_.files[k].at(inode);
        const auto synced = synced_.find(file);
        const std::size_t oldest = std::max(all_, synced == synced_.end() ? std::size_t{0} : synced->second);
        for (const std::size_t i : {k - 1, k}) {
            if (i >= high_ || i + 1 <= oldest || !has_file(i, inode, file)) continue;
            const Operation& o = r_.steps[i].operation;
            if (!is_shift(i) || r_.steps[i].in_one_transaction() || inode_at(r_.trees[i], o.path) != inode) continue;
            const auto fits = o.mode == FALLOC_FL_COLLAPSE_RANGE ? fits_half_collapse : fits_half_insert;
            if (fits(node_of(r_.trees[i], inode)->contents, o.offset, o.length, got)) return true;
        }
        return false;
    }

    // The names are those of trees[k], and so are the times of all but regular files. Those are stored with any change
    // of the inode, or by a sync: both come from one state, no older than that. What is changed by several threads may
    // have times that no tree shows, as the clock goes on during a step.
    std::string judge_times(std::size_t k, const Tree& got) const {
        if (!r_.directory.empty()) return {};
        for (const auto& [path, node] : r_.trees[k]) {
            const std::string wrong = times_misfit(k, node, got.at(path));
            if (!wrong.empty()) return (path.empty() ? "/" : path) + ": " + wrong;
        }
        return {};
    }

    std::string times_misfit(std::size_t k, const Node& node, const Node& got) const {
        std::string wrong = other_times_of_change(node, got);
        if (!S_ISREG(node.mode)) return wrong;
        const unsigned file = r_.files[k].at(node.inode);
        const auto synced = times_synced_.find(file);
        const std::size_t oldest = std::max(all_, synced == times_synced_.end() ? std::size_t{0} : synced->second);
        if (wrong.empty() && k >= oldest) return {};
        if (wrong.empty()) wrong = other_times_of_change(*node_of(r_.trees[oldest], node.inode), got);
        for (std::size_t j = oldest; j <= high_; ++j)
            if (has_file(j, node.inode, file) && other_times_of_change(*node_of(r_.trees[j], node.inode), got).empty())
                return {};
        return wrong + fmt::format(", nor any that it had after step {} (synced) or later", oldest);
    }

    using Versions = std::vector<const std::string*>;

    // What a file of trees[k] may hold: a mixture of one of these lists. Its data goes ahead of its names or after
    // them, but never back before a sync; in data=journal it goes with them, and only a newest step that a commit came
    // into may be cut. What replaces the contents is seen whole or not at all, so it begins another list; so does what
    // moves them along, as the data before it is on the device, and that behind it waits for its commit.
    std::vector<Versions> versions(std::size_t k, std::uint64_t inode) const {
        static const std::string empty;
        const unsigned file = r_.files[k].at(inode);
        const auto synced = synced_.find(file);
        std::size_t oldest = std::max(all_, synced == synced_.end() ? std::size_t{0} : synced->second), newest = high_;
        oldest = std::max(oldest, moved_over_another(k, inode, file));
        if (r_.journals_data() && !stored_through_map_in_inode(k, inode)) {
            oldest = k > low_ && touches(k, inode) && !r_.steps[k - 1].in_one_transaction() ? k - 1 : k;
            newest = k;
        }
        const std::vector<Replacement> replacements = replacements_of(inode, file, newest);
        std::vector<Versions> out(1);
        for (std::size_t j = oldest; j <= newest; ++j) {
            const auto known = r_.files[j].find(inode);
            if (known == r_.files[j].end() || known->second != file) {
                // A write that makes the file makes it empty first.
                if (j < high_ && has_file(j + 1, inode, file)) out.back().push_back(&empty);
                continue;
            }
            bool hidden = false;
            if (j > oldest && is_shift(j - 1) && touches(j, inode)) out.emplace_back();
            for (const Replacement& r : replacements) {
                if (j == r.emptied || (j == r.written && !r.cut)) out.emplace_back();
                if (j == r.written && r.cut) out.back().push_back(&empty);
                hidden = hidden || (r.hidden && j >= r.emptied && j < r.written);
            }
            const std::string* contents = &node_of(r_.trees[j], inode)->contents;
            if (!hidden && (out.back().empty() || *out.back().back() != *contents)) out.back().push_back(contents);
        }
        return out;
    }

    bool is_shift(std::size_t i) const {
        const Operation& o = r_.steps[i].operation;
        return o.kind == Operation::Kind::Fallocate && r_.steps[i].done &&
               (o.mode == FALLOC_FL_COLLAPSE_RANGE || o.mode == FALLOC_FL_INSERT_RANGE);
    }

    // Contents that are emptied and written again: trees[emptied] is the first without the old ones, trees[written]
    // with the new ones; the same when one step does both.
    struct Replacement {
        std::size_t emptied = 0, written = ~std::size_t{0};
        bool hidden = false;  // one transaction has both, so nobody sees the file empty
        bool cut = false;     // a commit came into the step that writes
    };

    std::vector<Replacement> replacements_of(std::uint64_t inode, unsigned file, std::size_t newest) const {
        using Kind = Operation::Kind;
        auto meets = [&](std::size_t i) {
            return has_file(i, inode, file) && inode_at(r_.trees[i], r_.steps[i].operation.path) == inode;
        };
        std::vector<Replacement> out;
        for (std::size_t i = 0; i < newest; ++i) {
            const Operation& o = r_.steps[i].operation;
            const bool in_place = o.kind == Kind::Reopen;
            if ((!in_place && !(o.kind == Kind::Truncate && o.length == 0)) || !r_.steps[i].done || !meets(i)) continue;
            if (node_of(r_.trees[i], inode)->contents.empty()) continue;
            Replacement r{i + 1};
            // Closed by whoever opens it for writing next, it is on its way to the device if that one wrote.
            for (std::size_t w = in_place ? i : i + 1; w < r_.steps.size(); ++w) {
                const Kind kind = r_.steps[w].operation.kind;
                const bool writes =
                    kind == Kind::Write || kind == Kind::WriteSync || kind == Kind::Direct || kind == Kind::Reopen;
                if (!meets(w) || (!writes && kind != Kind::Fallocate && kind != Kind::MapStore)) continue;
                if (writes && r_.steps[w].done) {
                    r.written = w + 1;
                    r.hidden = r_.steps[i].first_transaction == r_.steps[w].last_transaction;
                    r.cut = !r_.steps[w].in_one_transaction();
                }
                break;
            }
            out.push_back(r);
        }
        return out;
    }

    // The newest tree up to `k` in which this file has taken a name from another one: what it held then is on the
    // device when the name is.
    std::size_t moved_over_another(std::size_t k, std::uint64_t inode, unsigned file) const {
        for (std::size_t j = k; j > 0; --j) {
            const Step& step = r_.steps[j - 1];
            if (step.operation.kind != Operation::Kind::Rename || !step.done || !has_file(j - 1, inode, file)) continue;
            const Tree& before = r_.trees[j - 1];
            const std::uint64_t target = inode_at(before, step.operation.other);
            if (inode_at(before, step.operation.path) != inode || target == 0 || target == inode) continue;
            if (S_ISREG(node_of(before, target)->mode)) return j;
        }
        return 0;
    }

    // Contents that lie in the inode are not journaled by a store through a map: they are written back in their time.
    bool stored_through_map_in_inode(std::size_t k, std::uint64_t inode) const {
        if (!r_.format.starts_with("inline") || node_of(r_.trees[k], inode)->contents.size() > 160) return false;
        for (std::size_t i = 0; i < high_; ++i)
            if (r_.steps[i].operation.kind == Operation::Kind::MapStore && touches(i + 1, inode)) return true;
        return false;
    }

    bool has_file(std::size_t k, std::uint64_t inode, unsigned file) const {
        const auto known = r_.files[k].find(inode);
        return known != r_.files[k].end() && known->second == file;
    }

    // Whether the step that made trees[k] is one on this file.
    bool touches(std::size_t k, std::uint64_t inode) const {
        return k > 0 && inode_at(r_.trees[k], r_.steps[k - 1].operation.path) == inode;
    }

    // Sizes move in steps of an operation, or of the blocks (in data=journal the folios) of a write that has several.
    std::size_t unit() const { return r_.journals_data() ? 4096 : 1024; }

    static constexpr std::size_t sector = 512;

    std::string misfit(const Versions& may, const std::string& got) const {
        if (std::ranges::any_of(may, [&](const std::string* s) { return *s == got; })) return {};
        std::size_t least = ~std::size_t{0}, most = 0;
        bool exact = false;
        for (const std::string* s : may) {
            least = std::min(least, s->size());
            most = std::max(most, s->size());
            exact = exact || s->size() == got.size();
        }
        if (!exact && (got.size() < least || got.size() > most || got.size() % unit() != 0))
            return fmt::format("{} bytes, which it never had since its last sync ({} to {})", got.size(), least, most);
        const auto was = [&](std::size_t i) {
            return std::ranges::any_of(may, [&](const std::string* s) { return i < s->size() && (*s)[i] == got[i]; });
        };
        for (std::size_t i = 0; i < got.size(); ++i) {
            if (was(i)) continue;
            return fmt::format("byte {} of {} is {:#04x}, which no state since its last sync had ({})", i, got.size(),
                               static_cast<unsigned char>(got[i]),
                               got[i] == 0                                  ? "zero"
                               : static_cast<unsigned char>(got[i]) == 0xdb ? "never written"
                                                                            : "stale");
        }
        // A device writes sectors: each is of one moment, but for what the file did not reach to in that moment.
        for (std::size_t start = 0; start < got.size(); start += sector) {
            const std::size_t end = std::min(start + sector, got.size());
            const auto is_of = [&](const std::string* s) {
                for (std::size_t i = start; i < end; ++i)
                    if (i < s->size() && (*s)[i] != got[i]) return false;
                return s->size() > start;
            };
            if (std::ranges::any_of(may, is_of)) continue;
            return fmt::format("the bytes {} to {} are of several states since its last sync, and of none as a whole",
                               start, end);
        }
        return {};
    }

    const Recording& r_;
    std::size_t low_ = 0, high_ = 0;
    std::size_t all_ = 0;                                    // every file is at least as in this tree
    std::map<unsigned, std::size_t> synced_, times_synced_;  // by file; the second not where its data alone was
};

}  // namespace

std::string broken_promise(const Recording& recording, std::size_t acked, std::size_t cut, const Tree& got) {
    for (const Recording& thread : recording.threads) {
        const std::string wrong = broken_promise(thread, acked, cut, part_of(got, thread.directory));
        if (!wrong.empty()) return thread.directory + ": " + wrong;
    }
    return recording.threads.empty() ? Promises(recording, acked, cut).judge(got) : "";
}

}  // namespace uext4::crash
