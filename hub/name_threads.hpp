// Threads that resolve names for the fibers of a hub. Not its pool's: a server takes as long as it likes, and
// nothing ends a resolution early, so neither a disk nor the hub's end shall wait for one. It holds what it
// uses, and goes on alone where nobody waits for it any more, also when its hub has ended. Internal.
#pragma once

#include <annulet/runtime/future.hpp>

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>

namespace annulet::detail {

class name_threads {
 public:
  class resolution {
   public:
    resolution() = default;
    resolution(const resolution&) = delete;
    resolution& operator=(const resolution&) = delete;
    virtual ~resolution() = default;
    // Called once, by a thread of its own with all signals blocked.
    virtual void run() noexcept = 0;

    // Kept when it has run. The future's side is the asking fiber's.
    const std::shared_ptr<promised> done = std::make_shared<promised>();
  };

  // For the hub's thread. It begins at once, or where there are `most` when one of them is through. Throws
  // std::bad_alloc, and std::system_error where there is no thread and none to be had.
  static void submit(const std::shared_ptr<name_threads>& these, std::shared_ptr<resolution> asked);
  // One that has not begun does not. The hub's thread.
  void withdraw(const resolution& asked) noexcept;

 private:
  static constexpr std::size_t most = 64;

  [[nodiscard]] std::shared_ptr<resolution> next() noexcept;
  static void work(const std::shared_ptr<name_threads>& these) noexcept;
  static void start(const std::shared_ptr<name_threads>& these);

  std::mutex mutex_;  // for all that follows
  std::deque<std::shared_ptr<resolution>> queued_;
  std::size_t threads_ = 0;
};

}  // namespace annulet::detail
