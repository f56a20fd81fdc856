// What the server remembers of each inode that the kernel knows, until the kernel forgets it.
//
// Node ids are inode numbers, but for the root: FUSE calls it 1, ext4 calls it 2. (ext4's inode 1 never has a name.)
// The kernel may know more inodes than the server has memory for, so those that have names are not held: they are read
// again. One whose last name is gone is held here, and so keeps its number: a node id means one file until the kernel
// forgets it.
#pragma once

#include "fuse/lost_ranges.h"
#include "inode/inode.h"

#include <sys/stat.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace uext4::fuse {

// The image has no other writer, so what the kernel remembers stays true until it is asked to change it. Seconds.
inline constexpr double cache_timeout = 3600.0;
// But the blocks of a file that somebody writes to: the kernel, which has the bytes, does not count them.
inline constexpr double growing_timeout = 0.1;
// Syncs in a row, each with more blocks, behind which nobody looked: then the timeout has to do.
inline constexpr unsigned most_unseen = 16;

std::uint64_t node_of(InodeNr number);
InodeNr number_of(std::uint64_t node);

// Thread-safe: work that was handed on holds references of its own and asks here from other threads.
class InodeHandles {
public:
    // One more lookup that the kernel was told of, by a request of thread `asker`, with these attributes.
    void add(const Inode& inode, const struct stat& attributes, pid_t asker);
    void add_root();
    bool knows(std::uint64_t node);
    // The kernel knows this regular file, was told its name and attributes not long ago for a long time, and has never
    // opened it: telling it once more would tell nothing new.
    bool remembers(std::uint64_t node);
    // The last reference to an inode without names is going. True: the kernel knows it, so it is held.
    bool keep_unlinked(const InodeRef& inode);
    // The answer of the last add() did not arrive.
    void take_back(std::uint64_t node);
    // The kernel dropped `count` lookups.
    void forget(std::uint64_t node, std::uint64_t count);
    void clear();

    // How long the kernel may believe attributes with this count of links, in seconds. When a name goes, the kernel
    // takes one off the count that it remembers, maybe after a reply to somebody else has told it the new count. So of
    // what has had several names it must ask each time. And of a file that is open for writing, often.
    double attributes_last(std::uint64_t node, const struct stat& attributes, pid_t asker);
    // What the kernel keeps of a directory's names. Once it was told their end, it may have them all, and shows them.
    // What it was told before that it keeps as well, across changes, until some stream has read the rest: so if there
    // was a change, or damage, the part is stale, and has to be called back before an end is told.
    void note_piece_told(std::uint64_t node);
    bool is_stale(std::uint64_t node);
    void note_end_told(std::uint64_t node);  // nothing is stale any more
    // Names of it have changed. Whether the kernel may have had them all: then they are called back now.
    bool take_names(std::uint64_t node);
    // The same, for whoever opens it and makes the kernel drop what it has. (Not where it has a part only, with which
    // it could not go on.) It has the names until that thread runs again, so they are called back all the same.
    bool may_drop_names(std::uint64_t node);
    // What reading a directory has met, an errno; 0 when it was read from end to end without. As long as there is
    // something, no end is told, or the kernel would keep the names for all.
    void note_damage(std::uint64_t node, int error);
    int damage(std::uint64_t node);
    // What the kernel was told of a directory since this was asked last. Attributes: to another thread than the one
    // that changes a name now; that reply may still be under way, and the kernel would take it for newer than the
    // change.
    struct Told {
        bool names = false, attributes = false;
    };
    Told take_told(std::uint64_t node, pid_t changer);

    // The kernel keeps the times of what it writes, and tells them later, as it tells times that a program sets. After
    // a write, the next ones are the kernel's own: it writes back before it passes a program's on. Answers whether the
    // kernel was told, before the file was opened for writing, attributes that it keeps for long.
    bool note_write(std::uint64_t node);
    bool take_note_of_write(std::uint64_t node, const timespec& mtime);
    // Flags forbid changes from now on: the times of earlier writes are not later than this. (Where a write did not
    // move the kernel's coarse clock, no times of it come, and the next ones are a program's after all.)
    void forbid_times_after(std::uint64_t node, const timespec& last);
    // Whether the kernel was told attributes of a file open for writing, which it still believes for a while, with
    // another count of blocks than this one, st_blocks after a sync; none: nobody knows it. Once, and not any more when
    // that was so many times in a row without anybody looking (note_look): what is called back the next write asks for
    // first, and that is all that whoever appends to a log and syncs it would get of it.
    bool told_other_blocks(std::uint64_t node, std::optional<std::int64_t> blocks);
    // Somebody wants to see its attributes, not to write.
    void note_look(std::uint64_t node);

