// Files by name and at positions, as calls that park the fiber and never the thread: open, pread, pwrite,
// fsync, statx. What holds for the calls of io.hpp holds here; io.hpp has those at a file's own position.
//
//   const annulet::descriptor file = annulet::open("log", O_RDWR | O_CREAT | O_APPEND);
//   const auto size = annulet::statx(file).stx_size;
//
// - Errors are std::system_error with the errno of Linux, naming the call and the path or descriptor.
// - A deadline that came first is deadline_passed. One of zero or in the past looks once. What a disk has
// begun
//   ends when it ends, and counts: a call that succeeded after a deadline, a kill or a guard returns its
//   result, and the kill or guard stays pending.
// - Calls at positions take no turn: any number go on side by side on one descriptor.
//
// For the hub's thread; throws no_hub on a thread without one. All of them may park.
#pragma once

#include "buffer.hpp"
#include "descriptor.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/errors.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>

namespace [[gnu::visibility("default")]] annulet {

// The descriptor is close-on-exec, whatever the flags say; new files get mode 0666, or `mode`, less the
// umask. Opening a FIFO waits for the other side, as open(2) does, and ends by deadline and kill without a
// trace. A zero within the path is std::invalid_argument.
[[nodiscard]] descriptor open(const std::string& path, int flags, deadline until = deadline::never());
[[nodiscard]] descriptor open(const std::string& path, int flags, mode_t mode,
                              deadline until = deadline::never());

// One call: it may take less than it was given. 0 from pread is the end of the file. Positions are in bytes;
// those beyond 2^63 - 1, negative ones among them, are EINVAL, and a pipe or socket is ESPIPE. A file that
// was opened with O_APPEND is appended to wherever pwrite is told to write, as Linux has it.
std::size_t pread(file_ref file, mutable_buffer into, std::uint64_t position,
                  deadline until = deadline::never());
std::size_t pwrite(file_ref file, const_buffer from, std::uint64_t position,
                   deadline until = deadline::never());
// All of it, or up to the end of the file: less than asked for means that it ended. `done` is kept at the
// count so far, also when something is thrown (ENOSPC on a full disk): those bytes are transferred. Others'
// transfers may come in between.
std::size_t pread_exactly(file_ref file, mutable_buffer into, std::uint64_t position,
                          deadline until = deadline::never(), std::size_t* done = nullptr);
void pwrite_all(file_ref file, const_buffer from, std::uint64_t position, deadline until = deadline::never(),
                std::size_t* done = nullptr);

// What was written is on the disk when they return; fdatasync leaves out what is not needed to find it there.
void fsync(file_ref file, deadline until = deadline::never());
void fdatasync(file_ref file, deadline until = deadline::never());

// What statx(2) says, of an open file or of what is at the path. `mask` is of STATX_..., `flags` of AT_...
// (AT_SYMLINK_NOFOLLOW, say). A zero within the path is std::invalid_argument.
[[nodiscard]] struct ::statx statx(file_ref file, unsigned mask = STATX_BASIC_STATS,
                                   deadline until = deadline::never());
[[nodiscard]] struct ::statx statx(const std::string& path, unsigned mask = STATX_BASIC_STATS, int flags = 0,
                                   deadline until = deadline::never());

}  // namespace annulet
