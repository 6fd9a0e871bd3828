// The transfers that threads of one hub make, at this moment, at the own position of a disk's file. Internal.
//
// Such a call holds the position's lock, which belongs to the open file and is thereby shared by all its
// duplicates and both directions, for as long as the disk takes; and RWF_NOWAIT does not keep another from
// waiting for that lock, nor does a signal end that wait. So whoever wants to transfer by the same open file
// waits here, where deadlines, kills and closes reach him. (What other hubs, threads and processes do with an
// open file that they share with this one is not known here: while one of their transfers is under way, a try
// stops the hub's thread until it has ended.)
#pragma once

#include "file_identity.hpp"

#include <annulet/runtime/intrusive_list.hpp>
#include <annulet/runtime/waiter.hpp>

#include <optional>
#include <utility>

namespace annulet::detail {

class disk_transfers {
 public:
  // One, for as long as it is under way.
  class entry : public list_hook<> {
   public:
    entry(disk_transfers& all, int fd, const std::optional<file_identity>& file) noexcept
        : all_(all), fd_(fd), file_(file) {
      all.entries_.push_back(*this);
    }
    ~entry() {
      all_.hand_over_ = all_.hand_over_ || !waiters_.empty();
      while (!waiters_.empty()) {
        waiters_.front().wake(wake_reason::ready);
      }
    }

    // It is woken when this one has ended, with all that wait: the first of them to make a transfer has them
    // wait for that one. So N that share an open file cost N looks a transfer; they are few.
    void wait_with(waiter& w) noexcept { waiters_.push_back(w); }

   private:
    friend class disk_transfers;
    disk_transfers& all_;
    const int fd_;
    const std::optional<file_identity> file_;
    waiter_list waiters_;
  };

  [[nodiscard]] bool none() const noexcept { return entries_.empty(); }
  // One by the open file that the number stands for; where the kernel tells no open files apart, one of the
  // same file. Null where there is none.
  [[nodiscard]] entry* find(int fd) noexcept;
  // Whether some that waited have been woken since this was asked last. Who comes anew lets them go first, or
  // one that makes transfer after transfer would never let them.
  [[nodiscard]] bool hand_over() noexcept { return std::exchange(hand_over_, false); }

 private:
  intrusive_list<entry> entries_;
  bool hand_over_ = false;
};

}  // namespace annulet::detail
