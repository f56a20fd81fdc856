// The expression of find, as find(1) has it: tests, operators and actions.
#pragma once

#include "cli/walk.h"

#include <functional>
#include <memory>

namespace uext4::cli {

// What an expression is asked about.
struct Found {
    const VisitedFile& visit;
    const struct stat& st;
    const std::string& name;   // of the path, as it is printed
    const std::string& start;  // the place that was named, as it is printed
    bool pruned = false;       // what is in it is not visited
};
// The end of the walk, by -quit.
struct FindQuits {};

class FindExpression {
public:
    // `print` is what -print does; an expression without an action of its own does it where it is true.
    FindExpression(std::vector<std::string> words, std::function<void(const Found&)> print, bool only_print);

    // Files whose times the expression compares with, before they are looked at.
    std::vector<std::string> references() const;
    void look_at_references(Listing& listing, bool follow);
    bool holds(Found& found) const { return test_(found); }

    std::size_t least_depth() const { return least_depth_; }
    std::size_t most_depth() const { return most_depth_; }
    bool contents_first() const { return contents_first_; }  // -depth

private:
    using Test = std::function<bool(Found&)>;
    struct Reference {
        std::string text;
        struct stat st{};
    };
    // Which of the three times.
    using Time = format::Timestamp (*)(const struct stat&);

    Test list();
    Test any();
    Test all();
    Test one();
    Test predicate(const std::string& word);
    std::optional<Test> option(const std::string& word);
    std::optional<Test> name_test(const std::string& word);
    std::optional<Test> number_test(const std::string& word);
    std::optional<Test> time_test(const std::string& word);
    std::optional<Test> kind_test(const std::string& word);
    std::optional<Test> action(const std::string& word);
    Test permissions(const std::string& text) const;
    Test size(const std::string& text) const;
    Test types(const std::string& text) const;
    Test newer(const std::string& text, Time time);

    bool at_end() const { return at_ == words_.size(); }
    bool next_is(const char* word) const { return !at_end() && words_[at_] == word; }
    bool skip(const char* word, const char* other);
    std::string argument(const std::string& word);

    std::vector<std::string> words_;
    std::size_t at_ = 0;
    std::function<void(const Found&)> print_;
    bool only_print_, acts_ = false;
    std::size_t least_depth_ = 0, most_depth_ = ~std::size_t{0};
    bool contents_first_ = false;
    format::Timestamp now_;
    std::vector<std::shared_ptr<Reference>> references_;
    unsigned open_ = 0;  // parentheses
    Test test_;
};

}  // namespace uext4::cli
