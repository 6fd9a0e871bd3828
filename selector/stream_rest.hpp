// What a blocking call on a stream socket does after its first part: it goes on until all is moved. What
// comes between, an error, a signal, a kill or the end of the time, ends it with what was moved, and is left
// to the next call, as Linux leaves it. Internal.
#pragma once

#include "blocking_call.hpp"
#include "remaining.hpp"

#include <cstddef>

#include <sys/socket.h>

namespace annulet::detail {

// Of SOL_SOCKET; 0 where it has none.
[[nodiscard]] int option_of(int socket, int option) noexcept;
[[nodiscard]] bool is_unix(int socket) noexcept;
// A receive of datagrams from such a socket says "nothing yet" for ever where it is told not to wait.
[[nodiscard]] bool is_shut_down(int fd) noexcept;

// Both return how much more was moved of what is `left`. `given`: the call's message as the caller gave it,
// for the sake of its control data; one of none.
[[nodiscard]] std::size_t send_rest(blocking_call& waiting, int socket, remaining& left, int flags,
                                    const msghdr& given);
// MSG_WAITALL. `first`: the message with what the first part brought. What later ones bring is added there.
[[nodiscard]] std::size_t receive_rest(blocking_call& waiting, int socket, remaining& left, int flags,
                                       const msghdr& given, msghdr& first);

}  // namespace annulet::detail
