// The drop-ins that are told how much room there is.

#include "posix_checked.h"
#include "posix.h"

// glibc's, declared in none of its headers: "*** buffer overflow detected ***: terminated", and abort.
extern "C" [[noreturn]] void __chk_fail();

namespace {

void check(bool has_room) {
  if (!has_room) {
    __chk_fail();
  }
}

}  // namespace

int annulet_poll_chk(pollfd* fds, nfds_t nfds, int milliseconds, size_t room) {
  check(nfds <= room / sizeof(pollfd));
  return annulet_poll(fds, nfds, milliseconds);
}

int annulet_ppoll_chk(pollfd* fds, nfds_t nfds, const timespec* timeout, const sigset_t* mask, size_t room) {
  check(nfds <= room / sizeof(pollfd));
  return annulet_ppoll(fds, nfds, timeout, mask);
}

ssize_t annulet_read_chk(int fd, void* into, size_t size, size_t room) {
  check(size <= room);
  return annulet_read(fd, into, size);
}

ssize_t annulet_recv_chk(int socket, void* into, size_t size, size_t room, int flags) {
  check(size <= room);
  return annulet_recv(socket, into, size, flags);
}

ssize_t annulet_recvfrom_chk(int socket, void* into, size_t size, size_t room, int flags, sockaddr* sender,
                             socklen_t* sender_size) {
  check(size <= room);
  return annulet_recvfrom(socket, into, size, flags, sender, sender_size);
}
