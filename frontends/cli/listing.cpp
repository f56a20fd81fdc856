#include "cli/listing.h"

#include "cli/interrupt.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace uext4::cli {

bool is_dot(const std::string& name) { return name == "." || name == ".."; }

Listing::Listing(const char* verb, std::vector<Place> places, bool writable, const CommonOptions& options,
                 const std::vector<std::string>& references)
    : outcome_(verb), writable_(writable), options_(options), places_(std::move(places)) {
    std::vector<std::string> images;
    for (const Place& place : places_) images.push_back(place.image);
    for (const std::string& image : images) several_images_ |= !same_image(image, images.front());
    for (const std::string& text : references) {
        const Place place = reference_place(text);
        if (place.kind == Place::Kind::image) images.push_back(place.image);
        else look_at_host_file(text, place.path);
    }
    if (std::ranges::all_of(images, [&](const std::string& image) { return same_image(image, images.front()); }))
        return;
    for (const std::string& image : images)
        if (!sessions_.contains(image) &&
            attempt(image, [&] { open_beforehand(image, writable && is_changed(image), options); }))
            sessions_[image] = nullptr;
}

bool Listing::is_changed(const std::string& image) const {
    return std::ranges::any_of(places_, [&](const Place& place) { return same_image(place.image, image); });
}

// ":/path" is in the image of the last place.
Place Listing::reference_place(const std::string& text) const {
    Place place = any_place(text, places_.empty() ? nullptr : &places_.back());
    if (place.kind == Place::Kind::standard) fail_with(exit_failure, text + ": is no file that can be looked at");
    return place;
}

void Listing::look_at_host_file(const std::string& text, const std::string& path) {
    if (const std::optional<std::string> missing = missing_image(path)) fail_with(exit_failure, *missing);
    if (in_sandbox())
        fail_with(exit_failure,
                  text + ": the shell's commands cannot look at this file of the host; name a path of the image");
    struct stat file{}, link{};
    const int error = ::stat(path.c_str(), &file) == 0 && ::lstat(path.c_str(), &link) == 0 ? 0 : errno;
    if (error != 0) fail_with(exit_negative, text + ": " + std::strerror(error));
    host_files_[text] = file;
    host_links_[text] = link;
}

struct stat Listing::reference(const std::string& text, bool follow) {
    const std::map<std::string, struct stat>& known = follow ? host_files_ : host_links_;
    if (const auto found = known.find(text); found != known.end()) return found->second;
    const Place place = reference_place(text);
    Session* s = session(place.image);
    if (!s) fail_with(exit_failure, "");  // it was told that the image cannot be opened
    InodeRef inode = s->resolve(place.path, follow);
    return value_or_fail(s->fs().attributes(*inode), s->at(place.path));
}

std::optional<std::string> Listing::attempt(const std::string& subject, const std::function<void()>& part) {
    std::optional<std::string> failure = outcome_.attempt(part);
    const std::string begin = subject + ": ";
    if (failure && failure->starts_with(begin)) failure->erase(0, begin.size());
    return failure;
}

void Listing::at(const Place& place, const std::function<void(Session&, const std::string&)>& use) {
    attempt(place.image, [&] {
        if (Session* s = session(place.image)) use(*s, place.path);
        count_complete();
    });
}

void Listing::each(const std::function<void(Session&, const std::string&)>& use) {
    for (const Place& place : places_) at(place, use);
}

// One for each image, however it is spelled.
Session* Listing::session(const std::string& image) {
    if (const auto known = sessions_.find(image); known != sessions_.end()) return known->second.get();
    for (const auto& [name, session] : sessions_)
        if (session && same_image(name, image)) return session.get();
    std::unique_ptr<Session>& made = sessions_[image];  // null, should it fail
    made = std::make_unique<Session>(image, writable_ && is_changed(image), options_);
    return made.get();
}

std::vector<Entry> Listing::entries(Session& s, Inode& directory, const std::string& path,
                                    std::optional<std::string>& error) {
    std::vector<Entry> out;
    const auto add = [&](const DirectoryEntry& e) {
        out.push_back({std::string(e.name), e.inode.value});
        return true;
    };
    error = attempt(s.at(path), [&] { value_or_fail(s.fs().read_directory(directory, 0, add), s.at(path)); });
    std::ranges::sort(out, {}, &Entry::name);
    return out;
}

std::string Listing::name(const Session& s, const std::string& path) const {
    return several_images_ ? s.at(path) : path;
}

void Listing::finish() {
    for (const auto& [image, session] : sessions_)
        if (session) attempt(image, [&] { session->close(); });
    outcome_.finish();
}

}  // namespace uext4::cli
