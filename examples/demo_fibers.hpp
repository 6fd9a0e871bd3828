// The demo's second act: the same messages without a selector. Each connection is served by a fiber in
// blocking style, in the shape of fiber_echo, and its client is a fiber too, on the same thread.
#pragma once

#include <netinet/in.h>
#include <chrono>
#include <cstddef>

namespace demo {

// Says how it goes, and in the end what was served. Throws std::runtime_error where anything is not as it
// must be.
void serve_by_fibers(int listener, const sockaddr_in& address, std::size_t connections,
                     std::chrono::milliseconds time);

}  // namespace demo
