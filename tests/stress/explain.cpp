#include "tests/stress/contested.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <linux/fs.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <tuple>

namespace uext4::stress {

namespace {

// One name. Directories are told apart by the operation that made them; the roots are 1 and 2.
struct Name {
    std::uint32_t directory = 0;
    std::int8_t name = 0;
    Kind kind = Kind::nothing;
    std::uint32_t object = 0;
    auto key() const { return std::tuple(directory, name); }
    auto operator<=>(const Name&) const = default;
};

// Sorted by directory and name.
class State {
public:
    const Name* find(std::uint32_t directory, int name) const {
        for (const Name& one : names_)
            if (one.directory == directory && one.name == name) return &one;
        return nullptr;
    }
    void put(Name name) {
        remove(name.directory, name.name);
        names_.insert(std::upper_bound(names_.begin(), names_.end(), name), name);
    }
    void remove(std::uint32_t directory, int name) {
        std::erase_if(names_, [&](const Name& one) { return one.directory == directory && one.name == name; });
    }
    bool is_empty(std::uint32_t directory) const {
        return std::ranges::none_of(names_, [&](const Name& one) { return one.directory == directory; });
    }
    bool is_dead(std::uint32_t directory) const {
        return directory > roots && std::ranges::none_of(names_, [&](const Name& one) {
                   return one.kind == Kind::directory && one.object == directory;
               });
    }
    bool is_named(std::uint32_t object) const {
        return std::ranges::any_of(names_, [&](const Name& one) { return one.object == object; });
    }
    // Whether `directory` is `ancestor` or lies below it.
    bool is_below(std::uint32_t directory, std::uint32_t ancestor) const {
        while (directory != ancestor) {
            const auto up = std::ranges::find_if(
                names_, [&](const Name& one) { return one.kind == Kind::directory && one.object == directory; });
            if (up == names_.end()) return false;
            directory = up->directory;
        }
        return true;
    }
    Tree tree(std::uint32_t directory) const {
        Tree found;
        for (const Name& one : names_) {
            if (one.directory != directory) continue;
            found.entries[one.name] = one.kind == Kind::directory ? tree(one.object) : Tree{{}, one.kind, one.object};
        }
        return found;
    }
    auto operator<=>(const State&) const = default;

private:
    std::vector<Name> names_;
};

// How far an operation has come: what it has looked up of its two places, and the object that link(2) is about.
struct Pending {
    std::uint32_t operation = 0;  // index in the history
    std::int8_t phase = 0;
    std::uint32_t from = 0, to = 0, object = 0;
    Kind kind = Kind::nothing;
    auto operator<=>(const Pending&) const = default;
};

struct Configuration {
    State state;
    std::vector<Pending> pending;  // by operation
    auto operator<=>(const Configuration&) const = default;
};

enum class Step { on, done, impossible };

struct Advance {
    State& state;
    Pending& at;
    const Operation& operation;

    Step finish(int result) const { return result == operation.result ? Step::done : Step::impossible; }

    // Success, which changes the state only if it is the answer.
    template <typename Change>
    Step succeed(Change change) const {
        if (operation.result != 0) return Step::impossible;
        change();
        return Step::done;
    }

    // The directory in which the last name of a place lies.
    int directory_of(Place place, std::uint32_t& directory) const {
        directory = static_cast<std::uint32_t>(place.root) + 1;
        if (place.below < 0) return 0;
        const Name* name = state.find(directory, place.name);
        // A link on the way leads to a name that does not exist.
        if (name == nullptr || name->kind == Kind::link) return -ENOENT;
        if (name->kind != Kind::directory) return -ENOTDIR;
        directory = name->object;
        return 0;
    }
    static int last_of(Place place) { return place.below < 0 ? place.name : place.below; }

    bool has_two_places() const { return operation.act == Act::rename || operation.act == Act::link; }

    Step step() const {
        if (at.phase == 0) {
            at.phase = 1;
            const int found = directory_of(operation.at, at.from);
            return found == 0 ? Step::on : finish(found);
        }
        if (operation.act == Act::link && at.phase == 1) {
            at.phase = 2;
            const Name* name = state.find(at.from, last_of(operation.at));
            if (name == nullptr) return finish(-ENOENT);
            at.object = name->object;
            at.kind = name->kind;
            return Step::on;
        }
        if (has_two_places() && at.phase <= 2) {
            at.phase = 3;
            const int found = directory_of(operation.to, at.to);
            return found == 0 ? Step::on : finish(found);
        }
        return last();
    }

    Step last() const {
        const int name = last_of(operation.at);
        const Name* found = state.find(at.from, name);
        switch (operation.act) {
            case Act::look:
            case Act::read_link: return look(found);
            case Act::unlink:
                if (found == nullptr) return finish(-ENOENT);
                if (found->kind == Kind::directory) return finish(-EISDIR);
                return succeed([&] { state.remove(at.from, name); });
            case Act::rmdir:
                if (found == nullptr) return finish(-ENOENT);
                if (found->kind != Kind::directory) return finish(-ENOTDIR);
                if (!state.is_empty(found->object)) return finish(-ENOTEMPTY);
                return succeed([&] { state.remove(at.from, name); });
            case Act::place: return move_in(found, name);
            case Act::link: return link();
            case Act::rename: return rename(found, name);
            default: break;
        }
        if (found != nullptr) return finish(-EEXIST);
        if (state.is_dead(at.from)) return finish(-ENOENT);
        return succeed([&] { put_new(at.from, name); });
    }

