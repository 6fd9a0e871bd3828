// The calls on descriptors, plainly and as drop-ins: plain_and_parked.hpp for these.
#pragma once

#include "plain_and_parked.hpp"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace annulet::test {

struct io_calls_of {
  ssize_t (*read)(int, void*, std::size_t);
  ssize_t (*write)(int, const void*, std::size_t);
  ssize_t (*readv)(int, const iovec*, int);
  ssize_t (*writev)(int, const iovec*, int);
  ssize_t (*recv)(int, void*, std::size_t, int);
  ssize_t (*recvfrom)(int, void*, std::size_t, int, sockaddr*, socklen_t*);
  ssize_t (*recvmsg)(int, msghdr*, int);
  ssize_t (*send)(int, const void*, std::size_t, int);
  ssize_t (*sendto)(int, const void*, std::size_t, int, const sockaddr*, socklen_t);
  ssize_t (*sendmsg)(int, const msghdr*, int);
  int (*accept)(int, sockaddr*, socklen_t*);
  int (*accept4)(int, sockaddr*, socklen_t*, int);
  int (*connect)(int, const sockaddr*, socklen_t);
  int (*close)(int);
};

inline constexpr io_calls_of plain_io{
    &::read,
    &::write,
    &::readv,
    &::writev,
    &::recv,
    [](int s, void* p, std::size_t n, int f, sockaddr* a, socklen_t* l) {
      return ::recvfrom(s, p, n, f, a, l);
    },
    &::recvmsg,
    &::send,
    [](int s, const void* p, std::size_t n, int f, const sockaddr* a, socklen_t l) {
      return ::sendto(s, p, n, f, a, l);
    },
    &::sendmsg,
    [](int s, sockaddr* a, socklen_t* l) { return ::accept(s, a, l); },
    [](int s, sockaddr* a, socklen_t* l, int f) { return ::accept4(s, a, l, f); },
    [](int s, const sockaddr* a, socklen_t l) { return ::connect(s, a, l); },
    &::close};
inline constexpr io_calls_of drop_in_io{
    &annulet_read,     &annulet_write,   &annulet_readv,   &annulet_writev, &annulet_recv,
    &annulet_recvfrom, &annulet_recvmsg, &annulet_send,    &annulet_sendto, &annulet_sendmsg,
    &annulet_accept,   &annulet_accept4, &annulet_connect, &annulet_close};

inline void same_io_in_both(const std::function<void(const io_calls_of&, scene_notes&)>& play,
                            beside whom = beside::ticker) {
  same_in_both(
      [&](const wait_calls& which, scene_notes& notes) { play(which.parks ? drop_in_io : plain_io, notes); },
      whom);
}

}  // namespace annulet::test
