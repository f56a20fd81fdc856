// Freezing: operations that change something pass the gate; a freeze closes it and waits until they are out.
#pragma once

#include "sync/condition.h"
#include "sync/mutex.h"

#include <cstdint>
#include <optional>

namespace uext4 {

class FreezeGate {
public:
    // An operation inside the gate; waits while it is closed. Holds rank Freeze.
    class Pass {
    public:
        explicit Pass(FreezeGate& gate) : gate_(&gate), rank_(Rank::Freeze, "freeze gate") { gate_->enter(); }
        ~Pass() { gate_->leave(); }
        Pass(const Pass&) = delete;
        Pass& operator=(const Pass&) = delete;

    private:
        FreezeGate* gate_;
        RankGuard rank_;
    };

    // The same without waiting: false while it is closed.
    class TryPass {
    public:
        explicit TryPass(FreezeGate& gate) : gate_(gate.try_enter() ? &gate : nullptr) {
            if (gate_) rank_.emplace(Rank::Freeze, "freeze gate");
        }
        ~TryPass() {
            if (gate_) gate_->leave();
        }
        TryPass(const TryPass&) = delete;
        TryPass& operator=(const TryPass&) = delete;
        explicit operator bool() const { return gate_ != nullptr; }

    private:
        FreezeGate* gate_;
        std::optional<RankGuard> rank_;
    };

    void close();  // waits until nobody is inside; nests
    void open();
    bool closed() const;

private:
    void enter();
    bool try_enter();
    void leave();

    mutable Mutex lock_{Rank::Leaf, "FreezeGate"};
    CondVar changed_{"freeze gate"};
    std::uint64_t inside_ = 0, closers_ = 0;
};

}  // namespace uext4
