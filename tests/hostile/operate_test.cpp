// The programs that the fuzzer lets loose on damaged images, on sound ones: they meet no damage, and leave none.
#include "tests/hostile/batches.h"
#include "tests/hostile/visit.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

namespace uext4::hostile {
namespace {

class Programs : public testing::TestWithParam<SeedKind> {};

INSTANTIATE_TEST_SUITE_P(Images, Programs,
                         testing::Values(SeedKind::checksums, SeedKind::bare, SeedKind::inline_data, SeedKind::indirect,
                                         SeedKind::bigalloc, SeedKind::dirty_v3, SeedKind::dirty_v2,
                                         SeedKind::fast_commits),
                         [](const auto& kind) { return std::string(seed_name(kind.param)); });

TEST_P(Programs, OnASoundImageLeaveItSound) {
    const char* wanted = ::getenv("UEXT4_ROUNDS");
    const std::size_t rounds = wanted ? static_cast<std::size_t>(std::atoi(wanted)) : 60;
    const auto failures = run_in_batches(
        rounds, [&](std::size_t i) { return fmt::format("{} with seed {}", seed_name(GetParam()), i); },
        [&](std::size_t i) {
            std::mt19937 random(static_cast<unsigned>(i));
            std::vector<std::byte> program(400);
            for (auto& b : program) b = static_cast<std::byte>(random());
            std::shared_ptr<MemoryDevice> device = seed(GetParam()).copy();
            std::vector<std::string> said = operate(device, program).said;
            // What the mount option means is told as well.
            std::erase_if(said, [](const std::string& line) { return line.starts_with("option data=writeback "); });
            const Visit looked = look_at(device);
            if (!looked.mounted) said.emplace_back("is not mounted any more");
            said.insert(said.end(), looked.said.begin(), looked.said.end());
            return said;
        });
    for (std::size_t i = 0; i < std::min<std::size_t>(failures.size(), 20); ++i) ADD_FAILURE() << failures[i];
    EXPECT_EQ(failures.size(), 0u);
}

}  // namespace
}  // namespace uext4::hostile
