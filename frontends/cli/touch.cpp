// touch
#include "cli/listing.h"
#include "cli/source_date.h"
#include "cli/times.h"
#include "cli/verbs.h"

#include <fcntl.h>

#include <algorithm>

namespace uext4::cli {

namespace {

struct TouchOptions {
    std::vector<std::string> places;
    std::optional<std::string> date, stamp, reference;
    bool no_create = false, access = false, modification = false, link_itself = false;
    CommonOptions o;
};

struct TouchTimes {
    format::Timestamp access, modification;
};

format::Timestamp date_of(const std::string& text, format::Timestamp now) {
    const std::optional<format::Timestamp> date = parse_date(text, now);
    if (!date)
        fail_with(exit_failure, fmt::format("'{}' is no date that is known here; known are {}", text, date_forms));
    return *date;
}

class Touch {
public:
    explicit Touch(const TouchOptions& o)
        : o_(o),
          listing_("touch", o.places, true, o.o, o.reference ? std::vector{*o.reference} : std::vector<std::string>()) {
    }

    void run() {
        const TouchTimes times = wanted();
        listing_.each([&](Session& s, const std::string& path) {
            Result<InodeRef> there = s.fs().resolve(path, operator_identity(), !o_.link_itself);
            if (!there && there.error().code == ENOENT && !o_.link_itself) {
                if (o_.no_create) return;
                (void)s.parent_of_file(path);
                Result<std::unique_ptr<OpenFile>> made =
                    s.fs().open_path(path, O_WRONLY | O_CREAT, 0644, operator_identity());
                if (!made) s.refuse_path(made.error(), path);
                there = (*made)->inode_ref();
                if (!sets_times()) return;
            }
            if (!there) s.refuse_path(there.error(), path);
            InodeRef inode = std::move(*there);
            AttributeChange change;
            if (o_.access || !o_.modification) change.atime = times.access;
            if (o_.modification || !o_.access) change.mtime = times.modification;
            value_or_fail(s.fs().set_attributes(*inode, change, operator_identity(), false), s.at(path));
        });
        listing_.finish();
    }

private:
    bool sets_times() const { return o_.date || o_.stamp || o_.reference; }

    TouchTimes wanted() {
        const format::Timestamp now = present_time();
        TouchTimes times{now, now};
        if (o_.reference) {
            const struct stat st = listing_.reference(*o_.reference, !o_.link_itself);
            times = {uext4::cli::stamp(st.st_atim), uext4::cli::stamp(st.st_mtim)};
            // As a copy's times.
            if (value_or_fail(source_date_epoch(), "touch"))
                times = {std::min(times.access, now), std::min(times.modification, now)};
        }
        // With a reference, a date like "+1 day" starts from there.
        if (o_.date) times = {date_of(*o_.date, times.access), date_of(*o_.date, times.modification)};
        if (o_.stamp) {
            const std::optional<format::Timestamp> given = parse_touch_stamp(*o_.stamp, now);
            if (!given) fail_with(exit_failure, fmt::format("'{}' is no date like [[CC]YY]MMDDhhmm[.ss]", *o_.stamp));
            times = {*given, *given};
        }
        return times;
    }

    const TouchOptions& o_;
    Listing listing_;
};

}  // namespace

void add_touch_verb(CLI::App& app) {
    auto s = std::make_shared<TouchOptions>();
    CLI::App* v = app.add_subcommand("touch", "Sets the times of files, making those that are not there");
    v->footer(
        "Examples: uext4 touch disk.img:/etc/ready   uext4 touch -d '2026-01-31 12:00 UTC' disk.img:/a disk.img:/b\n"
        "          uext4 touch -r disk.img:/a disk.img:/b");
    v->add_option("PLACES", s->places, "IMAGE:/path")->required();
    v->add_flag("-a", s->access, "The time of access only");
    v->add_flag("-m", s->modification, "The time of modification only");
    v->add_flag("-c,--no-create", s->no_create, "Make none");
    CLI::Option* date =
        v->add_option("-d,--date", s->date, std::string("This time, not the current one: ") + date_forms);
    CLI::Option* stamp = v->add_option("-t", s->stamp, "This time: [[CC]YY]MMDDhhmm[.ss]");
    CLI::Option* reference =
        v->add_option("-r,--reference", s->reference, "The times of this place of an image, or file of the host");
    stamp->excludes(date);
    stamp->excludes(reference);
    link_itself(v, s->link_itself);
    add_common(v, s->o, false, false);
    v->callback([s] {
        // Ends the verb, if it is none, before an image is opened.
        if (s->date) static_cast<void>(date_of(*s->date, present_time()));
        Touch(*s).run();
    });
}

}  // namespace uext4::cli
