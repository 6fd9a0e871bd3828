// The files of a simulation: each has a near end, which the fibers use, and a far one, which is the world's.
//
// What goes through a stream are the bytes 0, 1, 2 and so on, so none can be lost, doubled or changed unseen.
#pragma once

#include "../oracle/dice.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace simulated {

// What must not be, in words.
struct broken {
  std::string what;
};

class place {
 public:
  enum class kind : std::uint8_t { duplex, reads, writes };

  // Makes the files, which it closes again when it is destroyed.
  explicit place(oracle::dice& d);
  ~place();
  place(const place&) = delete;
  place& operator=(const place&) = delete;

  [[nodiscard]] int near() const noexcept { return near_; }
  [[nodiscard]] bool can_read() const noexcept { return kind_ != kind::writes; }
  [[nodiscard]] bool can_write() const noexcept { return kind_ != kind::reads; }
  [[nodiscard]] bool is_socket() const noexcept { return kind_ == kind::duplex; }
  [[nodiscard]] bool far_has_gone() const noexcept { return far_ < 0 || shut_; }

  // The near end's bytes: those that have come, which must be the next; and those to be written next.
  void require_next(const std::uint8_t* bytes, std::size_t count);
  void require_end() const;
  void fill(std::uint8_t* bytes, std::size_t count) const noexcept;
  void has_written(std::size_t count) noexcept { written_ = static_cast<std::uint8_t>(written_ + count); }
  // The number is another's now.
  void near_is_closed() noexcept { near_ = -1; }
  // A number that was closed or replaced: the far end has the end of the stream, at once.
  void require_far_sees_end();

  // Something happens at the far end.
  void act(oracle::dice& d);

  // Who uses it among the fibers.
  bool reading = false;
  bool writing = false;
  unsigned watching = 0;

 private:
  // Takes what is there, at most so many bytes. What read(2) said last.
  long drain(std::size_t most);

  kind kind_;
  int near_ = -1;
  int far_ = -1;
  bool shut_ = false;          // the far end writes no more
  std::uint8_t sent_ = 0;      // by the far end, next
  std::uint8_t received_ = 0;  // by the near end, next
  std::uint8_t written_ = 0;   // by the near end, next
  std::uint8_t seen_ = 0;      // by the far end, next
};

}  // namespace simulated