    // Open handles, of inodes that the kernel may have forgotten already; those that can write are also told when they
    // are gone.
    void opened(std::uint64_t node, bool to_write);
    void closed_to_write(std::uint64_t node);
    std::size_t written_to();  // how many are open for writing
    bool has_writers(std::uint64_t node);

    // An error that the kernel met when it wrote its cache back, long after the call that it would have been for.
    // 0: none, or no more.
    void note_failure(std::uint64_t node, int error);
    int failure(std::uint64_t node);
    std::uint64_t failures(std::uint64_t node);  // how many there were
    // What the kernel has sent of its cache and could not be taken, it does not send again: no sync of the file says
    // that all is durable until these bytes are written anew or cut off; or, for want of space, until nobody has the
    // file open for writing.
    // Answers whether nothing was lost before.
    bool note_lost(std::uint64_t node, std::uint64_t offset, std::uint64_t length, int error);
    void note_written(std::uint64_t node, std::uint64_t offset, std::uint64_t length);
    void note_cut(std::uint64_t node, std::uint64_t size);
    int lost(std::uint64_t node);  // an errno, or 0

    // The kernel keeps in its cache, for written, what found no space. How often that was so, if not all of it has been
    // dropped; otherwise 0. And: what was so until then has been dropped.
    std::uint64_t refused(std::uint64_t node);
    void note_dropped(std::uint64_t node, std::uint64_t refused);

    // What the kernel reads into its cache of a file that is open for writing: before it is read here. A direct write
    // of the same bytes may be under way, for which the kernel has emptied its cache already.
    void note_cached_read(std::uint64_t node, std::uint64_t offset, std::uint64_t length);
    // After a direct write: whether its cache may have what was there before. Once.
    bool take_cached_read(std::uint64_t node, std::uint64_t offset, std::uint64_t length);

    // Whether the kernel was made to write what it has of this part of the file longer ago than `interval`; then it is
    // now.
    enum class Part : std::uint8_t { end, holes };
    bool take_turn_to_send(std::uint64_t node, Part part, std::chrono::steady_clock::duration interval);

private:
    // There may be millions.
    struct Known {
        std::uint64_t lookups = 0;
        pid_t asker = 0;  // of a directory's attributes
        bool several_askers : 1 = false;
        bool end_told : 1 = false;    // of a directory's names: the kernel may have them all
        bool piece_told : 1 = false;  // some of them since then
        bool dropped : 1 = false;     // may_drop_names(), since then
        bool stale : 1 = false;
        bool written : 1 = false;
        bool told_for_long : 1 = false;  // a regular file's attributes
        bool told_while_written : 1 = false;
        bool may_change : 1 = false;  // its times and blocks, with nobody being told: it was opened, or cut
        bool had_several_names : 1 = false;
        bool has_more : 1 = false;
        bool is_unlinked : 1 = false;
        std::uint16_t told_at = 0;  // add(): minutes, of a clock that begins anew after 45 days
        void note(const struct stat& attributes, pid_t by);
        bool take_names();
    };
    static_assert(sizeof(Known) == 16);
    struct Writers {
        std::uint64_t count = 0;
        std::optional<std::int64_t> told_blocks;  // told_while_written: which; none: not the same each time
        unsigned unseen = 0;                      // told_other_blocks(), since the last look
        // By Part, take_turn_to_send(): what was written before was sent by then.
        std::array<std::chrono::steady_clock::time_point, 2> sent;
    };
    // What few have.
    struct More {
        std::optional<timespec> last_time;  // forbid_times_after()
        int failure = 0, damage = 0;
        std::uint64_t failures = 0;
        LostRanges lost;
        std::uint64_t refused = 0, dropped = 0;  // refused()
        ByteRanges read;                         // note_cached_read()
    };
    Known* find(std::uint64_t node);           // null: the kernel does not know it. lock_ held, as for the next.
    More* more(std::uint64_t node);            // null: it has none
    More* more_for_known(std::uint64_t node);  // null: the kernel does not know it
    void note_told(std::uint64_t node, Known& known, const struct stat& attributes);

    std::mutex lock_;
    std::unordered_map<std::uint64_t, Known> known_;
    std::unordered_map<std::uint64_t, More> more_;
    std::unordered_map<std::uint64_t, InodeRef> unlinked_;  // those of the known that have no name any more
    std::unordered_map<std::uint64_t, Writers> writers_;
};

}  // namespace uext4::fuse
