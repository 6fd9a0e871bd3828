// A call of ported code, while it is parked: for any of some files, for a signal, for the time. Internal.
//
// It tells that something may have happened; what, the plain call has to be asked. Of what cannot be watched
// it says so each millisecond. What it armed in the kernel is over when it is destroyed, to the last
// completion: whatever the program then does to the descriptors, nobody else holds them.
#pragma once

#include "nested_set.hpp"
#include "signal_mask.hpp"
#include "watch.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/waiter.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace annulet::detail {

class hub_core;

// How signals find a parked call.
struct signal_terms {
  std::optional<signal_mask> mask{};  // while it is parked; the thread's without
  bool restarts = false;              // after a handler with SA_RESTART it goes on
};

class file_waits {
 public:
  // `name` and `fd`: for lists of what fibers wait for.
  file_waits(hub_core& hub, const char* name, int fd = waiter::no_descriptor) noexcept
      : hub_(hub), name_(name), fd_(fd) {}
  ~file_waits();
  file_waits(const file_waits&) = delete;
  file_waits& operator=(const file_waits&) = delete;

  // Makes room for so many files; once, before any is added. Throws std::bad_alloc.
  void make_room(std::size_t files);
  // One more file, whether it is open or not. The mask is poll(2)'s. Throws std::bad_alloc.
  void add(int fd, std::uint16_t mask);

  // Parks: ready where something may have happened, timed_out, signalled, or interrupted, also before it
  // parks. What interrupted it stays pending. May be called again.
  [[nodiscard]] wake_reason park(deadline until, const signal_terms& signals);

  // Of the files in the order in which they were added: closed through the hub meanwhile, so that its number
  // may be another's.
  [[nodiscard]] bool was_closed(std::size_t place) const noexcept { return files_[place].closed; }
  [[nodiscard]] bool any_was_closed() const noexcept { return any_closed_; }

 private:
  class file final : public watch {
   public:
    void begin(file_waits& owner, int number, std::uint16_t mask) noexcept;
    void on_event(io_result mask) noexcept override;
    void on_close() noexcept override;
    void on_hub_end() noexcept override {}

    bool closed = false;

   private:
    friend class file_waits;
    file_waits* owner_ = nullptr;
    int number_ = -1;
    std::uint16_t mask_ = 0;
    std::uint8_t armings_ = 0;  // up to 2
    bool refused_ = false;      // by the ring
    bool unwatched_ = false;    // there is no way
    nested_set nest_;
  };

  void arm(file& f) noexcept;
  void tell() noexcept;

  static constexpr std::size_t some = 4;

  hub_core& hub_;
  const char* const name_;
  const int fd_;
  bool any_closed_ = false;
  bool any_unwatched_ = false;
  waiter* sleeper_ = nullptr;
  std::array<file, some> few_;
  std::array<watch*, some> few_watches_{};
  std::unique_ptr<file[]> many_;
  std::unique_ptr<watch*[]> many_watches_;
  file* files_ = few_.data();
  watch** watches_ = few_watches_.data();
  std::size_t count_ = 0;
};

}  // namespace annulet::detail
