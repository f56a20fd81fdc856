// What find prints: -ls and -printf.
#pragma once

#include "cli/find_expression.h"
#include "cli/format_text.h"

namespace uext4::cli {

// One line, as the action -ls of find(1) prints it; owners are numbers.
std::string find_line(const Found& found);
// What a directive of -printf stands for.
std::string find_value(const Found& found, const Directive& directive);
// The first letters of directives that have two: %Ak, %Ck, %Tk.
inline constexpr const char* find_time_letters = "ACTB";

}  // namespace uext4::cli
