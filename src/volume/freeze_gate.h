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
    class Pass {
    public:
        explicit Pass(FreezeGate& gate, SourceLocation where = SourceLocation::current()) : gate_(&gate) {
            gate_->enter(where);
        }
        ~Pass() { gate_->leave(); }
        Pass(const Pass&) = delete;
        Pass& operator=(const Pass&) = delete;

    private:
        FreezeGate* gate_;
    };

    // What operations have left to be done, which a freeze waits for when nobody else is inside any more.
    class InnerPass {
    public:
        explicit InnerPass(FreezeGate& gate, SourceLocation where = SourceLocation::current()) : gate_(&gate) {
            gate_->enter_inner(where);
        }
        ~InnerPass() { gate_->leave(); }
        InnerPass(const InnerPass&) = delete;
        InnerPass& operator=(const InnerPass&) = delete;

    private:
        FreezeGate* gate_;
    };

    // The same without waiting: false while it is closed.
    class TryPass {
    public:
        explicit TryPass(FreezeGate& gate, SourceLocation where = SourceLocation::current())
            : gate_(gate.try_enter(where) ? &gate : nullptr) {}
        ~TryPass() {
            if (gate_) gate_->leave();
        }
        TryPass(const TryPass&) = delete;
        TryPass& operator=(const TryPass&) = delete;
        explicit operator bool() const { return gate_ != nullptr; }

    private:
        FreezeGate* gate_;
    };

    // For who makes something durable: false where the file system is frozen, for there all is durable, and who waited
    // for the thaw could be the one who was to thaw. Waits only for a freeze that is on its way.
    class SyncPass {
    public:
        explicit SyncPass(FreezeGate& gate, SourceLocation where = SourceLocation::current())
            : gate_(gate.enter_unless_frozen(where) ? &gate : nullptr) {}
        ~SyncPass() {
            if (gate_) gate_->leave();
        }
        SyncPass(const SyncPass&) = delete;
        SyncPass& operator=(const SyncPass&) = delete;
        explicit operator bool() const { return gate_ != nullptr; }

    private:
        FreezeGate* gate_;
    };

    // Waits until nobody is inside; InnerPass is let in still.
    void close(SourceLocation where = SourceLocation::current());
    void seal(SourceLocation where = SourceLocation::current());  // after close(): that is not, either
    void all_is_durable();                                        // after seal(): the file system is frozen
    void open();
    bool closed() const;
    // How often who waits for something else looks whether it has closed.
    static constexpr std::chrono::milliseconds glance{10};

    // For who has nothing to do until something changes: waits for the next to come in, or for end_watch(). Not at all
    // while somebody is inside, or `has_work` says so; it is asked when nobody is inside, and must not wait.
    template <class HasWork>
    void wait_for_entry(HasWork has_work) {
        MutexLock guard(lock_);
        if (inside_ > 0 || watch_ended_ || has_work()) return;
        watched_ = true;
        while (watched_) entered_.wait(lock_);
    }
    void end_watch();

private:
    enum class State : std::uint8_t { open, closed, sealed, frozen };
    void enter(SourceLocation where);
    void enter_inner(SourceLocation where);
    bool try_enter(SourceLocation where);
    bool enter_unless_frozen(SourceLocation where);
    void leave();
    void come_in(std::uint64_t order, SourceLocation where) UEXT4_REQUIRES(lock_);
    // Two that are held: those inside keep a freeze from going on, and who closes the gate keeps others out.
    Holdable inside() const { return {this, "freeze gate"}; }
    Holdable opening() const { return {&changed_, "opening of the freeze gate"}; }

    mutable Mutex lock_{Rank::Leaf, "FreezeGate"};
    CondVar changed_{"freeze gate"};
    std::uint64_t inside_ = 0;
    State state_ = State::open;
    CondVar entered_{"freeze gate entered"};
    bool watched_ = false, watch_ended_ = false;
};

}  // namespace uext4
