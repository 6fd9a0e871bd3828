// The keys about which the kernel has to be asked, and beside each what poll(2) is asked: kept from call to
// call, never built anew. Internal.
#pragma once

#include "registration.hpp"

#include <cstddef>
#include <vector>

#include <poll.h>

namespace annulet::detail {

class candidates {
 public:
  [[nodiscard]] bool empty() const noexcept { return keys_.empty(); }
  [[nodiscard]] const std::vector<registration*>& keys() const noexcept { return keys_; }

  [[nodiscard]] std::size_t room() const noexcept { return keys_.capacity(); }
  // So that nothing allocates inside the engine, where nothing may be thrown. May throw std::bad_alloc.
  void make_room(std::size_t count);
  // Adds it if it is not there, and asks what it asks for now.
  void put(registration& r) noexcept;
  void remove(registration& r) noexcept;

  // Asks poll(2), with timeout 0, about all. Throws std::system_error, and nothing has changed.
  void ask();

  // Calls still(registration, events) with what poll(2) answered for each; those for which it says false are
  // no candidates any more.
  template <class Still>
  void sweep(Still&& still) {
    std::uint32_t kept = 0;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      registration& r = *keys_[i];
      if (!still(r, r.closed ? r.events() : events_of(asked_[i].revents) & r.events())) {
        r.candidate = registration::none;
        continue;
      }
      keys_[kept] = &r;
      asked_[kept] = asked_[i];
      r.candidate = kept++;
    }
    keys_.resize(kept);
    asked_.resize(kept);
  }

 private:
  std::vector<registration*> keys_;
  std::vector<pollfd> asked_;
};

}  // namespace annulet::detail
