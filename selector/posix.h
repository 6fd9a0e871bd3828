/* select, poll and epoll_wait for ported code, and the calls around them: each waits as the call of its name
 * does, but what waits is the fiber, and others of the thread run meanwhile. C11 and C++.
 *
 *   annulet_poll(fds, 2, 500);    in the place of    poll(fds, 2, 500);
 *
 * <annulet/selector/replace.h> puts them there without a change to the source.
 *
 * Signatures, results, errno, what is written back, and which signals end them are those of the Linux call.
 * On a thread without a hub, a forked child's among them, they are the plain call. They may be called by
 * every fiber of a hub, C++ or C, and by threads without one. None throws.
 *
 * What differs, because fibers are not threads:
 *
 *   A signal ends the calls that are parked when its handler runs while the thread waits. One that comes
 * while another fiber runs ends none; where the thread blocks it and the call lets it in (pselect), nothing
 * is lost. A handler that runs in a wait has all signals blocked, but those of faults.
 *
 *   A signal to the process may be handled by another thread that lets it in, and end none of the main
 * thread's calls, while fibers there are parked with differing masks, or in a read, a write or an accept.
 *
 *   A kill, or the expiry of a timeout guard, ends a call that waits with ECANCELED, and each later one that
 * would have to wait, so that clean-up code runs; calls that need not wait, and annulet_close, work as usual.
 * annulet_sleep then returns 0, for who sleeps in a loop until nothing is left. In a C++ fiber it stays
 * pending, and the next call of annulet's C++ interface that may park throws it.
 *
 *   A descriptor that another fiber of the same hub closes by annulet_close, or by annulet::close, ends a
 * wait for it at once: POLLNVAL for poll, EBADF for the others. (A thread's poll would go on waiting for the
 * file, and so does a fiber for one that another hub closes.)
 *
 *   Any of them but a close that need not wait may let other fibers run, also where it finds at once what it
 * wants: so hold no pthread mutex over one.
 *
 *   A signal's handler makes plain calls: one that has to wait stops the thread, for whom the handler has
 * interrupted must not find that others ran meanwhile. (One that blocks no signal, not even its own, is not
 * known for a handler while fibers run.) It must not close what fibers wait for.
 *
 *   Without a hub, too, they go to the kernel directly, and are no places where pthread_cancel takes effect.
 *
 * Nothing of a call is left in the kernel when it has returned, but of a name that is being resolved.
 */
#pragma once

#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* The sets may be larger than an fd_set: they have as many bits as `nfds` says. Linux writes back what is
 * left of the time; pselect does not. */
int annulet_select(int nfds, fd_set* readfds, fd_set* writefds, fd_set* exceptfds, struct timeval* timeout);
int annulet_pselect(int nfds, fd_set* readfds, fd_set* writefds, fd_set* exceptfds,
                    const struct timespec* timeout, const sigset_t* mask);

int annulet_poll(struct pollfd* fds, nfds_t nfds, int milliseconds);
int annulet_ppoll(struct pollfd* fds, nfds_t nfds, const struct timespec* timeout, const sigset_t* mask);

/* Any number of fibers may wait for one epoll descriptor. */
int annulet_epoll_wait(int epoll, struct epoll_event* events, int maxevents, int milliseconds);
int annulet_epoll_pwait(int epoll, struct epoll_event* events, int maxevents, int milliseconds,
                        const sigset_t* mask);
int annulet_epoll_pwait2(int epoll, struct epoll_event* events, int maxevents, const struct timespec* timeout,
                         const sigset_t* mask);

unsigned annulet_sleep(unsigned seconds);
int annulet_usleep(unsigned microseconds);
int annulet_nanosleep(const struct timespec* time, struct timespec* left);
/* Returns the error, as the plain call does, and leaves errno alone. */
int annulet_clock_nanosleep(clockid_t clock, int flags, const struct timespec* time, struct timespec* left);

/* The calls around them. A descriptor that blocks does so for the fiber; one with O_NONBLOCK does not, and
 * its flags are never changed. SO_RCVTIMEO and SO_SNDTIMEO hold. Writes to a stream that blocks end when all
 * is written, or with what was; a signal, a kill or the time ends them so, too. Where a transfer has to be
 * made by a thread (a disk, a blocking tty, a send with MSG_ZEROCOPY that may wait) a kill waits for what a
 * disk has begun.
 *
 * Not as the plain call: SO_RCVLOWAT has a say in how much a read waits for on TCP only, and only where
 * nothing was there when it began; a negative SO_RCVTIMEO or SO_SNDTIMEO is none, for the kernel does not
 * tell one from the other; and a write to a FIFO with a name or to a terminal goes on after a handler with
 * SA_RESTART, also where a part was written. */
ssize_t annulet_read(int fd, void* into, size_t size);
ssize_t annulet_write(int fd, const void* from, size_t size);
ssize_t annulet_readv(int fd, const struct iovec* into, int count);
ssize_t annulet_writev(int fd, const struct iovec* from, int count);
ssize_t annulet_recv(int socket, void* into, size_t size, int flags);
ssize_t annulet_recvfrom(int socket, void* into, size_t size, int flags, struct sockaddr* sender,
                         socklen_t* sender_size);
ssize_t annulet_recvmsg(int socket, struct msghdr* message, int flags);
ssize_t annulet_send(int socket, const void* from, size_t size, int flags);
ssize_t annulet_sendto(int socket, const void* from, size_t size, int flags, const struct sockaddr* receiver,
                       socklen_t receiver_size);
ssize_t annulet_sendmsg(int socket, const struct msghdr* message, int flags);
int annulet_accept(int socket, struct sockaddr* peer, socklen_t* peer_size);
int annulet_accept4(int socket, struct sockaddr* peer, socklen_t* peer_size, int flags);
int annulet_connect(int socket, const struct sockaddr* peer, socklen_t peer_size);
/* As annulet::close: tells whoever waits for the descriptor. Nothing ends it early. From a signal handler it
 * is the plain call, and tells nobody. */
int annulet_close(int fd);

/* What is a number is answered at once. For the rest a thread makes the call (<netdb.h>), 64 of a hub's that
 * somebody waits for at a time; the caller's `_res` and locale have no say. A fiber that is killed, or late,
 * does not wait: EAI_SYSTEM with ECANCELED. Nor does the hub's end: what has begun goes on without them, and
 * what it finds is freed. EAI_AGAIN where no thread is to be had. From a signal handler it is the plain
 * call. */
struct addrinfo;
int annulet_getaddrinfo(const char* node, const char* service, const struct addrinfo* hints,
                        struct addrinfo** found);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
