/* The drop-ins that know how large the memory is that they are to fill: what _FORTIFY_SOURCE makes of a call
 * by way of <annulet/selector/replace.h>, as glibc's __read_chk and so on. Where it is too small they end the
 * process, as glibc does. Internal. */
#pragma once

#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* The last is the size of what `fds` points to, in bytes. */
int annulet_poll_chk(struct pollfd* fds, nfds_t nfds, int milliseconds, size_t room);
int annulet_ppoll_chk(struct pollfd* fds, nfds_t nfds, const struct timespec* timeout, const sigset_t* mask,
                      size_t room);
ssize_t annulet_read_chk(int fd, void* into, size_t size, size_t room);
ssize_t annulet_recv_chk(int socket, void* into, size_t size, size_t room, int flags);
ssize_t annulet_recvfrom_chk(int socket, void* into, size_t size, size_t room, int flags,
                             struct sockaddr* sender, socklen_t* sender_size);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
