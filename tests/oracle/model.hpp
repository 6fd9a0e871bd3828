// What the oracle knows: which keys a selector must have, and what select must say of them.
//
// The rule is poll(2)'s answer, any bit but OUT as read, any bit but IN as write, masked by what was asked.
#pragma once

#include "files.hpp"

#include <annulet/selector/selector.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <poll.h>

namespace oracle {

using selector = annulet::basic_selector<std::uint64_t>;

enum class standing : std::uint8_t {
  live,
  closed,  // through the hub: everything asked for, until unregistered
  behind,  // behind the hub's back: nothing, everything, or the number's present state
};

struct registration {
  int fd;
  annulet::io_event events;
  std::uint64_t data;
  standing how = standing::live;
  // The kernel holds the file of one that was closed behind the hub's back, until it is unregistered.
  std::shared_ptr<file> pinned{};
};

// The keys of one selector.
class registrations {
 public:
  [[nodiscard]] std::vector<registration>& all() noexcept { return keys_; }
  [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }
  [[nodiscard]] bool empty() const noexcept { return keys_.empty(); }
  [[nodiscard]] std::size_t behind() const noexcept { return behind_; }
  [[nodiscard]] registration* find(int fd) noexcept {
    const auto at = static_cast<std::size_t>(fd);
    return fd < 0 || at >= place_.size() || place_[at] < 0 ? nullptr
                                                           : &keys_[static_cast<std::size_t>(place_[at])];
  }
  void add(const registration& key);
  void erase(int fd);
  void clear();
  // What becomes of a key whose descriptor is closed.
  void note_closed(int fd);
  void note_behind(int fd, std::shared_ptr<file> old);

 private:
  std::vector<registration> keys_;
  std::vector<int> place_;  // by fd; -1 where it has none
  std::size_t behind_ = 0;
};

[[nodiscard]] short poll_mask(annulet::io_event asked) noexcept;
[[nodiscard]] annulet::io_event mapped(short revents, annulet::io_event asked) noexcept;

// poll(2) on all keys at this moment, in their order.
void look(registrations& keys, std::vector<pollfd>& out);
// What select would have to say of a key, but for one that is behind.
[[nodiscard]] annulet::io_event expected(const registration& key, const pollfd& polled) noexcept;
// Whether select would have to return at once.
[[nodiscard]] bool anything_ready(registrations& keys, std::vector<pollfd>& scratch);

// How strictly a result is held to what poll said after it.
enum class rule : std::uint8_t {
  exact,    // nothing can have happened between
  no_more,  // more may have become ready since, but nothing may have ceased to be
};

struct judgement {
  bool judged = true;                 // poll said the same before and after
  std::string wrong{};                // empty where all is well
  int fd = -1;                        // which
  const registration* key = nullptr;  // its registration, where there is one
};

[[nodiscard]] judgement judge(registrations& keys, const std::vector<selector::ready_type>& ready,
                              const std::vector<pollfd>& before, const std::vector<pollfd>& after, rule by);

}  // namespace oracle