    void put_new(std::uint32_t directory, int name) const {
        const Kind kind = operation.act == Act::make_directory ? Kind::directory
                          : operation.act == Act::make_link    ? Kind::link
                          : operation.act == Act::make_device  ? Kind::device
                                                               : Kind::file;
        state.put({directory, static_cast<std::int8_t>(name), kind, operation.object});
    }

    Step look(const Name* found) const {
        if (found == nullptr) return finish(-ENOENT);
        if (operation.act == Act::read_link && found->kind != Kind::link) return finish(-EINVAL);
        if (operation.result != 0) return Step::impossible;
        if (operation.act == Act::look && operation.kind != found->kind) return Step::impossible;
        return operation.found == 0 || operation.found == found->object ? Step::done : Step::impossible;
    }

    Step move_in(const Name* found, int name) const {
        if (found != nullptr && operation.flags == RENAME_NOREPLACE) return finish(-EEXIST);
        if (found != nullptr && found->kind == Kind::directory) return finish(-EISDIR);
        if (state.is_dead(at.from)) return finish(-ENOENT);
        return succeed([&] { put_new(at.from, name); });
    }

    Step link() const {
        const int name = last_of(operation.to);
        if (state.find(at.to, name) != nullptr) return finish(-EEXIST);
        const bool gone = state.is_dead(at.to) || !state.is_named(at.object);
        // Which of two reasons is told is open.
        if (at.kind == Kind::directory) return gone && operation.result == -ENOENT ? Step::done : finish(-EPERM);
        if (gone) return finish(-ENOENT);
        return succeed([&] { state.put({at.to, static_cast<std::int8_t>(name), at.kind, at.object}); });
    }

