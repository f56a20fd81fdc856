// A verb over several places that failures do not end: what cannot be done at one place is told, the others are served,
// and the exit code is the worst.
#pragma once

#include "cli/outcome.h"
#include "cli/session.h"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace uext4::cli {

// An entry of a directory.
struct Entry {
    std::string name;
    std::uint64_t inode = 0;
};
bool is_dot(const std::string& name);  // "." or ".."

class Listing {
public:
    // Opens every image that `places` name, to the end of the verb: later the sandbox lets none be opened.
    // `references`: places of images, or files of the host, that are only looked at by reference().
    Listing(const char* verb, const std::vector<std::string>& places, bool writable, const CommonOptions& options,
            const std::vector<std::string>& references = {})
        : Listing(verb, image_places(places), writable, options, references) {}
    Listing(const char* verb, std::vector<Place> places, bool writable, const CommonOptions& options,
            const std::vector<std::string>& references = {});

    // What a reference says. The end of the verb where it cannot be looked at.
    struct stat reference(const std::string& text, bool follow = true);
    // Failures are counted, but not told (-f).
    void be_quiet() { outcome_.be_quiet(); }

    // What kept `part` from being done at `subject` ("IMAGE:/path"), which was told; nothing, if it was done.
    std::optional<std::string> attempt(const std::string& subject, const std::function<void()>& part);
    // Tells of a failure that ends nothing.
    void tell(int code, const std::string& what) { outcome_.tell(code, what); }

    // On one place, of those that were named.
    void at(const Place& place, const std::function<void(Session&, const std::string& path)>& use);
    // On each place, in the order in which they were named.
    void each(const std::function<void(Session&, const std::string& path)>& use);

    // In the order of their names; `error`: why these are not all.
    std::vector<Entry> entries(Session& s, Inode& directory, const std::string& path,
                               std::optional<std::string>& error);

    // How a path is printed: of several images, with its image.
    std::string name(const Session& s, const std::string& path) const;
    std::size_t count() const { return places_.size(); }
    bool several_images() const { return several_images_; }

    // Last of all. Closes the images, and ends the verb if anything has failed.
    void finish();

private:
    Place reference_place(const std::string& text) const;
    void look_at_host_file(const std::string& text, const std::string& path);
    Session* session(const std::string& image);

    bool is_changed(const std::string& image) const;

    Outcome outcome_;
    bool writable_, several_images_ = false;
    const CommonOptions& options_;
    std::vector<Place> places_;
    std::map<std::string, std::unique_ptr<Session>> sessions_;  // null: could not be opened, which was told
    std::map<std::string, struct stat> host_files_, host_links_;
};

}  // namespace uext4::cli
