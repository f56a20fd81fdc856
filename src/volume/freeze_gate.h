// Freezing: operations that change something pass the gate; a freeze closes it and waits until they are out.
#pragma once

#include "sync/condition.h"
#include "sync/mutex.h"

#include <chrono>
#include <cstdint>

namespace uext4 {

class FreezeGate {
public:
    // An operation inside the gate; waits while it is closed. Holds rank Freeze.
    class Entry {
    public:
        explicit Entry(FreezeGate& gate, SourceLocation where = SourceLocation::current()) : gate_(&gate) {
            gate_->enter(where);
        }
        ~Entry() { gate_->leave(); }
        Entry(const Entry&) = delete;
        Entry& operator=(const Entry&) = delete;

    private:
        FreezeGate* gate_;
    };

    // What operations have left to be done, which a freeze waits for when nobody else is inside any more.
    class InnerEntry {
    public:
        explicit InnerEntry(FreezeGate& gate, SourceLocation where = SourceLocation::current()) : gate_(&gate) {
            gate_->enter_inner(where);
        }
        ~InnerEntry() { gate_->leave(); }
        InnerEntry(const InnerEntry&) = delete;
        InnerEntry& operator=(const InnerEntry&) = delete;

    private:
        FreezeGate* gate_;
    };

    // The same without waiting: false while it is closed.
    class TryEntry {
    public:
        explicit TryEntry(FreezeGate& gate, SourceLocation where = SourceLocation::current())
            : gate_(gate.try_enter(where) ? &gate : nullptr) {}
        ~TryEntry() {
            if (gate_) gate_->leave();
        }
        TryEntry(const TryEntry&) = delete;
        TryEntry& operator=(const TryEntry&) = delete;
        explicit operator bool() const { return gate_ != nullptr; }

    private:
        FreezeGate* gate_;
    };

    // For who makes something durable: false where the file system is frozen, for there all is durable, and who waited
    // for the thaw could be the one who was to thaw. Waits only for a freeze that is on its way.
    class SyncEntry {
    public:
        explicit SyncEntry(FreezeGate& gate, SourceLocation where = SourceLocation::current())
            : gate_(gate.enter_unless_frozen(where) ? &gate : nullptr) {}
        ~SyncEntry() {
            if (gate_) gate_->leave();
        }
        SyncEntry(const SyncEntry&) = delete;
        SyncEntry& operator=(const SyncEntry&) = delete;
        explicit operator bool() const { return gate_ != nullptr; }

    private:
        FreezeGate* gate_;
    };

    // Waits until nobody is inside; InnerEntry is let in still.
    void close(SourceLocation where = SourceLocation::current());
    void close_inner(SourceLocation where = SourceLocation::current());  // after close(): that is not, either
    void set_frozen();  // after close_inner(): the file system is frozen
    void open();
    bool is_closed() const;
    // How often who waits for something else looks whether it has closed.
    static constexpr std::chrono::milliseconds poll_interval{10};

    // For who has nothing to do until something changes: waits for the next to come in, or for
    // stop_waiting_for_activity(). Not at all while somebody is inside, or `has_work` says so; it is asked when nobody
    // is inside, and must not wait.
    template <class HasWork>
    void wait_for_activity(HasWork has_work) {
        MutexLock guard(lock_);
        if (inside_ > 0 || activity_wait_stopped_ || has_work()) return;
        activity_awaited_ = true;
        while (activity_awaited_) entered_.wait(lock_);
    }
    void stop_waiting_for_activity();

private:
    enum class State : std::uint8_t { open, closed, sealed, frozen };
    void enter(SourceLocation where);
    void enter_inner(SourceLocation where);
    bool try_enter(SourceLocation where);
    bool enter_unless_frozen(SourceLocation where);
    void leave();
    void count_entry(std::uint64_t order, SourceLocation where) UEXT4_REQUIRES(lock_);
    // Two that are held: those inside keep a freeze from going on, and who closes the gate keeps others out.
    HeldResource entries_resource() const { return {this, "freeze gate"}; }
    HeldResource opening_resource() const { return {&changed_, "opening of the freeze gate"}; }

    mutable Mutex lock_{Rank::Leaf, "FreezeGate"};
    CondVar changed_{"freeze gate"};
    std::uint64_t inside_ = 0;
    State state_ = State::open;
    CondVar entered_{"freeze gate entered"};
    bool activity_awaited_ = false, activity_wait_stopped_ = false;
};

}  // namespace uext4
