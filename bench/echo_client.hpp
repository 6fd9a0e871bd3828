// The load generator of `echo`: a process on the other processor, on raw epoll, that sends, receives, and
// checks every byte. It is the same for all servers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "child_process.hpp"

namespace bench {

struct echo_load {
  std::size_t connections = 1;
  std::size_t message = 64;     // bytes
  std::size_t outstanding = 1;  // messages under way on each connection
};

// Connections over the loopback device, made before anything is measured and used by all servers in turn.
class echo_client {
 public:
  echo_client(const echo_load& load, int processor);
  ~echo_client();
  echo_client(const echo_client&) = delete;
  echo_client& operator=(const echo_client&) = delete;

  // Whether so many connections may be open here, at both ends, and duplicated.
  static bool possible(std::size_t connections);

  // Has it send so many messages in all, as fast as they come back, while it waits as a client waits; or
  // paced, one at a time on idle connections, while it spins. Returns at once.
  void order(std::uint64_t echoes, double interval_ns);
  // Waits until all have come back as they were sent. Returns how often the client slept meanwhile.
  std::uint64_t sleeps();

  std::span<const int> server_ends() const { return server_ends_; }

 private:
  struct ends;
  static ends connect(std::size_t count);
  echo_client(const echo_load& load, int processor, ends made);

  std::vector<int> server_ends_;
  int control_;
  child_process child_;
};

}  // namespace bench
