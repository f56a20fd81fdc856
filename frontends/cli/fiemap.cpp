// fiemap
#include "cli/session.h"
#include "cli/verbs.h"

namespace uext4::cli {

namespace {

struct FiemapOptions {
    std::string place;
    CommonOptions o;
};

void extents(const std::string& place, const CommonOptions& o) {
    const Place p = image_place(place);
    Session s(p.image, false, o);
    {
        InodeRef inode = s.resolve(p.path);
        const mode_t mode = inode->mode();
        if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
            fail_with(exit_negative, s.at(p.path) + ": is a device, fifo or socket, which has no extents");
        Json out = Json::array();
        const std::uint64_t bs = s.fs().volume().geometry().block_size;
        value_or_fail(
            s.fs().extents(*inode, 0, ~std::uint64_t{0} >> 1,
                           [&](const Mapping& m) {
                               Json j{{"offset", m.offset}, {"length", m.length}, {"place", block_state_name(m.state)}};
                               if (m.has_block()) j["physical"] = m.block.value * bs;
                               if (!o.json)
                                   fmt::print("{:>16} {:>14} {:>16} {}\n", m.offset, m.length,
                                              m.has_block() ? std::to_string(m.block.value * bs) : "-",
                                              block_state_name(m.state));
                               out.push_back(std::move(j));
                               return true;
                           }),
            s.at(p.path));
        if (o.json) print(out);
    }
    s.close();
}

}  // namespace

void add_fiemap_verb(CLI::App& app) {
    auto s = std::make_shared<FiemapOptions>();
    CLI::App* v = app.add_subcommand("fiemap", "Shows where a file's bytes live");
    v->footer("Example: uext4 fiemap disk.img:/file");
    v->add_option("PLACE", s->place, "IMAGE or IMAGE:/path")->required();
    add_common(v, s->o, true, true);
    v->callback([s] { extents(s->place, s->o); });
}

}  // namespace uext4::cli
