// Bytes on many socket pairs, of which a few are active in each round: what the selector benches wait for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bench {

// Connected pairs of non-blocking Unix stream sockets. The ends to read from have the low numbers, so that
// select(2) can take as many of them as it is able to.
class socket_pairs {
 public:
  explicit socket_pairs(std::size_t count);
  ~socket_pairs();
  socket_pairs(const socket_pairs&) = delete;
  socket_pairs& operator=(const socket_pairs&) = delete;

  std::size_t size() const { return readers_.size(); }
  std::span<const int> readers() const { return readers_; }
  std::span<const int> writers() const { return writers_; }

  // Whether so many pairs, and a hundred descriptors beside them, may be open at once.
  static bool possible(std::size_t count);

 private:
  std::vector<int> readers_;
  std::vector<int> writers_;
};

// Which sockets are active in a round, and the check that exactly those were reported.
//
// The order is one fixed permutation of all sockets, of which each round takes the next `active`: no socket
// is active twice in a round, and those of one round are not those of the next. Every byte is stamped with
// its round. on_ready() reads the byte of a socket that a poller has reported, and ends the process when
// nothing was sent to that socket in this round, when nothing is there, or when the byte is another one's.
class traffic {
 public:
  // All of the pairs take part, or the first `among` of them.
  traffic(const socket_pairs& sockets, std::size_t active, std::size_t among = 0);

  void begin_round();       // the next round is awaited
  void send_round() const;  // writes the bytes of the present round
  void on_ready(std::size_t socket);
  bool complete() const { return received_ == active_; }

  std::uint64_t round() const { return round_; }
  void set_round(std::uint64_t round);  // for a sender in another process
  std::size_t active() const { return active_; }

 private:
  std::size_t socket_of(std::size_t place) const;
  unsigned char stamp() const { return static_cast<unsigned char>(round_ % 251 + 1); }

  const socket_pairs& sockets_;
  std::size_t active_;
  std::vector<std::uint32_t> order_;
  std::vector<unsigned char> awaited_;  // the stamp that a socket's byte must have; 0 where none is awaited
  std::uint64_t round_ = 0;
  std::size_t first_ = 0;  // of this round, in the order
  std::size_t received_ = 0;
};

}  // namespace bench
