// One registered descriptor: its record, its watch, and where it stands. Internal.
#pragma once

#include "key.hpp"

#include <annulet/hub/nested_set.hpp>
#include <annulet/hub/watch.hpp>

#include <cstdint>
#include <limits>
#include <string>

namespace annulet::detail {

class selector_impl;

// As poll(2) is asked.
[[nodiscard]] short poll_mask(io_event events) noexcept;
// As poll(2) answers, by Python's rule: any bit but OUT means read, any bit but IN means write. So a hang-up
// or an error wakes both.
[[nodiscard]] io_event events_of(short revents) noexcept;
// "descriptor 7", for messages.
[[nodiscard]] std::string number_text(int fd);

// Stays where it is for as long as the selector lives, and serves one registration after another. Two cache
// lines: an event touches these and not the record, which is the user's.
class alignas(64) registration final : public watch {
 public:
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  registration(selector_impl& owner, std::uint32_t its_place) noexcept : place(its_place), owner_(owner) {}

  void begin(const any_record& its_record) noexcept;
  // Gives it another record; returns the old one, whose data's destructor is the user's.
  [[nodiscard]] any_record replace(const any_record& its_record) noexcept;
  void end() noexcept;

  [[nodiscard]] bool taken() const noexcept { return record_.address() != nullptr; }
  [[nodiscard]] int number() const noexcept { return number_; }
  [[nodiscard]] io_event events() const noexcept { return events_; }
  // What the watch has to be armed for.
  [[nodiscard]] std::uint16_t interest() const noexcept;
  // The same, and what it is armed for without need: that is taken back only when an event has shown that it
  // costs something. So who changes his mind to and fro tells the kernel once.
  [[nodiscard]] std::uint16_t lasting_interest() const noexcept {
    return static_cast<std::uint16_t>(interest() | (told ? 0 : armed_for()));
  }

  // Has the file watched by a nested_set, for its poll request was refused. Both return 0 or the errno.
  [[nodiscard]] int nest() noexcept;
  [[nodiscard]] int renest() noexcept;
  [[nodiscard]] bool nested() const noexcept { return nest_.exists(); }

  void on_event(io_result mask) noexcept override;
  void on_close() noexcept override;
  void on_hub_end() noexcept override {}

  [[nodiscard]] const any_record& record() const noexcept { return record_; }  // null while the place is free

  const std::uint32_t place;
  std::uint32_t candidate = none;  // where it stands among the candidates
  unsigned unseen = 0;             // events since a select asked about it
  bool told = false;               // an event came since it was armed
  int error = 0;                   // with which its request was refused
  bool closed = false;             // through the hub: reported for all it asked, whoever has the number now
  bool named = false;              // while unregister_all checks its arguments

 private:
  selector_impl& owner_;
  any_record record_;
  int number_ = -1;  // both as in the record
  io_event events_ = io_event::none;
  nested_set nest_;
};

}  // namespace annulet::detail
