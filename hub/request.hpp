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
#include <sys/uio.h>

namespace annulet::detail {

// What the kernel is to do. All that is pointed at stays until the request is complete.
struct operation {
  enum class call : std::uint8_t { readv, writev, accept, connect, close };

  call what;
  int fd;
  const iovec* vectors = nullptr;  // readv, writev: from and to the file's own position
  unsigned vector_count = 0;
  sockaddr* address = nullptr;  // accept: null where nobody asks; connect: the peer's
  socklen_t* address_size = nullptr;
  int flags = 0;           // accept4's
  bool by_worker = false;  // not by the ring itself, which would stop the thread: see io_step.cpp
  bool on_disk = false;    // readv, writev: it waits for no peer
  // The one that is meant, where a thread makes the call later: the number may be another's by then.
  std::optional<file_identity> file = std::nullopt;
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
