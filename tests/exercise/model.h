// What the files of a run should hold, kept in a file of its own: it outlives the process that is killed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace uext4::exercise {

using Bytes = std::span<const std::byte>;

inline constexpr std::size_t largest = 400'000;  // bytes of a file
inline constexpr unsigned files = 2;
inline constexpr unsigned most_states = 48;  // of a file since it was last made durable

// A file's contents now, and every state that it has had since its last sync: what a kill may leave is between them.
class ModelFile {
public:
    std::size_t size() const { return now_.size(); }
    const std::vector<std::byte>& bytes() const { return now_; }

    void write(std::size_t at, Bytes in);
    void resize(std::size_t size);
    void zero(std::size_t from, std::size_t end);  // within the file
    void collapse(std::size_t from, std::size_t length);
    void insert(std::size_t at, std::size_t length);

    void made_durable();
    // These bytes, and with them the size as far as they reach: what an O_SYNC write and msync make durable. What was
    // cut off before is gone for good.
    void made_durable(std::size_t from, std::size_t end);
    bool wants_sync() const { return states_.size() >= most_states; }
    // A sentence when these are not contents that a kill may leave.
    std::string refuted_by(Bytes found) const;
    void take(Bytes found);  // what is there is right from now on

    void save(std::vector<std::byte>& out) const;
    void load(Bytes& in);

private:
    void changed();
    std::vector<std::byte> now_;
    std::vector<std::vector<std::byte>> states_{{}};
};

struct Model {
    std::uint64_t seed = 1, segment = 0, done = 0;
    bool killed = false;
    ModelFile file[files];

    // Whole, or not at all.
    void save(const std::string& path) const;
    bool load(const std::string& path);
};

}  // namespace uext4::exercise
