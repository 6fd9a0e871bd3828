// Threads that resolve names for the fibers of a hub. Not its pool's: a server takes as long as it likes, and
// nothing ends a resolution early, so neither a disk nor the hub's end shall wait for one. It holds what it
// uses, and once begun goes on where nobody waits for it any more, also when its hub has ended. Internal.
#pragma once

#include <annulet/runtime/future.hpp>

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>

namespace annulet::detail {

class name_threads : public std::enable_shared_from_this<name_threads> {
 public:
  class resolution {
   public:
    resolution() = default;
    resolution(const resolution&) = delete;
    resolution& operator=(const resolution&) = delete;
    virtual ~resolution() = default;
    // Called once, by one of the threads, with all signals blocked.
    virtual void run() noexcept = 0;

    // Kept when it has run. The future's side is the asking fiber's.
    const std::shared_ptr<promised> done = std::make_shared<promised>();

   private:
    friend class name_threads;
    bool runs_ = false;
    bool abandoned_ = false;
  };

  // Those below are for the hub's thread.

  // It begins at once, or where `most` are under way when one of them is through. Throws std::bad_alloc, and
  // std::system_error where no thread is to be had for it; then nothing has happened.
  void submit(const std::shared_ptr<resolution>& asked);
  // Nobody waits for it any more: it does not begin, or holds up nobody behind it.
  void abandon(resolution& asked) noexcept;

 private:
  static constexpr std::size_t most = 64;           // that somebody waits for
  static constexpr std::size_t most_threads = 256;  // with those that were abandoned

  [[nodiscard]] bool has_room() const noexcept {
    return threads_ - abandoned_ < most && threads_ < most_threads;
  }
  void start();
  void work() noexcept;
  // The next, when the thread is through with one. Null where it is to end.
  [[nodiscard]] std::shared_ptr<resolution> next(resolution* done_with) noexcept;

  std::mutex mutex_;  // for all that follows
  std::deque<std::shared_ptr<resolution>> queued_;
  std::size_t threads_ = 0;
  std::size_t abandoned_ = 0;  // resolutions that run, each on one of them
};

}  // namespace annulet::detail
