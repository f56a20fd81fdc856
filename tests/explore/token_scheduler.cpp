#include "tests/explore/token_scheduler.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace uext4::explore {

namespace {

std::string_view base_name(std::string_view path) {
    if (const auto src = path.rfind("/src/"); src != path.npos) return path.substr(src + 1);
    if (const auto tests = path.rfind("/tests/"); tests != path.npos) return path.substr(tests + 1);
    return path;
}

std::string place(const std::source_location& where) {
    return fmt::format("{}:{}", base_name(where.file_name()), where.line());
}

}  // namespace

TokenScheduler::Task*& TokenScheduler::self() {
    static thread_local Task* task = nullptr;
    return task;
}

TokenScheduler::TokenScheduler(Picker& picker, Shared& shared, bool record)
    : picker_(picker), shared_(shared), record_(record) {
    shared_.deviation_count = 0;
    shared_.event_count = shared_.name_count = shared_.thread_count = 0;
    Task& main = add(this, "main");
    main.counts = true;
    running_ = &main;
    self() = &main;
    set_scheduler(this);
}

TokenScheduler::~TokenScheduler() {
    set_scheduler(nullptr);
    self() = nullptr;
}

bool TokenScheduler::manages_this_thread() const { return self() != nullptr; }

TokenScheduler::Task& TokenScheduler::add(const void* thread, const std::string& name) {
    std::lock_guard guard(tasks_lock_);
    auto task = std::make_unique<Task>();
    task->number = static_cast<int>(tasks_.size());
    task->name = name;
    task->counts = name.starts_with(progress_prefix_);
    by_thread_[thread] = task.get();
    if (tasks_.size() < shared_.threads.size()) {
        auto& slot = shared_.threads[tasks_.size()];
        std::strncpy(slot.data(), name.c_str(), slot.size() - 1);
        slot[slot.size() - 1] = 0;
        shared_.thread_count = static_cast<std::uint32_t>(tasks_.size() + 1);
    }
    tasks_.push_back(std::move(task));
    return *tasks_.back();
}

// ---- the token

