// The disk files that threads of one hub read or write at their own position at this moment. Internal.
//
// Such a call holds the position's lock, which all duplicates of a descriptor share, for as long as the disk
// takes; and RWF_NOWAIT does not keep another from waiting for that lock. So the hub's thread does not try a
// transfer of the file meanwhile: that goes to a thread as well. (What other hubs, threads and processes do
// with a descriptor that they share with this one is not known here: while one of their transfers is under
// way, a try stops the hub's thread until it has ended.)
#pragma once

#include "file_identity.hpp"

#include <annulet/runtime/intrusive_list.hpp>

#include <optional>

namespace annulet::detail {

class disk_transfers {
 public:
  // One, for as long as it is under way.
  class entry : public list_hook<> {
   public:
    entry(disk_transfers& all, const std::optional<file_identity>& file) noexcept : file_(file) {
      all.entries_.push_back(*this);
    }

   private:
    friend class disk_transfers;
    std::optional<file_identity> file_;
  };

  [[nodiscard]] bool none() const noexcept { return entries_.empty(); }
  // Also where it is not known.
  [[nodiscard]] bool concern(const std::optional<file_identity>& file) noexcept {
    bool found = false;
    entries_.for_each([&](const entry& e) { found = found || !e.file_ || !file || *e.file_ == *file; });
    return found;
  }

 private:
  intrusive_list<entry> entries_;
};

}  // namespace annulet::detail
