// Damage that the file system reports in its log while a verb works. A failure that names the damage tells it already;
// other damage is printed at the verb's end, once.
#pragma once

#include <string>

namespace uext4::cli {

// A line of the log of a mount of `image`. Damage is kept for print_damage(); other lines are printed at once.
void note_log_line(const std::string& image, bool writable, const std::string& line);
// A failure was printed: damage that it names is not printed again.
void note_failure(const std::string& what);
// Prints the damage that no failure has named. True if a mount that writes met such damage: the verb then fails, since
// a part of the image could not be used.
bool print_damage(const std::string& verb);

}  // namespace uext4::cli
