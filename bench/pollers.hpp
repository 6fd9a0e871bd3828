// One face for all that can watch many descriptors for reading, so that the selector benches run the same
// rounds on each of them. It costs one virtual call a wait, to every contender alike.
//
// A poller registers descriptors when it is made, and lets go of all of them when it is destroyed. One
// descriptor in two pollers would make both pay for every wake-up, so at any time one poller only exists on a
// set of sockets: a turn makes its own, outside of the measured time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "traffic.hpp"

namespace bench {

class poller {
 public:
  virtual ~poller() = default;

  // Waits until something is ready and hands the index of each to the traffic.
  virtual void wait(traffic& sink) = 0;
};

using poller_factory = std::unique_ptr<poller> (*)(std::span<const int> readers);

std::unique_ptr<poller> make_annulet_poller(std::span<const int> readers);  // needs a hub on this thread
std::unique_ptr<poller> make_epoll_level_poller(std::span<const int> readers);
// Edge-triggered and spared the read that would find the socket empty: each round sends one byte to a socket.
std::unique_ptr<poller> make_epoll_edge_poller(std::span<const int> readers);
std::unique_ptr<poller> make_poll_poller(std::span<const int> readers);
std::unique_ptr<poller> make_select_poller(
    std::span<const int> readers);  // descriptors below FD_SETSIZE only
std::unique_ptr<poller> make_libev_poller(std::span<const int> readers);
std::unique_ptr<poller> make_libevent_poller(std::span<const int> readers);
std::unique_ptr<poller> make_libuv_poller(std::span<const int> readers);

class meter;

// A turn in which this thread sends and waits: one round after the other on the first `registered` sockets.
// An operation is one event.
void run_rounds(meter& clock, poller& by, traffic& load, std::uint64_t events);

}  // namespace bench
