// cp.
#include "cli/cat.h"
#include "cli/copy.h"
#include "cli/copy_words.h"
#include "cli/interrupt.h"
#include "cli/session.h"
#include "cli/verbs.h"
#include "fuse/heap.h"

#include <algorithm>
#include <filesystem>
#include <map>

namespace uext4::cli {

namespace {

// A file's contents, on standard output.
void copy_to_output(const Place& from, const CommonOptions& common) {
    Session session(from.image, false, common);
    print_file(session, from.path);
    session.close();
}

void copy_into(const Place& to, const std::vector<Place>& sources, const CopyOptions& o, const CommonOptions& common) {
    std::map<std::string, std::unique_ptr<SourceTree>> trees;
    if (sources.front().kind == Place::Kind::standard) {
        auto input = std::make_unique<StandardInputTree>();
        if (is_image(to.image, input->status()))
            fail_with(exit_negative, "standard input: is the image that is copied to");
        trees[sources.front().image] = std::move(input);
    }
    open_beforehand(to.image, true, common);
    for (const Place& from : sources)
        if (!from.image.empty() && !same_image(from.image, to.image)) open_beforehand(from.image, false, common);
    // Each inode and name of a tree takes memory until the end.
    if (o.recursive) fuse::prepare_heap(fuse::usual_smallest);
    Session target(to.image, true, common);
    if (sources.front().kind == Place::Kind::standard && target.fs().resolve(to.path, operator_identity()))
        if (target.resolve(to.path)->is_directory())
            fail_with(exit_negative, target.at(to.path) + ": is a directory, and standard input has no name in it");
    if (sources.size() > 1 && !target.resolve(to.path)->is_directory())
        fail_with(exit_negative, target.at(to.path) + ": is no directory");
    // Each image once, whatever is named in it, and all of them before anything is copied.
    std::map<std::string, std::unique_ptr<Session>> others;
    for (const Place& from : sources) {
        std::unique_ptr<SourceTree>& tree = trees[from.image];
        if (tree) continue;
        if (from.image.empty()) {
            tree = std::make_unique<HostTree>();
        } else if (same_image(from.image, to.image)) {
            tree = std::make_unique<ImageTree>(target);
        } else {
            others[from.image] = std::make_unique<Session>(from.image, false, common);
            tree = std::make_unique<ImageTree>(*others[from.image]);
        }
    }
    Outcome outcome("cp");
    {
        CopyIn in(target, o, outcome);
        for (const Place& from : sources) in.expect(*trees[from.image], from.path);
        for (const Place& from : sources) in.copy(*trees[from.image], from.path, to.path);
        in.finish();
    }
    for (const auto& [image, session] : others) session->close();
    target.close();
    outcome.finish();
}

void copy_from_images(const std::vector<Place>& sources, const std::string& to, const CopyOptions& o,
                      const CommonOptions& common) {
    std::error_code ignored;
    if (sources.size() > 1 && !std::filesystem::is_directory(to, ignored))
        fail_with(exit_negative, to + ": is no directory");
    std::vector<std::pair<std::string, std::vector<std::string>>> images;  // in the order they are named
    for (const Place& from : sources) {
        if (images.empty() || images.back().first != from.image)
            images.emplace_back(from.image, std::vector<std::string>{});
        images.back().second.push_back(from.path);
    }
    for (const auto& [image, paths] : images) open_beforehand(image, false, common);
    Outcome outcome("cp");
    CopiesOut all;
    all.several = sources.size() > 1;
    for (const auto& [image, paths] : images) all.images.push_back(image);
    for (const auto& [image, paths] : images) {
        Session from(image, false, common);
        catch_interrupts();
        {
            CopyOut out(from, o, outcome, all);
            for (const std::string& path : paths) out.expect(path);
            for (const std::string& path : paths) out.copy(path, to);
            out.finish();
        }
        from.close();
    }
    outcome.finish();
}

void copy(const CopyWords& words) {
    const CopyOptions o = words.options();
    std::vector<Place> sources = words.places();
    if (CopyNeeds needs = needs_of(sources, o); needs.host.reach != SandboxProfile::image)
        reach_host_files(std::move(needs.host));
    const Place to = std::move(sources.back());
    sources.pop_back();
    if (to.kind == Place::Kind::standard) copy_to_output(sources.front(), words.common);
    else if (!to.image.empty()) copy_into(to, sources, o, words.common);
    else copy_from_images(sources, to.path, o, words.common);
}

}  // namespace

void add_content_verbs(CLI::App& app) {
    {
        auto s = std::make_shared<CopyWords>();
        CLI::App* v = app.add_subcommand("cp", "Copies into, out of, or between images");
        v->footer(
            "Examples: uext4 cp -a rootfs disk.img:/   uext4 cp disk.img:/etc/fstab .\n"
            "          uext4 cp -a --map-owner 1000:0 tree disk.img:/srv");
        s->add_to(*v);
        v->callback([s] { copy(*s); });
    }
}

}  // namespace uext4::cli