void TokenScheduler::wait_for_token(Task& me) {
    while (me.go.load(std::memory_order_acquire) == 0)
        ::syscall(SYS_futex, &me.go, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
    me.go.store(0, std::memory_order_relaxed);
}

void TokenScheduler::give_token(Task& to) {
    running_ = &to;
    to.go.store(1, std::memory_order_release);
    ::syscall(SYS_futex, &to.go, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void TokenScheduler::reschedule(bool stays, bool yields) {
    Task& me = *self();
    Task& next = choose(stays, yields);
    advance(next);
    if (&next == &me) return;
    give_token(next);
    wait_for_token(me);
}

void TokenScheduler::advance(Task& next) {
    if (next.waits_for) run_timer(next);
    else if (next.counts) idle_timers_ = 0;
}

TokenScheduler::Task& TokenScheduler::choose(bool stays, bool yields) {
    Task& me = *self();
    if (quiet_ && stays && !yields) return me;
    candidates_.clear();
    // Without a reason this thread goes on, else the next by number: so the default schedule is fair.
    Task* first = nullptr;
    Task* after = nullptr;
    Task* earliest = nullptr;
    for (const auto& task : tasks_) {
        if (task->finished) continue;
        if (!task->waits_for) {
            candidates_.push_back({task->number, false});
            if (!first) first = task.get();
            if (!after && task->number > me.number) after = task.get();
        } else if (task->deadline) {
            candidates_.push_back({task->number, true});
            if (!earliest || *task->deadline < *earliest->deadline) earliest = task.get();
        }
    }
    Task* standard = stays && !yields ? &me : after ? after : first ? first : earliest;
    if (!standard) nobody_can_run();
    if (quiet_ || candidates_.size() < 2) return *standard;
    const int picked = pick(Chosen::thread, stays, yields, standard->number);
    Task& next = *tasks_[static_cast<std::size_t>(picked)];
    if (&next != &me)
        order_hash_ = (order_hash_ ^ (me.where.line() * 64u + static_cast<unsigned>(picked))) * 0x100000001b3;
    if (next.waits_for && first) ++timers_;
    return next;
}

int TokenScheduler::pick(Chosen kind, bool stays, bool yields, int standard) {
    const int picked = picker_.pick({now_chosen(), kind, self()->number, stays, yields, standard, candidates_});
    if (picked != standard && shared_.deviation_count < Shared::max_deviations)
        shared_.deviations[shared_.deviation_count++] = {now_chosen(), kind, picked};
    return picked;
}

int TokenScheduler::choose_error(const char* what, std::source_location where) {
    if (quiet_) return 0;
    atomic_reached(static_cast<std::uint8_t>(Point::Custom), what, where);
    candidates_ = {{0, false}, {1, false}, {2, false}};
    const int picked = pick(Chosen::error, true, false, 0);
    if (picked == 0) return 0;
    ++errors_;
    order_hash_ = (order_hash_ ^ (where.line() * 64u + 7919u * static_cast<unsigned>(picked))) * 0x100000001b3;
    note(*self(), event_error, what, where);
    return picked;
}

void TokenScheduler::run_timer(Task& task) {
    now_ = std::max(now_, *task.deadline);
    note(task, event_timer, task.what, task.where);
    task.timed_out = true;
    task.waits_for = nullptr;
    if (task.counts) return;
    if (++idle_timers_ > idle_timer_limit) nobody_can_run();
}

// ---- what threads do

void TokenScheduler::step_taken(std::uint8_t kind, const char* what, const std::source_location& where) {
    Task& me = *self();
    me.what = what;
    me.where = where;
    if (quiet_) return;
    if (++step_ > step_limit)
        fail(Failure::livelock,
             fmt::format("after {} steps the threads are still busy:\n{}", step_, describe_threads()));
    sub_ = 0;
    note(me, kind, what, where);
}

// Atomics are no steps: a schedule is told by its steps, and stays the same one when an atomic is added or goes.
void TokenScheduler::atomic_reached(std::uint8_t kind, const char* what, const std::source_location& where) {
    Task& me = *self();
    me.what = what;
    me.where = where;
    if (quiet_) return;
    ++sub_;
    if (++atomics_ > atomic_limit)
        fail(Failure::livelock,
             fmt::format("after {} atomics the threads are still busy:\n{}", atomics_, describe_threads()));
    note(me, kind, what, where);
}

void TokenScheduler::note(const Task& task, std::uint8_t kind, const char* what, const std::source_location& where) {
    if (quiet_ || !record_ || shared_.event_count >= Shared::max_events) return;
    Event& e = shared_.events[shared_.event_count];
    e = {now_chosen(),
         static_cast<std::int16_t>(task.number),
         kind,
         0,
         intern(place(where)),
         intern(what ? what : ""),
         {}};
    for (const HeldRank& h : &task == self() ? held_ranks() : task.held)
        if (e.held < std::size(e.locks))
            e.locks[e.held++] = intern(fmt::format("{}{}#{}", h.name, h.shared ? " (shared)" : "", h.order));
    ++shared_.event_count;
}

// A lock that another thread holds, or a condition that stands for one: a folio that is locked or on its way to the
// device, the gate of a freeze. Not what a thread of the library or of the simulated maps answers, or works off; and
// not what the main thread does, which waits for the others' ends.
bool TokenScheduler::is_contention(const Task& me, const void* resource, std::string_view what) const {
    if (quiet_ || me.number == 0) return false;
    if (me.about_to == resource) return !what.starts_with("SimulatedMaps");
    return me.counts && (what == "folio" || what.starts_with("freeze gate"));
}

void TokenScheduler::point(Point kind, const void* resource, const char* what, std::source_location where) {
    self()->about_to = kind == Point::Lock ? resource : nullptr;
    if (kind == Point::Custom) atomic_reached(static_cast<std::uint8_t>(kind), what, where);
    else step_taken(static_cast<std::uint8_t>(kind), what, where);
    reschedule(true, kind == Point::Yield);
}

void TokenScheduler::enter_wait(const void* resource, const char* what, const HeldResource& wanted,
                                std::source_location where) {
    Task& me = *self();
    step_taken(event_block, what, where);
    if (is_contention(me, resource, what)) ++waits_;
    me.about_to = nullptr;  // once for each time that it is wanted
    me.waits_for = resource;
    me.wants = wanted;
    me.held = held_ranks();
}

void TokenScheduler::leave_wait() {
    self()->held.clear();
    self()->wants = {};
}

void TokenScheduler::block(const void* resource, const char* what, const HeldResource& wanted,
                           std::source_location where) {
    enter_wait(resource, what, wanted, where);
    reschedule(false, false);
    leave_wait();
}

bool TokenScheduler::wait_timed(const void* resource, const char* what, const HeldResource& wanted,
                                std::chrono::nanoseconds timeout, std::source_location where) {
    Task& me = *self();
    enter_wait(resource, what, wanted, where);
    me.deadline = now_ + timeout;
    me.timed_out = false;
    reschedule(false, false);
    me.deadline.reset();
    leave_wait();
    return !me.timed_out;
}

void TokenScheduler::held(const HeldResource& what, std::source_location where) {
    held_.push_back({what, self(), where});
}

void TokenScheduler::released(const void* address) {
    std::erase_if(held_, [&](const Held& h) { return h.what.address == address; });
}

void TokenScheduler::forget(const void* resource) {
    if (self()) released(resource);
}

void TokenScheduler::wake(const void* resource) {
    for (const auto& task : tasks_)
        if (task->waits_for == resource) task->waits_for = nullptr;
}

// By default the one that has the lowest number.
void TokenScheduler::wake_one(const void* resource) {
    candidates_.clear();
    for (const auto& task : tasks_)
        if (task->waits_for == resource) candidates_.push_back({task->number, false});
    if (candidates_.empty()) return;
    int woken = candidates_.front().value;
    if (!quiet_ && candidates_.size() > 1 && self()) {
        woken = pick(Chosen::woken, true, false, woken);
        order_hash_ = (order_hash_ ^ static_cast<unsigned>(woken)) * 0x100000001b3;
    }
    tasks_[static_cast<std::size_t>(woken)]->waits_for = nullptr;
}

void TokenScheduler::thread_created(const void* thread, const std::string& name) { add(thread, name); }

void TokenScheduler::thread_not_created(const void* thread) {
    std::lock_guard guard(tasks_lock_);
    by_thread_[thread]->finished = true;
    by_thread_.erase(thread);
}

void TokenScheduler::thread_started(const void* thread) {
    Task* me = nullptr;
    {
        std::lock_guard guard(tasks_lock_);
        me = by_thread_[thread];
    }
    self() = me;
    wait_for_token(*me);
}

void TokenScheduler::thread_exiting(const void* thread) {
    Task& me = *self();
    step_taken(event_exit, me.name.c_str(), std::source_location::current());
    me.finished = true;
    me.held = held_ranks();
    {
        std::lock_guard guard(tasks_lock_);
        by_thread_.erase(thread);
    }
    Task& next = choose(false, false);
    advance(next);
    self() = nullptr;
    give_token(next);
}

// ---- failures

std::span<char> TokenScheduler::tell_turn(std::span<char> out) const {
    const Task* task = running_.load();
    if (!task) return out;
    out = put(put(put(out, "thread "), static_cast<unsigned>(task->number)), " ");
    out = put(out, task->name);
    if (task->where.line() == 0) return put(out, " has the turn, and has met no point yet");
    out = put(out, " has the turn; its last point: \"");
    out = put(out, task->what ? task->what : "");
    out = put(out, "\" at ");
    out = put(out, base_name(task->where.file_name()));
    return put(put(out, ":"), task->where.line());
}

std::vector<TokenScheduler::Holder> TokenScheduler::holders_of(const HeldResource& wanted) const {
    std::vector<Holder> holders;
    if (!wanted.address) return holders;
    if (const auto thread = by_thread_.find(wanted.address); thread != by_thread_.end())
        return {{thread->second, std::nullopt}};
    for (const auto& task : tasks_)
        for (const HeldRank& h : task->held)
            if (h.address == wanted.address) holders.push_back({task.get(), h.where});
    for (const Held& h : held_)
        if (h.what.address == wanted.address) holders.push_back({h.by, h.where});
    return holders;
}

// Breadth first: no shorter one goes through this thread.
std::vector<const TokenScheduler::Task*> TokenScheduler::circle_from(const Task& first) const {
    std::map<const Task*, const Task*> met_from;  // who waits for it
    std::vector<const Task*> queue = {&first};
    for (std::size_t at = 0; at < queue.size(); ++at) {
        if (!queue[at]->waits_for) continue;
        for (const Holder& holder : holders_of(queue[at]->wants)) {
            if (!met_from.try_emplace(holder.task, queue[at]).second) continue;
            if (holder.task != &first) {
                queue.push_back(holder.task);
                continue;
            }
            std::vector<const Task*> circle;
            for (const Task* task = queue[at];; task = met_from.at(task)) {
                circle.insert(circle.begin(), task);
                if (task == &first) return circle;
            }
        }
    }
    return {};
}

std::vector<const TokenScheduler::Task*> TokenScheduler::circle() const {
    std::vector<const Task*> shortest;
    for (const auto& task : tasks_) {
        auto one = circle_from(*task);
        if (!one.empty() && (shortest.empty() || one.size() < shortest.size())) shortest = std::move(one);
    }
    return shortest;
}

std::string TokenScheduler::describe_wait(const Task& task) const {
    const HeldResource& w = task.wants;
    std::string text = fmt::format("thread {} {} wants {} at {}", task.number, task.name,
                                   w.address ? w.text() : fmt::format("\"{}\"", task.what), place(task.where));
    for (const Holder& holder : holders_of(w)) {
        if (!holder.since) {
            text += fmt::format(", which is thread {} {}", holder.task->number, holder.task->name);
            continue;
        }
        if (holder.task == &task) text += ", held by itself";
        else text += fmt::format(", held by thread {} {}", holder.task->number, holder.task->name);
        text += fmt::format("{} since {}", holder.task->finished ? ", which has ended," : "", place(*holder.since));
    }
    return text + (task.deadline ? " (with a limit)\n" : "\n");
}

std::string TokenScheduler::describe_threads() const {
    std::string text;
    const auto describe_held = [&](std::string_view rank, const HeldResource& what, std::string_view how,
                                   const std::source_location& where) {
        text += fmt::format("      holds {}{}{} since {}\n", rank, what.text(), how, place(where));
    };
    for (const auto& task : tasks_) {
        if (task->finished) continue;
        if (task->waits_for) text += "  " + describe_wait(*task);
        else
            text += fmt::format("  thread {} {} can run, at {} \"{}\"\n", task->number, task->name, place(task->where),
                                task->what ? task->what : "");
        const bool runs = task.get() == self() && !task->waits_for;
        for (const HeldRank& h : runs ? held_ranks() : task->held) {
            const std::string order = h.order == 0 || h.order == h.number ? "" : fmt::format(" order {}", h.order);
            describe_held(fmt::format("{} ", rank_name(h.rank)), h.holdable(), order + (h.shared ? " shared" : ""),
                          h.where);
        }
        for (const Held& h : held_)
            if (h.by == task.get()) describe_held("", h.what, "", h.where);
    }
    return text;
}

// Whoever waits for others waits for all of them, so one circle is enough to hold up everybody in it.
void TokenScheduler::nobody_can_run() {
    const char* how = idle_timers_ > idle_timer_limit ? "only timers go on" : "no thread can run";
    const std::vector<const Task*> waiting = circle();
    if (waiting.empty())
        fail(Failure::lost_wakeup,
             fmt::format("{}, and none wait for each other: a signal is missing\nall threads:\n{}", how,
                         describe_threads()));
    std::string text = waiting.size() == 1
                           ? fmt::format("{}, one waits for itself:\n", how)
                           : fmt::format("{}, {} wait for each other in a circle:\n", how, waiting.size());
    for (const Task* task : waiting) text += "  " + describe_wait(*task);
    fail(Failure::deadlock, fmt::format("{}all threads:\n{}", text, describe_threads()));
}

void TokenScheduler::save_choices() { shared_.counters.steps += step_; }

void TokenScheduler::fail(Failure kind, const std::string& text) {
    shared_.set_text(text);
    shared_.failure.store(kind);
    save_choices();
    ::_exit(1);
}

std::uint16_t TokenScheduler::intern(const std::string& text) {
    auto [it, fresh] = names_.try_emplace(text, static_cast<std::uint16_t>(shared_.name_count));
    if (!fresh) return it->second;
    if (shared_.name_count + 1 >= Shared::max_names) return it->second = 0;
    auto& slot = shared_.names[shared_.name_count++];
    const std::size_t n = std::min(text.size(), slot.size() - 1);
    std::memcpy(slot.data(), text.data(), n);
    slot[n] = 0;
    return it->second;
}

}  // namespace uext4::explore
