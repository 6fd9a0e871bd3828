// One call that the kernel carries out by itself, into memory of the caller's frame: for what has no
// non-blocking form. The frame is left only after `complete`, cancelled or not.
#pragma once

#include "file_identity.hpp"
#include "io_result.hpp"

#include <annulet/runtime/intrusive_list.hpp>
#include <annulet/runtime/waiter.hpp>

#include <cstdint>
#include <optional>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

namespace annulet::detail {

// What the kernel is to do. All that is pointed at stays until the request is complete.
struct operation {
  enum class call : std::uint8_t {
    readv,
    writev,
    accept,
    connect,
    close,
    fsync,
    fdatasync,
    statx,
    open,
    sendmsg
  };
  static constexpr auto own_position = static_cast<std::uint64_t>(-1);

  call what;
  int fd;
  const iovec* vectors = nullptr;  // readv, writev
  unsigned vector_count = 0;
  std::uint64_t position = own_position;  // readv, writev: the file's own, or another
  sockaddr* address = nullptr;            // accept: null where nobody asks; connect: the peer's
  socklen_t* address_size = nullptr;
  const char* path = nullptr;       // open, statx: below `fd`
  struct statx* about = nullptr;    // statx
  const msghdr* message = nullptr;  // sendmsg
  int flags = 0;                    // accept4's, openat's, statx's, sendmsg's
  unsigned mode = 0;                // openat's; of statx the mask
  bool by_worker = false;           // not by the ring itself, which would stop the thread: see io_step.cpp
  bool on_disk = false;             // it waits for no peer; an open that would is refused: waits_for_peer
  bool by_thread = false;           // of ours, and not by the ring
  // The one that is meant, where a thread makes the call later: the number may be another's by then.
  std::optional<file_identity> file = std::nullopt;

  // What an open says that is not to wait for a peer, and would. No system call has this to say.
  static constexpr int waits_for_peer = 512;  // ERESTARTSYS

  // While it is under way nobody else may use the position.
  [[nodiscard]] bool at_own_position() const noexcept {
    return (what == call::readv || what == call::writev) && position == own_position;
  }
  // io_uring does these otherwise than Linux's own calls: uring_requests.cpp.
  [[nodiscard]] bool needs_thread() const noexcept {
    return by_thread || what == call::close || what == call::open || what == call::sendmsg ||
           (on_disk && at_own_position());
  }
};

// On its descriptor's list while the kernel has it. An engine calls complete(), once, from inside.
class request : public list_hook<> {
 public:
  void complete(io_result result) noexcept {
    result_ = result;
    done_ = true;
    if (sleeper_ != nullptr) {
      sleeper_->wake(wake_reason::ready);
    }
  }
  [[nodiscard]] bool done() const noexcept { return done_; }
  [[nodiscard]] io_result result() const noexcept { return result_; }
  // Whom to wake.
  void wait_with(waiter* sleeper) noexcept { sleeper_ = sleeper; }
  // The descriptor is being closed; whoever waits for the last completion already goes on waiting for it.
  void disturb() noexcept {
    if (sleeper_ != nullptr && !given_up_) {
      sleeper_->wake(wake_reason::closed);
    }
  }
  void give_up() noexcept { given_up_ = true; }

  void* carrier = nullptr;  // the engine's own

 private:
  io_result result_{0};
  waiter* sleeper_ = nullptr;
  bool done_ = false;
  bool given_up_ = false;
};

}  // namespace annulet::detail
