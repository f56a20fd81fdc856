#include "tests/exercise/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace uext4::exercise {

namespace {

void put(std::vector<std::byte>& out, std::uint64_t value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    out.insert(out.end(), bytes, bytes + sizeof value);
}

std::uint64_t get(Bytes& in) {
    std::uint64_t value = 0;
    if (in.size() < sizeof value) std::abort();
    std::memcpy(&value, in.data(), sizeof value);
    in = in.subspan(sizeof value);
    return value;
}

void put_bytes(std::vector<std::byte>& out, const std::vector<std::byte>& bytes) {
    put(out, bytes.size());
    out.insert(out.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> get_bytes(Bytes& in) {
    const std::uint64_t size = get(in);
    if (in.size() < size) std::abort();
    std::vector<std::byte> out(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(size));
    in = in.subspan(size);
    return out;
}

auto place(std::vector<std::byte>& bytes, std::size_t at) { return bytes.begin() + static_cast<std::ptrdiff_t>(at); }

}  // namespace

void ModelFile::changed() { states_.push_back(now_); }

void ModelFile::write(std::size_t at, Bytes in) {
    if (now_.size() < at + in.size()) now_.resize(at + in.size());
    std::ranges::copy(in, place(now_, at));
    changed();
}

void ModelFile::resize(std::size_t size) {
    now_.resize(size);
    changed();
}

void ModelFile::zero(std::size_t from, std::size_t end) {
    end = std::min(end, now_.size());
    if (from >= end) return;
    std::fill(place(now_, from), place(now_, end), std::byte{0});
    changed();
}

void ModelFile::collapse(std::size_t from, std::size_t length) {
    now_.erase(place(now_, from), place(now_, from + length));
    changed();
}

void ModelFile::insert(std::size_t at, std::size_t length) {
    now_.insert(place(now_, at), length, std::byte{0});
    changed();
}

void ModelFile::made_durable() { states_.assign(1, now_); }

void ModelFile::made_durable(std::size_t from, std::size_t end) {
    end = std::min(end, now_.size());
    for (auto& state : states_) {
        if (state.size() > now_.size()) state.resize(now_.size());
        if (from >= end) continue;
        if (state.size() < end) state.resize(end);
        std::copy(place(now_, from), place(now_, end), place(state, from));
    }
}

std::string ModelFile::refuted_by(Bytes found) const {
    std::size_t shortest = now_.size(), longest = 0;
    for (const auto& state : states_) {
        shortest = std::min(shortest, state.size());
        longest = std::max(longest, state.size());
    }
    if (found.size() < shortest || found.size() > longest)
        return fmt::format("{} bytes, where {} to {} may be", found.size(), shortest, longest);
    for (std::size_t i = 0; i < found.size(); ++i) {
        const bool possible = std::ranges::any_of(states_, [&](const auto& state) {
            return i < state.size() ? state[i] == found[i] : found[i] == std::byte{0};
        });
        if (!possible)
            return fmt::format("byte {} of {} is {}, which it never was since the last sync ({} then)", i, found.size(),
                               static_cast<int>(found[i]),
                               i < states_[0].size() ? fmt::format("{}", static_cast<int>(states_[0][i])) : "none");
    }
    return {};
}

void ModelFile::take(Bytes found) {
    now_.assign(found.begin(), found.end());
    made_durable();
}

void ModelFile::save(std::vector<std::byte>& out) const {
    put_bytes(out, now_);
    put(out, states_.size());
    for (const auto& state : states_) put_bytes(out, state);
}

void ModelFile::load(Bytes& in) {
    now_ = get_bytes(in);
    states_.resize(get(in));
    for (auto& state : states_) state = get_bytes(in);
}

void Model::save(const std::string& path) const {
    std::vector<std::byte> out;
    put(out, seed);
    put(out, segment);
    put(out, done);
    put(out, killed);
    for (const ModelFile& f : file) f.save(out);
    std::ofstream stream(path + ".new", std::ios::binary);
    stream.write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(out.size()));
    stream.close();
    if (!stream || std::rename((path + ".new").c_str(), path.c_str()) != 0) {
        fmt::print(stderr, "{}: cannot be written\n", path);
        std::exit(2);
    }
}

bool Model::load(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) return false;
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    Bytes in = std::as_bytes(std::span(text));
    seed = get(in);
    segment = get(in);
    done = get(in);
    killed = get(in) != 0;
    for (ModelFile& f : file) f.load(in);
    return true;
}

}  // namespace uext4::exercise
