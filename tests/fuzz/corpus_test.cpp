// Every input that the tree keeps runs through its target: what once crashed stays fixed.
#include "tests/fuzz/targets.h"
#include "tests/hostile/batches.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

namespace uext4::fuzz {
namespace {

std::vector<std::filesystem::path> inputs(std::string_view target) {
    std::vector<std::filesystem::path> out;
    const std::filesystem::path folder = std::filesystem::path(UEXT4_CORPUS) / target;
    if (std::filesystem::is_directory(folder))
        for (const auto& entry : std::filesystem::directory_iterator(folder)) out.push_back(entry.path());
    std::ranges::sort(out);
    return out;
}

class Corpus : public testing::TestWithParam<Target> {};

TEST_P(Corpus, IsReplayed) {
    const auto files = inputs(GetParam().name);
    EXPECT_FALSE(files.empty());
    const auto failures = hostile::run_in_batches(
        files.size(), [&](std::size_t i) { return files[i].string(); },
        [&](std::size_t i) {
            std::ifstream file(files[i], std::ios::binary);
            const std::string bytes{std::istreambuf_iterator<char>(file), {}};
            GetParam().run(bytes_of_string(bytes.data(), bytes.size()));
            return std::vector<std::string>();
        });
    for (const std::string& failure : failures) ADD_FAILURE() << failure;
}

// Where no fuzzer is at hand, chance alone: a few hundred inputs of each target.
TEST_P(Corpus, RandomInputsEnd) {
    const char* wanted = ::getenv("UEXT4_ROUNDS");
    const std::size_t rounds = wanted ? static_cast<std::size_t>(std::atoi(wanted)) : 150;
    const auto failures = hostile::run_in_batches(
        rounds, [&](std::size_t i) { return fmt::format("{} with seed {}", GetParam().name, i); },
        [&](std::size_t i) {
            std::mt19937 random(static_cast<unsigned>(i));
            std::vector<std::byte> bytes(random() % 120 + 13);
            for (auto& b : bytes) b = static_cast<std::byte>(random() % 3 ? random() : random() % 8);
            GetParam().run(bytes);
            return std::vector<std::string>();
        });
    for (const std::string& failure : failures) ADD_FAILURE() << failure;
}

INSTANTIATE_TEST_SUITE_P(Targets, Corpus, testing::ValuesIn(targets().begin(), targets().end()),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace uext4::fuzz