    Step rename(const Name* from, int from_name) const {
        const int to_name = last_of(operation.to);
        const Name* to = state.find(at.to, to_name);
        if (from == nullptr) return finish(-ENOENT);
        const bool exchange = operation.flags == RENAME_EXCHANGE, keep = operation.flags == RENAME_NOREPLACE;
        // Which of several reasons is told is open.
        std::vector<int> reasons;
        if (keep && to != nullptr) reasons.push_back(-EEXIST);
        if (exchange && to == nullptr) reasons.push_back(-ENOENT);
        if (state.is_dead(at.to)) reasons.push_back(-ENOENT);
        if (from->kind == Kind::directory && state.is_below(at.to, from->object)) reasons.push_back(-EINVAL);
        if (to != nullptr && to->kind == Kind::directory && state.is_below(at.from, to->object))
            reasons.push_back(exchange ? -EINVAL : -ENOTEMPTY);
        const bool same = to != nullptr && to->object == from->object;
        if (!exchange && !same && to != nullptr && reasons.empty()) {
            if (from->kind == Kind::directory && to->kind != Kind::directory) reasons.push_back(-ENOTDIR);
            else if (from->kind != Kind::directory && to->kind == Kind::directory) reasons.push_back(-EISDIR);
            else if (to->kind == Kind::directory && !state.is_empty(to->object)) reasons.push_back(-ENOTEMPTY);
        }
        if (!reasons.empty())
            return std::ranges::find(reasons, operation.result) != reasons.end() ? Step::done : Step::impossible;
        if (operation.result != 0) return Step::impossible;
        if (same) return Step::done;
        const Name moved = *from;
        const Name replaced = to == nullptr ? Name{} : *to;
        state.remove(at.from, from_name);
        if (exchange) state.put({at.from, static_cast<std::int8_t>(from_name), replaced.kind, replaced.object});
        state.put({at.to, static_cast<std::int8_t>(to_name), moved.kind, moved.object});
        return Step::done;
    }
};

// An operation that changes nothing: whatever may follow before it has its answer may follow afterwards as well.
bool is_harmless(const Operation& one) { return one.result != 0 || one.act == Act::look || one.act == Act::read_link; }

// Steps that look at nothing which may change: the first name of a place lies in a root.
void skip_roots(Configuration& one, Pending& pending, const Operation& operation) {
    const bool two = operation.act == Act::rename || operation.act == Act::link;
    if ((pending.phase == 0 && operation.at.below < 0) || (pending.phase == 2 && two && operation.to.below < 0) ||
        (pending.phase == 1 && operation.act == Act::rename && operation.to.below < 0))
        Advance{one.state, pending, operation}.step();
}

// Gives its answer to everything harmless that can have it now. That loses nothing, and leaves far fewer orders to try.
void settle(Configuration& one, const std::vector<Operation>& history) {
    for (Pending& pending : one.pending)
        for (int i = 0; i < 2; ++i) skip_roots(one, pending, history[pending.operation]);
    std::erase_if(one.pending, [&](Pending pending) {
        const Operation& operation = history[pending.operation];
        if (!is_harmless(operation)) return false;
        Step step = Step::on;
        while (step == Step::on) step = Advance{one.state, pending, operation}.step();
        return step == Step::done;
    });
}

// The configurations in which `operation` has its answer, from those in which it may not have it yet; none: more than
// `limit`.
std::optional<std::set<Configuration>> completed(const std::set<Configuration>& before, std::uint32_t operation,
                                                 const std::vector<Operation>& history, std::size_t limit) {
    std::set<Configuration> done, seen;
    std::vector<Configuration> open(before.begin(), before.end());
    const auto is_pending = [&](const Configuration& one) {
        return std::ranges::any_of(one.pending, [&](const Pending& p) { return p.operation == operation; });
    };
    while (!open.empty()) {
        const Configuration now = std::move(open.back());
        open.pop_back();
        if (!is_pending(now)) {
            done.insert(now);
            continue;
        }
        if (!seen.insert(now).second) continue;
        if (seen.size() + done.size() > limit) return std::nullopt;
        for (std::size_t i = 0; i < now.pending.size(); ++i) {
            Configuration next = now;
            const Step step = Advance{next.state, next.pending[i], history[now.pending[i].operation]}.step();
            if (step == Step::impossible) continue;
            if (step == Step::done) next.pending.erase(next.pending.begin() + static_cast<std::ptrdiff_t>(i));
            settle(next, history);
            open.push_back(std::move(next));
        }
    }
    return done;
}

struct Event {
    std::uint64_t when = 0;
    bool is_return = false;
    std::uint32_t operation = 0;
    auto operator<=>(const Event&) const = default;
};

std::string place_text(Place place) {
    return place.below < 0 ? fmt::format("k{}/{}", place.root, place.name)
                           : fmt::format("k{}/{}/{}", place.root, place.name, place.below);
}

}  // namespace

std::string text_of(const Operation& one) {
    static const char* acts[] = {"mkdir", "symlink", "mknod", "rename a file to", "link", "unlink",
                                 "rmdir", "rename",  "lstat", "readlink"};
    std::string text =
        fmt::format("[{} .. {}] {} {}", one.began, one.returned, acts[static_cast<int>(one.act)], place_text(one.at));
    if (one.act == Act::link || one.act == Act::rename) text += " to " + place_text(one.to);
    if (one.flags != 0) text += fmt::format(" flags {}", one.flags);
    if (one.object != 0) text += fmt::format(" object {}", one.object);
    return text + fmt::format(": {}, kind {}, saw {}", one.result == 0 ? "done" : std::strerror(-one.result),
                              static_cast<int>(one.kind), one.found);
}

Verdict explain(std::vector<Operation> history, std::size_t limit) {
    std::ranges::sort(history, {}, &Operation::began);
    std::vector<Event> events;
    for (std::uint32_t i = 0; i < history.size(); ++i) {
        if (history[i].act == Act::make_directory) history[i].object = 0x80000000u + i;
        // What returned in the nanosecond in which another began may have come after it.
        events.push_back({history[i].began, false, i});
        events.push_back({history[i].returned, true, i});
    }
    std::ranges::sort(events);
    Verdict verdict;
    std::set<Configuration> now{Configuration{}};
    for (const Event& event : events) {
        if (!event.is_return) {
            std::set<Configuration> next;
            for (Configuration one : now) {
                one.pending.push_back({.operation = event.operation});
                settle(one, history);
                next.insert(std::move(one));
            }
            now = std::move(next);
            continue;
        }
        std::optional<std::set<Configuration>> next = completed(now, event.operation, history, limit);
        if (!next || next->empty()) {
            verdict.problem = (next ? "no order explains:\n  "
                                    : fmt::format("more than {} orders to try for an answer:\n  ", limit)) +
                              text_of(history[event.operation]) + "\nwhile these were under way or just before:\n";
            for (std::uint32_t i = event.operation >= 40 ? event.operation - 40 : 0; i < history.size(); ++i)
                if (history[i].began <= history[event.operation].returned && i != event.operation)
                    verdict.problem += "  " + text_of(history[i]) + "\n";
            const Configuration& last = *now.begin();
            verdict.problem += fmt::format("{} configurations before; in one {} names\n", now.size(),
                                           last.state.tree(1).entries.size() + last.state.tree(2).entries.size());
            return verdict;
        }
        now = std::move(*next);
        verdict.most = std::max(verdict.most, now.size());
    }
    for (const Configuration& one : now) {
        Tree tree;
        for (int root = 0; root < roots; ++root)
            tree.entries[root] = one.state.tree(static_cast<std::uint32_t>(root) + 1);
        if (std::ranges::find(verdict.ends, tree) == verdict.ends.end()) verdict.ends.push_back(std::move(tree));
    }
    return verdict;
}

}  // namespace uext4::stress
